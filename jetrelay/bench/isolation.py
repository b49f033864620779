"""Isolation: the latency of healthy endpoints at a steady rate, alone, and beside neighbours that hang, refuse or have a backlog.

Latency is the time from stored to settled, as the tables have it; `ratio` is its 95th percentile beside the neighbours
divided by the one alone. Both are measured in one run on the same tables: the neighbours and what they are owed are
there from the start, but paused.

The neighbours belong to another tenant, and have the largest values that a tenant may set: requests open at once,
priority, and half of those that hang the time limit. They are at work before the second phase is measured. Each of
those that hang has more requests waiting than it may have open; where the time limit is the usual one, the first ones
time out inside a phase of the default length. The backlog drains at full speed to a sink that answers at once; it is
made larger by what could drain meanwhile, and a run that it does not outlast has failed. All of them go on getting
events.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from django.core.management.base import CommandError

from jetrelay.bench.feeder import Feed
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.neighbours import hanging as hanging_port
from jetrelay.bench.neighbours import refusing as refusing_port
from jetrelay.bench.processes import MANAGE, delivering, django, python, run
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.spread import percentile, percentiles_ms
from jetrelay.bench.stage import LOOPBACK, Group, largest
from subscriptions.models import Endpoint

WARM_UP_S = 3.0
# Until a feeder has started, and a little more.
STARTING_S = 4.0
# What one that refuses is owed, and by how much more one that hangs is owed than it may have open at once.
HELD_BY_EACH = 50
NEIGHBOURS_PER_S = 1.0
PATIENCE_S = 60
_IMPORTS = "from jetrelay.bench.stage import *; from jetrelay.bench.feeder import *;"


def measure(
    say: Say,
    *,
    endpoints: Annotated[int, "healthy endpoints"] = 50,
    per_s: Annotated[float, "events per second for each of them"] = 4.0,
    seconds: Annotated[float, "how long each phase is measured"] = 30.0,
    hanging: Annotated[int, "endpoints that never answer"] = 50,
    backlog: Annotated[int, "deliveries that one endpoint is owed, at least"] = 100_000,
    drain_per_s: Annotated[int, "by how much the backlog may drain"] = 10_000,
) -> Figures:
    backlog += int(drain_per_s * (seconds + WARM_UP_S + STARTING_S))
    with scratch() as (folder, env), sink(folder) as (url, sink_name), hanging_port() as hangs, refusing_port() as refuses:
        env, log, port = env | LOOPBACK, folder / "processes.log", urlsplit(url).port or 80
        bad = neighbours(hanging, hangs, refuses, port)
        run(python(MANAGE, "migrate", "-v0"), env)
        run(django(f"{_IMPORTS} build({[Group('healthy', endpoints, port), *bad]!r})"), env)
        say(f"storing a backlog of {backlog:,}, and for each endpoint that hangs more than it may have open")
        held = "; ".join(f"pour({group.name!r}, {group.count}, {_held(group)})" for group in bad if group.name != "deep")
        run(django(f"{_IMPORTS} pour('deep', 1, {backlog}); {held}"), env)
        ledger = Ledger(env["DATABASE_URL"])
        alone_feed, beside_feed = (Feed("healthy", endpoints, per_s, origin) for origin in ("alone", "beside"))
        noise = [Feed(group.name, group.count, NEIGHBOURS_PER_S) for group in bad]
        with delivering(env, log):
            say(f"{endpoints} healthy endpoints, {per_s:g} events/s each, alone for {seconds:g} s")
            _phase(env, log, ledger, [alone_feed], seconds)
            say(f"the same beside {hanging} that hang, one that refuses and the backlog")
            before = ledger.count_owed("deep")
            _phase(env, log, ledger, [beside_feed, *noise], seconds)
            left = ledger.count_owed("deep")
        if not left:
            raise CommandError(f"The backlog of {backlog} was gone before the end, so the figures say nothing: give a larger --drain-per-s.")
        alone, beside = ledger.stay("alone").ms, ledger.stay("beside").ms
        return {
            "name": "isolation",
            "ratio": round(percentile(beside, 95) / percentile(alone, 95), 3),
            **percentiles_ms("alone", alone),
            **percentiles_ms("beside", beside),
            "delivered": len(alone) + len(beside),
            "drained": before - left,
            "owed": left,
            "phase_s": seconds,
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }


def neighbours(hanging: int, hangs: int, refuses: int, answers: int) -> list[Group]:
    """So many that hang, one that refuses and one with a backlog: of a tenant that has set all it may."""
    open_at_once, high = int(largest("max_in_flight")), Endpoint.Priority.HIGH.value
    refusing = Group("refusing", 1, refuses, "paused", max_in_flight=open_at_once, priority=high, tenant="greedy")
    holding = hanging // 2
    groups = [
        replace(refusing, name="hanging", count=hanging - holding, port=hangs),
        replace(refusing, name="holding", count=holding, port=hangs, timeout_s=largest("timeout_s")),
        refusing,
        replace(refusing, name="deep", port=answers),
    ]
    return [group for group in groups if group.count]


def _held(group: Group) -> int:
    """What all of the group are owed from the start."""
    at_once = 0 if group.name == "refusing" else group.max_in_flight
    return group.count * (at_once + HELD_BY_EACH)


def _phase(env: dict[str, str], log: Path, ledger: Ledger, feeds: list[Feed], seconds: float) -> None:
    wake = "resume();" if len(feeds) > 1 else ""
    run(django(f"{_IMPORTS} {wake} feed({feeds!r}, {WARM_UP_S}, {seconds})"), env, WARM_UP_S + seconds + PATIENCE_S)
    ledger.wait_until_sent("healthy", PATIENCE_S, log)
