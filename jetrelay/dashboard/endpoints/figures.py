"""How endpoints do, in numbers: what they are owed, and how their attempts went. Each costs the same however many rows others have."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import BigIntegerField, OuterRef, Subquery, Sum
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
# (the hour, whether they succeeded, how many) each.
Sums = list[tuple[datetime, bool, int]]
_MADE = [outcome.value for outcome in Outcome]

# Counted by the indexes delivery_due and delivery_dead, and no further than the limit for any one endpoint.
_COUNTED = """(SELECT COUNT(*) FROM (SELECT 1 FROM delivery_delivery owed
    WHERE owed.endpoint_id = subscriptions_endpoint.id AND owed.state = {state:d} LIMIT %s) few)"""


def with_backlog(endpoints: EndpointQuerySet) -> EndpointQuerySet:
    """Each with `pending_count`, which stops above the limit: see `backlog`."""
    return endpoints.annotate(pending_count=count_of(Delivery.State.PENDING))


def with_debts(endpoints: EndpointQuerySet) -> EndpointQuerySet:
    """Each with `dead_count` as well, and `oldest_due_at` of what is pending."""
    oldest = Delivery.objects.pending().filter(endpoint=OuterRef("pk")).order_by("due_at").values("due_at")[:1]
    return with_backlog(endpoints).annotate(dead_count=count_of(Delivery.State.DEAD), oldest_due_at=Subquery(oldest))


def counted(endpoint: Any, name: str) -> Count:
    return Count.up_to(BACKLOG_LIMIT, vars(endpoint)[name])


def count_of(state: Delivery.State, limit: int = BACKLOG_LIMIT) -> RawSQL:
    """Of each endpoint its pending or its dead deliveries, counted to one past the limit."""
    return RawSQL(_COUNTED.format(state=state.value), [limit + 1], output_field=BigIntegerField())  # noqa: S611


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
    def sparkline(self) -> dict[str, str]:
        """By tone, the path of all its bars: a rectangle of its own for each bar of 50 rows would take a template a tenth of a second."""
        paths: dict[str, str] = {}
        for x, width, bars in charts.sparkline(list(zip(self.delivered, self.failed, strict=True))):
            for bar in bars:
                if bar.height:
                    paths[bar.tone] = f"{paths.get(bar.tone, '')}M{x:.2f} {bar.y:.2f}h{width:.2f}v{bar.height:.2f}h-{width:.2f}z"
        return paths

    @property
    def success(self) -> float | None:
        return self.recent[True] / self.recent.total() if self.recent.total() else None


def trends(endpoints: Sequence[uuid.UUID], now: datetime) -> dict[uuid.UUID, Trend]:
    """Of a page's endpoints. What the hours brought that are over is summed once; the last two are read every time."""
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    first, boundary = this_hour - (HOURS - 1) * HOUR, this_hour - HOUR
    found = {id: Trend() for id in endpoints}
    names = {id: f"trend.{id.hex}.{boundary:%Y%m%d%H}" for id in endpoints}
    kept: dict[str, Sums] = cache.get_many(names.values())
    unknown = [id for id in endpoints if names[id] not in kept]
    if unknown:
        sums = _sums(unknown, first, boundary)
        fresh = {names[id]: sums.get(id, []) for id in unknown}
        cache.set_many(fresh, timeout=7200)
        kept |= fresh
    latest = _sums(endpoints, boundary, None)
    for id, trend in found.items():
        for hour, good, attempts in (*kept[names[id]], *latest.get(id, ())):
            place = (hour - first) // HOUR
            if 0 <= place < HOURS:
                (trend.delivered if good else trend.failed)[place] += attempts
    recent: Any = AttemptTally.objects.filter(endpoint__in=endpoints, minute__gt=now - HOUR, outcome__in=_MADE).order_by()
    for id, outcome, attempts in recent.values_list("endpoint_id", "outcome").annotate(Sum("attempts")):
        found[id].recent[outcome == Outcome.DELIVERED.value] += attempts
    return found


def _sums(endpoints: Sequence[uuid.UUID], since: datetime, until: datetime | None) -> dict[uuid.UUID, Sums]:
    """Attempts by hour and outcome, of each endpoint."""
    rows: Any = AttemptTally.objects.filter(endpoint__in=endpoints, minute__gte=since, outcome__in=_MADE).order_by()
    rows = rows.filter(minute__lt=until) if until else rows
    found: dict[uuid.UUID, Sums] = {}
    for id, hour, outcome, attempts in rows.values_list("endpoint_id", TruncHour("minute", tzinfo=UTC), "outcome").annotate(Sum("attempts")):
        found.setdefault(id, []).append((hour, outcome == Outcome.DELIVERED.value, attempts))
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
