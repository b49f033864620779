"""The numbers of the overview, at a cost that does not grow with the tables."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from django.core.cache import cache
from django.db.models import QuerySet, Sum
from django.utils import timezone

from delivery.models import AttemptTally, Delivery, EventTally, StreamGap
from subscriptions.models import Tenants

COUNT_LIMIT = 100_000
DELIVERED = "delivered"
CANCELLED = "cancelled"

Totals = dict[tuple[str, ...], list[float]]


@dataclass(frozen=True)
class Count:
    """A number of rows, counted no further than a limit."""

    number: int
    more: bool = False

    @classmethod
    def up_to(cls, limit: int, found: int) -> Self:
        return cls(min(found, limit), found > limit)

    def __str__(self) -> str:
        return f"{self.number:,}{'+' if self.more else ''}"


@dataclass(frozen=True)
class Traffic:
    """What came in, of one type of event or of all. received = stored + duplicate + unmatched + invalid."""

    kind: str = ""
    type: str = ""
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    unmatched: int = 0
    invalid: int = 0

    @property
    def label(self) -> str:
        return self.type or (f"{self.kind} events" if self.kind else "not readable")

    @property
    def distinct(self) -> int:
        """Received, each event once: every host brings its own copy."""
        return self.received - self.duplicate

    @property
    def processed(self) -> float | None:
        """The share of the different events received that was stored, from 0 to 1; None before anything was received."""
        return self.stored / self.distinct if self.distinct else None


@dataclass(frozen=True)
class Outcomes:
    """How the deliveries stand, and how the attempts of the last hour went."""

    pending: Count
    dead: Count
    delivered: int
    cancelled: int
    success: float | None
    mean_ms: float | None


def bounded_count(rows: "QuerySet[Any]", limit: int = COUNT_LIMIT) -> Count:
    """Count rows by their index, and stop at the limit."""
    return Count.up_to(limit, rows.order_by()[: limit + 1].count())


def open_gaps() -> Count:
    """The stretches of the stream that no host has filled."""
    return bounded_count(StreamGap.objects.filter(filled_by=""))


def traffic(tenants: Tenants) -> list[Traffic]:
    """Every type of event that ever came in from what these tenants see, the most frequent first."""
    found = _totals(EventTally, tenants, ("kind", "type"), ("received", "stored", "duplicate", "unmatched", "invalid"))
    rows = [Traffic(kind, type, *map(int, counts)) for (kind, type), counts in found.items()]
    return sorted(rows, key=lambda row: (-row.received, row.label))


def in_all(rows: Iterable[Traffic]) -> Traffic:
    rows = list(rows)
    return Traffic(
        received=sum(row.received for row in rows),
        stored=sum(row.stored for row in rows),
        duplicate=sum(row.duplicate for row in rows),
        unmatched=sum(row.unmatched for row in rows),
        invalid=sum(row.invalid for row in rows),
    )


def outcomes(tenants: Tenants) -> Outcomes:
    ever = {outcome: int(counts[0]) for (outcome,), counts in _totals(AttemptTally, tenants, ("outcome",), ("attempts",)).items()}
    success, mean_ms = _last_hour(tenants)
    owed = Delivery.objects.for_tenants(tenants)
    return Outcomes(
        pending=bounded_count(owed.pending()),
        dead=bounded_count(owed.dead()),
        delivered=ever.get(DELIVERED, 0),
        cancelled=ever.get(CANCELLED, 0),
        success=success,
        mean_ms=mean_ms,
    )


def _last_hour(tenants: Tenants) -> tuple[float | None, float | None]:
    """The share of attempts that succeeded, and their mean duration in ms."""
    rows = AttemptTally.objects.for_tenants(tenants).filter(minute__gte=timezone.now() - timedelta(hours=1)).exclude(outcome=CANCELLED)
    found = {outcome: (attempts, ms) for outcome, attempts, ms in rows.values_list("outcome").annotate(Sum("attempts"), Sum("total_ms"))}
    attempts = sum(made for made, _ in found.values())
    if not attempts:
        return None, None
    return found.get(DELIVERED, (0, 0.0))[0] / attempts, sum(ms for _, ms in found.values()) / attempts


def _totals(tally: type[EventTally | AttemptTally], tenants: Tenants, by: tuple[str, ...], counts: tuple[str, ...]) -> Totals:
    """Sums over all minutes. Those of finished hours do not move: they are read once an hour, the rest every time."""
    this_hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    boundary = this_hour - timedelta(hours=1)
    rows: QuerySet[Any] = tally.objects.for_tenants(tenants)
    finished: Totals = _cached(f"{tally.__name__}.{boundary:%Y%m%d%H}.{_digest(tenants)}", lambda: _sums(rows.filter(minute__lt=boundary), by, counts))
    totals = {key: list(values) for key, values in finished.items()}
    for key, values in _sums(rows.filter(minute__gte=boundary), by, counts).items():
        totals[key] = [old + new for old, new in zip(totals.get(key, [0] * len(counts)), values, strict=True)]
    return totals


def _cached(name: str, sums: Callable[[], Totals]) -> Totals:
    return cache.get_or_set(f"totals.{name}", sums, 3600) or {}


def _digest(tenants: Tenants) -> str:
    """The same for the same tenants, and for no others."""
    return "all" if tenants is None else hashlib.sha256(b"".join(sorted(each.pk.bytes for each in tenants))).hexdigest()


def _sums(rows: "QuerySet[Any]", by: tuple[str, ...], counts: tuple[str, ...]) -> Totals:
    found = rows.order_by().values_list(*by).annotate(*(Sum(count) for count in counts))
    return {tuple(row[: len(by)]): list(row[len(by) :]) for row in found}
