"""The gateway: events posted to the API by 50 clients at once -> stored -> delivered to a local sink, with the product's own processes.

The rate is that of the slowest part: all that was stored, from the first one stored to the last one delivered. `ratio` is that rate
divided by the limit, measured before and after in the same run.
"""

from typing import Annotated

from jetrelay.bench import limit
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.poster import post
from jetrelay.bench.processes import delivering
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.spread import percentiles_ms
from jetrelay.bench.stage import LOOPBACK
from jetrelay.bench.web import BODY, build, serving

PATIENCE_S = 60
LIMIT_REQUESTS = 30_000


def measure(
    say: Say,
    *,
    connections: Annotated[int, "clients, each of which posts one event after the other"] = 50,
    seconds: Annotated[float, "how long they post, in whole seconds"] = 15.0,
    workers: Annotated[int, "web processes"] = 1,
    requests: Annotated[int, "requests to measure the limit by"] = LIMIT_REQUESTS,
) -> Figures:
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        env, log, bodies = env | LOOPBACK, folder / "processes.log", folder / "bodies"
        bodies.write_text(BODY)
        say(f"limit: posting to {sink_name} with no database")
        before = limit.post(env, url, bodies, requests)
        key = build(env, url, "active")
        ledger = Ledger(env["DATABASE_URL"])
        with delivering(env, log), serving(env, log, workers) as target:
            say(f"{connections} clients post for {seconds:g} s, and all of it is delivered")
            posting = post(folder, target, key, BODY, connections, seconds)
            ledger.wait_until_sent("sink", PATIENCE_S, log)
        say("limit, again: the machine may have changed meanwhile")
        after = limit.post(env, url, bodies, requests)
        stay = ledger.stay_of_all()
        limit_per_s, per_s = (before.per_s + after.per_s) / 2, len(stay.ms) / stay.seconds
        return {
            "name": "gateway",
            "ratio": round(per_s / limit_per_s, 3),
            "gateway_events_per_s": round(per_s),
            "posted_events_per_s": round(posting.per_s),
            "posted_p50_ms": round(posting.p50_ms, 1),
            "posted_p95_ms": round(posting.p95_ms, 1),
            **percentiles_ms("delivered", stay.ms),
            "limit_requests_per_s": round(limit_per_s),
            "delivered": len(stay.ms),
            "connections": connections,
            "workers": workers,
            "seconds_s": round(stay.seconds, 3),
            "client": posting.client,
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }
