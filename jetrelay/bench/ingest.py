"""Ingest: events posted to the API by 50 clients at once, each stored with its delivery before it is answered; and the same with a transaction for each.

`ratio` is the rate with group commit divided by that without, in one run on the same tables. Nothing is sent: the endpoint is paused.
"""

from typing import Annotated

from django.core.management.base import CommandError

from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.poster import Posting, post
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.stage import LOOPBACK
from jetrelay.bench.web import APPLICATION, BODY, build, serving
from jetrelay.places import SERVER_THREADS

WARM_UP_S = 2.0
FEW_THREADS = 5
ONE_BY_ONE = "jetrelay.bench.one_by_one:application"


def measure(
    say: Say,
    *,
    connections: Annotated[int, "clients, each of which posts one event after the other"] = 50,
    seconds: Annotated[float, "how long each is measured, in whole seconds"] = 10.0,
    workers: Annotated[int, "web processes"] = 2,
) -> Figures:
    with scratch() as (folder, env), sink(folder) as (url, _):
        env |= LOOPBACK
        key = build(env, url, "paused")
        ledger, stored, found = Ledger(env["DATABASE_URL"]), 0, dict[str, Posting]()
        # Transactions of their own go best on few threads: more would wait for each other.
        for name, application, threads in (("single", ONE_BY_ONE, FEW_THREADS), ("ingest", APPLICATION, SERVER_THREADS)):
            with serving(env, folder / "web.log", workers, application, threads) as target:
                post(folder, target, key, BODY, connections, WARM_UP_S)
                before = _stored(ledger)
                say(f"{name}: {connections} clients post for {seconds:g} s")
                found[name] = post(folder, target, key, BODY, connections, seconds)
            # A client is stopped at the end, before some of its last answers: there may be more stored than answered, never fewer.
            stored = _stored(ledger) - before
            if stored < found[name].answered:
                raise CommandError(f"{found[name].answered} posts were answered, and {stored} are stored.")
        ingest, single = found["ingest"], found["single"]
        return {
            "name": "ingest",
            "ratio": round(ingest.per_s / single.per_s, 3),
            "ingest_events_per_s": round(ingest.per_s),
            "ingest_p50_ms": round(ingest.p50_ms, 1),
            "ingest_p95_ms": round(ingest.p95_ms, 1),
            "single_events_per_s": round(single.per_s),
            "single_p50_ms": round(single.p50_ms, 1),
            "single_p95_ms": round(single.p95_ms, 1),
            "events": ingest.answered,
            "stored": stored,
            "connections": connections,
            "workers": workers,
            "body_bytes": len(BODY),
            "client": ingest.client,
            "database": env["DATABASE_URL"].split(":")[0],
        }


def _stored(ledger: Ledger) -> int:
    ledger.read()
    return ledger.owed
