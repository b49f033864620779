"""What came in and went out over a span of time, in even steps, from the tallies.

A step that is over does not change any more: it is summed once and remembered, so that a chart costs the same however long its
span is. What was not looked at yet is summed in one query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.core.cache import cache
from django.db.models import Sum
from django.utils import timezone

from delivery.models import AttemptTally, EventTally
from jetrelay.dashboard.latency import BUCKETS
from jetrelay.dashboard.overview.totals import digest
from subscriptions.models import Tenants

# Writers commit what they count within seconds: a step may still grow for so long after its end.
_SETTLES = timedelta(minutes=2)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

Counts = dict[str, float]
Tally = type[EventTally | AttemptTally]


class Span(NamedTuple):
    """A span that can be looked at. Steps begin at whole multiples of their length."""

    name: str
    title: str
    length: timedelta
    step: timedelta

    @property
    def step_words(self) -> str:
        minutes = int(self.step.total_seconds() // 60)
        return "minute" if minutes == 1 else f"{minutes} minutes" if minutes < 60 else f"{minutes // 60} hours"

    def starts(self, now: datetime) -> list[datetime]:
        """The beginnings of its steps, the one that runs last."""
        last = _EPOCH + (now - _EPOCH) // self.step * self.step
        return [last - self.step * back for back in reversed(range(int(self.length / self.step)))]

    def label(self, start: datetime) -> str:
        start = start.astimezone(UTC)
        return f"{start:%H:%M}" if self.length <= timedelta(days=1) else f"{start:%a %d %H:%M}"


# Minutes older than a day are folded into hours (`delivery/folding.py`): no step of the longer spans may be shorter.
SPANS = {
    "hour": Span("hour", "Last hour", timedelta(hours=1), timedelta(minutes=1)),
    "day": Span("day", "Last day", timedelta(days=1), timedelta(minutes=30)),
    "week": Span("week", "Last week", timedelta(days=7), timedelta(hours=3)),
}


@dataclass(frozen=True)
class Steps:
    """One span's counts, a row for each step."""

    span: Span
    starts: Sequence[datetime]
    rows: Sequence[Counts]

    @property
    def labels(self) -> list[str]:
        return [self.span.label(start) for start in self.starts]

    def values(self, name: str) -> list[float | None]:
        return [row.get(name, 0) for row in self.rows]

    def histograms(self) -> list[list[float]]:
        return [[row.get(bucket, 0) for bucket in BUCKETS] for row in self.rows]


def events(tenants: Tenants, span: Span, now: datetime | None = None) -> Steps:
    """received, stored, duplicate, unmatched, invalid."""
    names = ("received", "stored", "duplicate", "unmatched", "invalid")
    return _steps(EventTally, tenants, span, now or timezone.now(), lambda rows: _sums(rows, names))


def attempts(tenants: Tenants, span: Span, now: datetime | None = None) -> Steps:
    """delivered and failed attempts, and the buckets of their histogram."""
    return _steps(AttemptTally, tenants, span, now or timezone.now(), _attempts)


def _steps(tally: Tally, tenants: Tenants, span: Span, now: datetime, summed: Any) -> Steps:
    starts = span.starts(now)
    name = f"steps.{tally.__name__}.{span.name}.{digest(tenants)}"
    known: dict[datetime, Counts] = {start: counts for start, counts in (cache.get(name) or {}).items() if start >= starts[0]}
    since = next((start for start in starts if start not in known), starts[-1])
    minutes = summed(tally._default_manager.for_tenants(tenants).filter(minute__gte=since).order_by())
    fresh: dict[datetime, Counts] = {start: {} for start in starts if start >= since}
    for minute, counts in minutes:
        row = fresh.setdefault(_EPOCH + (minute - _EPOCH) // span.step * span.step, {})
        for key, count in counts.items():
            row[key] = row.get(key, 0) + count
    over = {start: counts for start, counts in fresh.items() if start + span.step + _SETTLES <= now}
    if over:
        cache.set(name, known | over, span.length.total_seconds())
    found = known | fresh
    return Steps(span, starts, [found[start] for start in starts])


def _sums(rows: Any, names: Sequence[str]) -> list[tuple[datetime, Counts]]:
    found = rows.values_list("minute").annotate(*(Sum(name) for name in names))
    return [(row[0], dict(zip(names, map(float, row[1:]), strict=True))) for row in found]


def _attempts(rows: Any) -> list[tuple[datetime, Counts]]:
    names = ("attempts", *BUCKETS)
    found = []
    # What was cancelled was not attempted.
    for minute, outcome, *sums in rows.exclude(outcome="cancelled").values_list("minute", "outcome").annotate(*(Sum(name) for name in names)):
        counts = dict(zip(names, map(float, sums), strict=True))
        counts["delivered" if outcome == "delivered" else "failed"] = counts.pop("attempts")
        found.append((minute, counts))
    return found
