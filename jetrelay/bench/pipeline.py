"""The pipeline: a stream at full speed -> stored -> delivered to a local sink, with the product's own processes.

The time runs from the listener's connection to the settling of the last delivery, as the tables have it. Beside it the same stream
the way most Django projects do it: see `per_task.py`. There the time runs from the first event's arrival.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

from django.core.management.base import CommandError

from delivery.sources.jetstream import demo_events
from jetrelay.bench import baseline as per_task
from jetrelay.bench import limit
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, delivering, django, free_port, python, run, running, wait_for_port
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink

# A run that makes no progress for this long has failed.
PATIENCE_S = 60


def measure(
    say: Say,
    *,
    events: Annotated[int, "events in the stream"] = 30_000,
    baseline: Annotated[int, "events of it that the baseline delivers"] = 2_000,
) -> Figures:
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        stream = folder / "stream.ndjson"
        demo_events.write(stream, events)
        bodies = stream.read_bytes().splitlines()[: limit.MOST_BODIES]
        say(f"limit: posting to {sink_name} with no database")
        before = limit.post(env, url, stream, events)
        env |= prepare(env, url)
        pools = {}
        for name in per_task.POOLS:
            say(f"baseline: {min(baseline, events):,} events, one task for each delivery, {name}")
            pools[name] = _baseline(name, folder, env, stream, min(baseline, events))
        say(f"pipeline: {events:,} events on {env['DATABASE_URL'].split(':')[0]} and {env['BROKER_URL'].split(':')[0] or 'files'}")
        ledger = deliver(folder, env, stream, events)
        say("limit, again: the machine may have changed meanwhile")
        after = limit.post(env, url, stream, events)
        limit_per_s = (before.per_s + after.per_s) / 2
        per_s = ledger.delivered / ledger.seconds
        return {
            "name": "pipeline",
            "ratio": round(per_s / limit_per_s, 3),
            **per_task.compared(per_s, pools),
            "pipeline_events_per_s": round(per_s),
            "limit_requests_per_s": round(limit_per_s),
            "limit_before_requests_per_s": round(before.per_s),
            "limit_after_requests_per_s": round(after.per_s),
            "events": events,
            "delivered": ledger.delivered,
            "attempts": ledger.attempts,
            "seconds_s": round(ledger.seconds, 3),
            "stored_seconds_s": round(ledger.stored_seconds, 3),
            "mean_body_bytes": round(sum(map(len, bodies)) / len(bodies)),
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }


def prepare(env: Mapping[str, str], url: str) -> dict[str, str]:
    """Make the tables, and one endpoint with this URL that wants the whole stream. Returns the environment that says so."""
    asked = {"WEBHOOK_URL": url, "JETSTREAM_COLLECTIONS": "*", "JETSTREAM_KINDS": "commit,identity,account"}
    run(python(MANAGE, "migrate", "-v0"), env)
    run(python(MANAGE, "bootstrap"), dict(env) | asked)
    return asked


def deliver(folder: Path, env: Mapping[str, str], stream: Path, events: int) -> Ledger:
    """Play the stream to the product, on the tables that were prepared, until all of it is delivered."""
    log, ledger = folder / "processes.log", Ledger(env["DATABASE_URL"])
    with playing(stream, env, log) as host, delivering(env, log), running(python(MANAGE, "run_jetstream"), dict(env) | {"JETSTREAM_HOSTS": host}, log):
        _wait(ledger, events, log)
    return ledger


def _baseline(pool: str, folder: Path, env: Mapping[str, str], stream: Path, events: int) -> float:
    """Events per second, from the arrival of the first to the settling of the last. Leaves the tables empty."""
    ledger = Ledger(env["DATABASE_URL"])
    with playing(stream, env, folder / "player.log") as host, per_task.working(pool, env, folder) as log:
        run(django(f"from jetrelay.bench.per_task import listen; listen({host!r}, {events})"), env)
        ledger.wait_until_sent("WEBHOOK_URL", PATIENCE_S, log)
    stay = ledger.stay_of_all()
    run(django("from jetrelay.bench.stage import empty; empty()"), env)
    return len(stay.ms) / stay.seconds


@contextlib.contextmanager
def playing(stream: Path, env: Mapping[str, str], log: Path, *options: str) -> Iterator[str]:
    """The URL of a Jetstream that plays this file."""
    port = free_port()
    with running(python(MANAGE, "play_jetstream", str(stream), "--port", str(port), *options), env, log) as player:
        wait_for_port(port, player, log)
        yield f"ws://127.0.0.1:{port}/subscribe"


def _wait(ledger: Ledger, events: int, log: Path) -> None:
    last, since = -1, monotonic()
    while True:
        ledger.read()
        # The listener writes down once a second since when it is connected: a short run may be over before.
        if ledger.delivered >= events and ledger.seconds:
            return
        if ledger.delivered != last:
            last, since = ledger.delivered, monotonic()
        if monotonic() - since > PATIENCE_S:
            raise CommandError(f"{ledger.delivered} of {events} delivered, and no more:\n{log.read_text(errors='replace')[-3000:]}")
        sleep(0.2)
