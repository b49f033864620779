"""How endpoints do, in numbers: what they are owed, and how their attempts went. Each costs the same however many rows others have."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import BigIntegerField, OuterRef, Q, Subquery, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import TruncHour

from delivery.models import AttemptTally, Delivery
from delivery.retry import Outcome
from jetrelay.dashboard import charts
from jetrelay.dashboard.latency import BUCKETS, quantile_ms
from jetrelay.dashboard.overview.figures import Count
from subscriptions.models import EndpointQuerySet

BACKLOG_LIMIT = 10_000
# Of an endpoint's newest deliveries, so many are looked at for how they were answered.
ANSWERS_OF = 1_000
HOUR = timedelta(hours=1)
HOURS = 24
_MADE = [outcome.value for outcome in Outcome]

# Counted by the indexes delivery_due and delivery_dead, and no further than the limit for any one endpoint.
_COUNTED = """(SELECT COUNT(*) FROM (SELECT 1 FROM delivery_delivery owed
    WHERE owed.endpoint_id = subscriptions_endpoint.id AND owed.state = {state:d} LIMIT %s) few)"""


def with_backlog(endpoints: EndpointQuerySet) -> EndpointQuerySet:
    """Each with `pending_count`, which stops above the limit: see `backlog`."""
    return endpoints.annotate(pending_count=_count(Delivery.State.PENDING))


def with_debts(endpoints: EndpointQuerySet) -> EndpointQuerySet:
    """Each with `dead_count` as well, and `oldest_due_at` of what is pending."""
    oldest = Delivery.objects.pending().filter(endpoint=OuterRef("pk")).order_by("due_at").values("due_at")[:1]
    return with_backlog(endpoints).annotate(dead_count=_count(Delivery.State.DEAD), oldest_due_at=Subquery(oldest))


def counted(endpoint: Any, name: str) -> Count:
    return Count.up_to(BACKLOG_LIMIT, vars(endpoint)[name])


def _count(state: Delivery.State) -> RawSQL:
    return RawSQL(_COUNTED.format(state=state.value), [BACKLOG_LIMIT + 1], output_field=BigIntegerField())  # noqa: S611


@dataclass
class Trend:
    """The last 24 hours of one endpoint, hour by hour, the oldest first; and the share that succeeded in the last 60 minutes."""

    delivered: list[int] = field(default_factory=lambda: [0] * HOURS)
    failed: list[int] = field(default_factory=lambda: [0] * HOURS)
    recent: Counter[bool] = field(default_factory=Counter)

    @property
    def attempts(self) -> int:
        return sum(self.delivered) + sum(self.failed)

    @property
    def failures(self) -> int:
        return sum(self.failed)

    @property
    def sparkline(self) -> Sequence[tuple[float, float, Sequence[charts.Bar]]]:
        return charts.sparkline(list(zip(self.delivered, self.failed, strict=True)))

    @property
    def success(self) -> float | None:
        return self.recent[True] / self.recent.total() if self.recent.total() else None


def trends(endpoints: Iterable[uuid.UUID], now: datetime) -> dict[uuid.UUID, Trend]:
    """Of a page's endpoints, in one query: attempts by endpoint, hour and outcome."""
    found = {id: Trend() for id in endpoints}
    first = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - (HOURS - 1) * HOUR
    rows: Any = AttemptTally.objects.filter(endpoint__in=found, minute__gte=first, outcome__in=_MADE).order_by()
    rows = rows.values_list("endpoint_id", TruncHour("minute", tzinfo=UTC), "outcome")
    for id, hour, outcome, attempts, recent in rows.annotate(made=Sum("attempts"), recent=Sum("attempts", filter=Q(minute__gt=now - HOUR), default=0)):
        good = outcome == Outcome.DELIVERED.value
        place = (hour - first) // HOUR
        if 0 <= place < HOURS:
            (found[id].delivered if good else found[id].failed)[place] += attempts
        found[id].recent[good] += recent
    return found


@dataclass(frozen=True)
class LastHour:
    """The attempts of the last 60 minutes; no more is known where there were none."""

    attempts: int
    success: float | None
    p50_ms: float | None
    p95_ms: float | None


def last_hour(endpoint: uuid.UUID, now: datetime) -> LastHour:
    rows = AttemptTally.objects.filter(endpoint=endpoint, minute__gt=now - HOUR, outcome__in=_MADE).order_by()
    attempts, good, histogram = 0, 0, [0] * len(BUCKETS)
    for outcome, made, *buckets in rows.values_list("outcome").annotate(Sum("attempts"), *(Sum(name) for name in BUCKETS)):
        attempts += made
        good += made if outcome == Outcome.DELIVERED.value else 0
        histogram = [old + new for old, new in zip(histogram, buckets, strict=True)]
    return LastHour(attempts, good / attempts if attempts else None, quantile_ms(histogram, 0.5), quantile_ms(histogram, 0.95))


@dataclass(frozen=True)
class Answer:
    """How some of the newest deliveries were answered last. `width` of 100: their share, for a bar."""

    status: int | None
    error: str
    count: int
    share: float

    @property
    def width(self) -> float:
        return 100 * self.share

    @property
    def tone(self) -> str:
        return "good" if self.status is not None and 200 <= self.status < 300 else "bad"


def answers(endpoint: uuid.UUID) -> Sequence[Answer]:
    """By status code or error, the most frequent first, of the newest deliveries that have had an attempt: by the endpoint's index."""
    newest = Delivery.objects.filter(endpoint=endpoint).order_by("-id").values_list("last_status", "last_error")[:ANSWERS_OF]
    found = Counter((status, error) for status, error in newest if status is not None or error)
    return [Answer(status, error, count, count / found.total()) for (status, error), count in found.most_common()]
