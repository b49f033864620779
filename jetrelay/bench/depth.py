"""Depth (PostgreSQL): how fast one endpoint's deliveries drain when few are pending, when very many are, and beside a week of settled ones.

Each case has a database of its own, filled before anything is measured. `ratio` is the rate of the fastest case divided by that
of the slowest, each the median of its rounds. The cases take turns, so that what else the machine does meets all of them,
and every round begins the same way: what the last one drained is made up for, the tables are vacuumed (autovacuum is
off on them), a checkpoint is made, and a fresh worker starts.

A round measures the first deliveries to settle, as many in each case as the shallow one holds; of these the time
between the tenth and the ninetieth percentile of when they were settled, so that neither the start of the worker and
its connections nor the last few in flight decide.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from django.core.management.base import CommandError
from django.db import connection

from jetrelay.bench.filling import Filler
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, delivering, django, python, run
from jetrelay.bench.scratch import database, scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.stage import LOOPBACK, Group

# Endpoints that a settled event went to; the first of them is the one that drains.
FANOUT = 10
SETTLED_DAYS = 6
PATIENCE_S = 60
_IMPORTS = "from jetrelay.bench.stage import *;"


def measure(
    say: Say,
    *,
    shallow: Annotated[int, "deliveries pending where they are few, and measured in every round"] = 10_000,
    deep: Annotated[int, "deliveries pending where they are many"] = 1_000_000,
    settled: Annotated[int, "settled deliveries, with their attempts"] = 5_000_000,
    rounds: Annotated[int, "rounds of each case"] = 5,
) -> Figures:
    if connection.vendor != "postgresql":
        raise CommandError("bench depth fills PostgreSQL by means of its own: set DATABASE_URL to postgres://….")
    with contextlib.ExitStack() as stack:
        folder, env = stack.enter_context(scratch())
        url, sink_name = stack.enter_context(sink(folder))
        # Nothing is old enough to be pruned meanwhile.
        env |= LOOPBACK | {"JETRELAY_RETENTION_DAYS": "3650"}
        run(python(MANAGE, "migrate", "-v0"), env)
        run(django(f"{_IMPORTS} build({[Group('endpoint', FANOUT, urlsplit(url).port or 80)]!r})"), env)
        endpoints = [id for (id,) in Ledger(env["DATABASE_URL"]).all("SELECT id FROM subscriptions_endpoint ORDER BY id")]
        wanted = {"shallow": (shallow, 0), "deep": (deep, 0), "settled": (shallow, settled)}
        cases = [_Case(name, *sizes, stack.enter_context(database(like=env["DATABASE_URL"])), endpoints) for name, sizes in wanted.items()]
        for case in cases:
            say(f"{case.name}: storing {case.pending:,} pending and {case.settled:,} settled deliveries")
            case.fill()
        for number in range(rounds):
            for case in cases:
                case.run(env, folder / "processes.log", shallow)
                say(f"round {number + 1} of {rounds}, {case.name}: {case.rates[-1]:,.0f} deliveries/s")
        rates = {f"{case.name}_per_s": round(median(case.rates)) for case in cases}
        return {
            "name": "depth",
            "ratio": round(max(rates.values()) / min(rates.values()), 3),
            **rates,
            **{f"{case.name}_slowest_per_s": round(min(case.rates)) for case in cases},
            **{f"{case.name}_fastest_per_s": round(max(case.rates)) for case in cases},
            "pending": shallow,
            "deep_pending": deep,
            "settled": settled,
            "rounds": rounds,
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }


@dataclass
class _Case:
    """One database and its rounds."""

    name: str
    pending: int
    settled: int
    url: str
    endpoints: list[UUID]
    rates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger, self.filler = Ledger(self.url), Filler(self.url)

    def fill(self) -> None:
        if self.settled:
            self.filler.settled(self.settled, self.endpoints, SETTLED_DAYS)
        self.filler.pending(self.pending, self.endpoints[0])

    def run(self, env: Mapping[str, str], log: Path, measured: int) -> None:
        """One round: from the state that the case is about, drain as many as are measured."""
        if missing := self.pending - self.ledger.count_owed("endpoint"):
            self.filler.pending(missing, self.endpoints[0])
        self.filler.vacuum()
        began, before = datetime.now(UTC), self._attempts()
        with delivering(dict(env) | {"DATABASE_URL": self.url}, log):
            self._wait(before + measured, log)
        self.rates.append(self._rate(began, measured))

    def _attempts(self) -> int:
        """By the tallies: cheap at any size."""
        return int(self.ledger.one("SELECT coalesce(sum(attempts), 0) FROM delivery_attempttally")[0])

    def _wait(self, attempts: int, log: Path) -> None:
        last, since = -1, monotonic()
        while (made := self._attempts()) < attempts:
            if made != last:
                last, since = made, monotonic()
            if monotonic() - since > PATIENCE_S:
                raise CommandError(f"{attempts - made} deliveries are left, and it gets no further:\n{log.read_text(errors='replace')[-3000:]}")
            sleep(0.1)

    def _rate(self, began: datetime, measured: int) -> float:
        """Deliveries per second between two moments at which some were settled."""
        rows = self.ledger.all(
            "SELECT settled_at FROM delivery_delivery JOIN delivery_attempt ON delivery_attempt.delivery_id = delivery_delivery.id"
            " WHERE delivery_attempt.id >= %s AND delivery_delivery.state = 1 AND settled_at >= %s ORDER BY settled_at LIMIT %s",
            UUID(int=int(began.timestamp() * 1000) << 80),
            began,
            measured,
        )
        first, last = rows[len(rows) // 10][0], rows[len(rows) * 9 // 10][0]
        if first == last:
            raise CommandError(f"All of {len(rows)} deliveries were settled at one moment: measure more of them.")
        return sum(1 for (at,) in rows if first < at <= last) / float((last - first).total_seconds())
