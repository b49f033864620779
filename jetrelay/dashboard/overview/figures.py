"""The numbers of the overview, at a cost that does not grow with the tables."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from django.db.models import Min, OuterRef, QuerySet, Subquery
from django.utils import timezone

from delivery.models import AttemptTally, Delivery, EventTally, StreamGap
from jetrelay.dashboard.latency import quantile_ms
from jetrelay.dashboard.overview.series import Steps
from jetrelay.dashboard.overview.totals import totals
from subscriptions.models import Endpoint, Tenants

COUNT_LIMIT = 100_000
DELIVERED = "delivered"
CANCELLED = "cancelled"


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
    """How the deliveries stand, and how the attempts of the last hour went. `due_since`: since when the oldest is due that waits."""

    pending: Count
    dead: Count
    delivered: int
    cancelled: int
    due_since: datetime | None
    success: float | None
    p50_ms: float | None
    p95_ms: float | None


def bounded_count(rows: "QuerySet[Any]", limit: int = COUNT_LIMIT) -> Count:
    """Count rows by their index, and stop at the limit."""
    return Count.up_to(limit, rows.order_by()[: limit + 1].count())


def open_gaps() -> Count:
    """The stretches of the stream that no host has filled and nobody has acknowledged."""
    return bounded_count(StreamGap.objects.alarming())


def traffic(tenants: Tenants) -> list[Traffic]:
    """Every type of event that ever came in from what these tenants see, the most frequent first."""
    found = totals(EventTally, tenants, ("kind", "type"), ("received", "stored", "duplicate", "unmatched", "invalid"))
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


def outcomes(tenants: Tenants, last_hour: Steps) -> Outcomes:
    """`last_hour`: the attempts made in it."""
    ever = {outcome: int(counts[0]) for (outcome,), counts in totals(AttemptTally, tenants, ("outcome",), ("attempts",)).items()}
    owed = Delivery.objects.for_tenants(tenants)
    delivered, failed = (sum(value or 0 for value in last_hour.values(name)) for name in (DELIVERED, "failed"))
    histogram = [sum(column) for column in zip(*last_hour.histograms(), strict=True)]
    return Outcomes(
        pending=bounded_count(owed.pending()),
        dead=bounded_count(owed.dead()),
        delivered=ever.get(DELIVERED, 0),
        cancelled=ever.get(CANCELLED, 0),
        due_since=due_since(tenants),
        success=delivered / (delivered + failed) if delivered + failed else None,
        p50_ms=quantile_ms(histogram, 0.5),
        p95_ms=quantile_ms(histogram, 0.95),
    )


def due_since(tenants: Tenants) -> datetime | None:
    """Since when the oldest delivery is due that waits; of active endpoints, for the others hold theirs."""
    # The first of each endpoint, by its index; the first of all would be found by sorting all.
    first = Delivery.objects.due(timezone.now()).filter(endpoint=OuterRef("pk")).order_by("due_at").values("due_at")[:1]
    return Endpoint.objects.for_tenants(tenants).active().order_by().annotate(first=Subquery(first)).aggregate(oldest=Min("first"))["oldest"]  # type: ignore[no-any-return]
