"""Bystander (PostgreSQL): deliveries at a steady rate, alone, and beside a session that is idle in a transaction.

Such a session, be it a forgotten psql, a backup or a long report, keeps rows that were settled since it began from being
cleaned up, and their entries stay in the indexes that claims go by. `ratio` is the 95th percentile of the time from stored
to settled beside it, in the last part of that phase, divided by the one alone.

`…_entries_per_delivery` says how many entries of those indexes were read for each delivery that was settled, and
`…_blocks_per_delivery` how many of their pages: unlike times, these are the same on every machine.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import psycopg
from django.core.management.base import CommandError
from django.db import connection

from jetrelay.bench.feeder import Feed
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, delivering, django, python, run
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.spread import percentile, percentiles_ms
from jetrelay.bench.stage import LOOPBACK, Group

WARM_UP_S = 5.0
PATIENCE_S = 120
# By these, lanes find what is due.
QUEUES = ("delivery_due", "delivery_order")
_IMPORTS = "from jetrelay.bench.stage import *; from jetrelay.bench.feeder import *;"


def measure(
    say: Say,
    *,
    per_s: Annotated[float, "events per second in all"] = 1000.0,
    endpoints: Annotated[int, "endpoints that share them"] = 4,
    order: Annotated[Literal["none", "subject"], "in which order these endpoints get the events: of each subject one after the other, or none"] = "none",
    seconds: Annotated[float, "how long each phase is measured"] = 60.0,
    idle: Annotated[float, "for how many seconds the session is idle before that"] = 60.0,
) -> Figures:
    if connection.vendor != "postgresql":
        raise CommandError("bench bystander is about PostgreSQL: set DATABASE_URL to postgres://….")
    each = per_s / endpoints
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        env, log = env | LOOPBACK, folder / "processes.log"
        group = Group("steady", endpoints, urlsplit(url).port or 80, ordered=order == "subject")
        run(python(MANAGE, "migrate", "-v0"), env)
        run(django(f"{_IMPORTS} build({[group]!r})"), env)
        ledger = Ledger(env["DATABASE_URL"])
        with delivering(env, log):
            say(f"{per_s:g} events/s to {endpoints} endpoints, alone for {seconds:g} s")
            alone = _phase(env, log, ledger, Feed("steady", endpoints, each, "alone"), seconds)
            with _idle_session(env["DATABASE_URL"]):
                if idle:
                    say(f"the same for {idle:g} s beside a session that is idle in a transaction")
                    _phase(env, log, ledger, Feed("steady", endpoints, each), idle)
                say(f"and for another {seconds:g} s, measured")
                beside = _phase(env, log, ledger, Feed("steady", endpoints, each, "beside"), seconds)
        alone_ms, beside_ms = ledger.stay("alone").ms, ledger.stay("beside").ms
        return {
            "name": "bystander",
            "ratio": round(percentile(beside_ms, 95) / percentile(alone_ms, 95), 3),
            **percentiles_ms("alone", alone_ms),
            **percentiles_ms("beside", beside_ms),
            **_per_delivery("alone", alone, len(alone_ms)),
            **_per_delivery("beside", beside, len(beside_ms)),
            "delivered": len(alone_ms) + len(beside_ms),
            "phase_s": seconds,
            "idle_s": idle,
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }


class Read(NamedTuple):
    """What was read of the queues' indexes so far."""

    entries: int
    blocks: int


@contextlib.contextmanager
def _idle_session(url: str) -> Iterator[None]:
    """A session that has looked at something and then does nothing, with its transaction open."""
    with psycopg.connect(url) as server:
        server.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        server.execute("SELECT 1 FROM delivery_delivery LIMIT 1")
        yield


def _phase(env: dict[str, str], log: Path, ledger: Ledger, feed: Feed, seconds: float) -> Read:
    before = _read(env["DATABASE_URL"])
    run(django(f"{_IMPORTS} feed({[feed]!r}, {WARM_UP_S}, {seconds})"), env, WARM_UP_S + seconds + PATIENCE_S)
    ledger.wait_until_sent("steady", PATIENCE_S, log)
    after = _read(env["DATABASE_URL"])
    return Read(after.entries - before.entries, after.blocks - before.blocks)


def _read(url: str) -> Read:
    sql = (
        "SELECT sum(idx_tup_read)::bigint, sum(idx_blks_hit + idx_blks_read)::bigint FROM pg_stat_user_indexes"
        " JOIN pg_statio_user_indexes USING (indexrelid) WHERE pg_stat_user_indexes.indexrelname = ANY (%s)"
    )
    with psycopg.connect(url) as server:
        return Read(*(server.execute(sql, [list(QUEUES)]).fetchone() or (0, 0)))


def _per_delivery(name: str, read: Read, count: int) -> dict[str, float]:
    count = max(1, count)
    return {f"{name}_entries_per_delivery": round(read.entries / count, 1), f"{name}_blocks_per_delivery": round(read.blocks / count, 1)}
