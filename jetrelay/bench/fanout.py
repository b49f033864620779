"""Fan-out: many endpoints with a few events per second each; and what matching costs with very many subscriptions.

Latency is the time from stored to settled, as the tables have it. Where fewer are delivered per second than offered,
the machine cannot keep up and the latencies grow with the length of the run. `ratio` is that of `bench matching`.
"""

from typing import Annotated
from urllib.parse import urlsplit

from jetrelay.bench import matching
from jetrelay.bench.feeder import Feed
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, delivering, django, python, run
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.spread import percentiles_ms
from jetrelay.bench.stage import LOOPBACK, Group

WARM_UP_S = 5.0
PATIENCE_S = 60
_IMPORTS = "from jetrelay.bench.stage import *; from jetrelay.bench.feeder import *;"


def measure(
    say: Say,
    *,
    endpoints: Annotated[int, "endpoints"] = 1_000,
    per_s: Annotated[float, "events per second for each of them"] = 5.0,
    seconds: Annotated[float, "how long it is measured"] = 60.0,
    subscriptions: Annotated[int, "subscriptions of the larger set to match by"] = matching.SUBSCRIPTIONS,
    events: Annotated[int, "events to match each time"] = matching.EVENTS,
) -> Figures:
    matched = matching.measure(say, subscriptions=subscriptions, events=events)
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        env, log = env | LOOPBACK, folder / "processes.log"
        run(python(MANAGE, "migrate", "-v0"), env)
        run(django(f"{_IMPORTS} build({[Group('endpoint', endpoints, urlsplit(url).port or 80)]!r})"), env)
        ledger, steady = Ledger(env["DATABASE_URL"]), Feed("endpoint", endpoints, per_s, "measured")
        with delivering(env, log):
            say(f"{endpoints:,} endpoints, {per_s:g} events/s each, for {seconds:g} s")
            run(django(f"{_IMPORTS} feed([{steady!r}], {WARM_UP_S}, {seconds})"), env, WARM_UP_S + seconds + PATIENCE_S)
            ledger.wait_until_sent("endpoint", PATIENCE_S, log)
        stay = ledger.stay("measured")
        return matched | {
            "name": "fanout",
            "offered_per_s": round(endpoints * per_s),
            "stored_events_per_s": round(len(stay.ms) / seconds),
            "delivered_per_s": round(len(stay.ms) / stay.seconds),
            **percentiles_ms("delivered", stay.ms),
            "delivered": len(stay.ms),
            "endpoints": endpoints,
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }
