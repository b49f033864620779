"""`/stats`: what went out in the last minutes, from the tallies, and what is waiting now."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Min, OuterRef, Subquery, Sum
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.models import AttemptTally, Delivery, EventTally
from delivery.models.tallies import LATENCY_BOUNDS_MS
from delivery.retry import Outcome
from jetrelay.api.fields import Moment
from jetrelay.api.problems import bad_query
from jetrelay.api.views import ApiView
from subscriptions.ids import to_public
from subscriptions.models import Endpoint, Source

MAX_MINUTES = 24 * 60
# Counts of rows go no further.
MAX_COUNTED = 100_000
# Endpoints that are named one by one.
MAX_ENDPOINTS = 200
_BUCKETS = tuple(AttemptTally().buckets())


class Stats(ApiView):
    scopes = {"GET": "deliveries:read"}
    query = {"GET": ("minutes",)}

    def get(self, request: Request) -> Response:
        minutes = _minutes(request.query_params.get("minutes", "60"))
        now = timezone.now()
        since = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
        endpoints = dict(Endpoint.objects.for_tenant(self.tenant).present().values_list("pk", "name"))
        by_endpoint = _attempts(endpoints, since)
        sources = list(Source.objects.filter(tenant=self.tenant).values_list("pk", flat=True))
        totals = EventTally.objects.filter(source__in=sources, minute__gte=since).aggregate(
            **{name: Sum(name, default=0) for name in ("received", "stored", "duplicate", "unmatched", "invalid")}
        )
        mine = Delivery.objects.filter(endpoint__in=endpoints)
        pending, dead = _bounded(mine.pending()), _bounded(mine.dead())
        # The first of each endpoint, by the index; the first of all would be found by sorting all.
        first = Delivery.objects.due(now).filter(endpoint=OuterRef("pk")).order_by("due_at").values("due_at")[:1]
        oldest = Endpoint.objects.for_tenant(self.tenant).present().annotate(first=Subquery(first)).aggregate(oldest=Min("first"))["oldest"]
        return Response(
            {
                "since": Moment().to_representation(since),
                "until": Moment().to_representation(now),
                "posted_events": totals,
                "attempts": _summary(by_endpoint.values()),
                "pending": pending,
                "dead": dead,
                "oldest_due_at": Moment().to_representation(oldest),
                "endpoints": [
                    {"id": to_public(Endpoint.prefix, id), "name": endpoints[id], **_summary([counts])}
                    for id, counts in sorted(by_endpoint.items(), key=lambda item: -sum(item[1][outcome]["attempts"] for outcome in item[1]))[:MAX_ENDPOINTS]
                ],
            }
        )


Counts = Mapping[str, Mapping[str, float]]


def _attempts(endpoints: Mapping[UUID, str], since: Any) -> dict[UUID, dict[str, dict[str, float]]]:
    """By endpoint and outcome: attempts, their time, and the buckets of the histogram."""
    sums = {name: Sum(name) for name in ("attempts", "total_ms", *_BUCKETS)}
    rows: Any = AttemptTally.objects.filter(minute__gte=since, endpoint__in=endpoints).order_by().values("endpoint_id", "outcome").annotate(**sums)
    found: dict[UUID, dict[str, dict[str, float]]] = {}
    for row in rows:
        # What was cancelled was not attempted.
        if row["outcome"] in _OUTCOMES:
            found.setdefault(row["endpoint_id"], {})[row["outcome"]] = {name: row[name] or 0 for name in sums}
    return found


_OUTCOMES = {outcome.value for outcome in Outcome}


def _summary(parts: Iterable[Counts]) -> dict[str, Any]:
    rows = [(outcome, counts) for part in parts for outcome, counts in part.items()]
    attempts = sum(counts["attempts"] for _, counts in rows)
    delivered = sum(counts["attempts"] for outcome, counts in rows if outcome == Outcome.DELIVERED.value)
    histogram = [sum(counts[bucket] for _, counts in rows) for bucket in _BUCKETS]
    return {
        "attempts": int(attempts),
        "delivered": int(delivered),
        "failed": int(attempts - delivered),
        "success_rate": round(delivered / attempts, 4) if attempts else None,
        "mean_ms": round(sum(counts["total_ms"] for _, counts in rows) / attempts, 1) if attempts else None,
        "p50_ms_at_most": _at_most(histogram, 50),
        "p95_ms_at_most": _at_most(histogram, 95),
    }


def _at_most(histogram: list[float], percent: float) -> int | None:
    """The upper bound of the bucket that holds this percentile; None where nothing was counted, or where it is the last one, which has none."""
    rank, seen = sum(histogram) * percent / 100, 0.0
    for bound, count in zip(LATENCY_BOUNDS_MS, histogram, strict=False):
        seen += count
        if seen and seen >= rank:
            return bound
    return None


def _bounded(rows: Any) -> dict[str, Any]:
    found = rows.order_by()[: MAX_COUNTED + 1].count()
    return {"number": min(found, MAX_COUNTED), "more": found > MAX_COUNTED}


def _minutes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_MINUTES):
        raise bad_query("minutes", f"write a whole number from 1 to {MAX_MINUTES:,}.")
    return int(text)
