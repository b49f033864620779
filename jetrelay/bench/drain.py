"""Drain: a backlog -> delivered, by one worker; beside it what libcurl alone can post, and one Celery task for each delivery with `requests`.

All of them post the same signed bodies to the same sink. What is measured of a backlog is the time between the tenth and the ninetieth
percentile of when its deliveries were settled, so that neither the start of the worker nor the last few in flight decide.
`ratio` is the drain's rate divided by the limit's (its mean before and after).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any

from django.core.management.base import CommandError

from delivery.sources.jetstream import demo_events
from jetrelay.bench import baseline as per_task
from jetrelay.bench import limit
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, delivering, django, python, run
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.stage import LOOPBACK, Group

ENDPOINTS = 8
# Different bodies: enough that none is a habit.
BODIES = 500
PATIENCE_S = 60


def measure(
    say: Say,
    *,
    deliveries: Annotated[int, "deliveries in the backlog"] = 100_000,
    baseline: Annotated[int, "deliveries in the backlog of the baseline"] = 5_000,
) -> Figures:
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        env |= LOOPBACK
        stream, log = folder / "stream.ndjson", folder / "processes.log"
        demo_events.write(stream, BODIES)
        run(python(MANAGE, "migrate", "-v0"), env)
        run(django(f"from jetrelay.bench.stage import *; build({[Group('drain', ENDPOINTS, 0, address=url)]!r})"), env)
        ledger = Ledger(env["DATABASE_URL"])
        pools = {}
        for name in per_task.POOLS:
            say(f"baseline: {baseline:,} deliveries, one task each, {name}")
            _owe(env, stream, baseline)
            run(django("from jetrelay.bench.per_task import send_all; send_all()"), env)
            with per_task.working(name, env, folder) as its_log:
                pools[name] = _rate(ledger, baseline, its_log)
        say(f"limit: posting to {sink_name} with no database")
        before = limit.post(env, url, stream, deliveries)
        say(f"drain: {deliveries:,} deliveries to {ENDPOINTS} endpoints")
        _owe(env, stream, deliveries)
        with delivering(env, log):
            drain_per_s = _rate(ledger, deliveries, log)
        say("limit, again: the machine may have changed meanwhile")
        limit_per_s = (before.per_s + limit.post(env, url, stream, deliveries).per_s) / 2
        return {
            "name": "drain",
            "ratio": round(drain_per_s / limit_per_s, 3),
            "drain_per_s": round(drain_per_s),
            "limit_requests_per_s": round(limit_per_s),
            **per_task.compared(drain_per_s, pools),
            "deliveries": deliveries,
            "endpoints": ENDPOINTS,
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }


def _owe(env: Mapping[str, str], stream: Path, deliveries: int) -> None:
    """Start afresh with so many pending deliveries, and tables as autovacuum would have left them."""
    bodies = f"open({str(stream)!r}, 'rb').read().splitlines()"
    run(django(f"from jetrelay.bench.stage import *; empty(); owe('drain', {bodies}, {deliveries}); tidy()"), env)


def _rate(ledger: Ledger, deliveries: int, log: Path) -> float:
    """Wait until all are delivered; deliveries per second in the middle of the run."""
    last, since = -1, monotonic()
    while (done := int(ledger.one("SELECT count(*) FROM delivery_delivery WHERE state <> 0")[0])) < deliveries:
        if done != last:
            last, since = done, monotonic()
        if monotonic() - since > PATIENCE_S:
            raise CommandError(f"{done} of {deliveries} delivered, and no more:\n{log.read_text(errors='replace')[-3000:]}")
        sleep(0.2)
    rows = ledger.all("SELECT settled_at, state FROM delivery_delivery ORDER BY settled_at")
    if any(state != 1 for _, state in rows):
        raise CommandError(f"{sum(state != 1 for _, state in rows)} of {deliveries} were not delivered.")
    moments = [_moment(at) for at, _ in rows]
    first, last_at = moments[len(moments) // 10], moments[len(moments) * 9 // 10]
    if first == last_at:
        raise CommandError(f"All of {deliveries} deliveries were settled at one moment: measure more of them.")
    return _between(moments, first, last_at) / (last_at - first).total_seconds()


def _between(moments: Sequence[datetime], first: datetime, last: datetime) -> int:
    return sum(first < at <= last for at in moments)


def _moment(at: Any) -> datetime:
    return datetime.fromisoformat(at) if isinstance(at, str) else at
