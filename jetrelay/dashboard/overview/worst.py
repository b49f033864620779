"""The endpoints that give most trouble: by what failed at them in the last hour."""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.core.cache import cache
from django.db.models import Q, Sum
from django.utils import timezone

from delivery.models import AttemptTally
from delivery.standing import Standing, standing
from jetrelay.dashboard.overview.totals import digest
from subscriptions.models import Endpoint, Tenants

SHOWN = 5
# Every open overview asks every few seconds, and an hour of many endpoints is many rows.
_REMEMBERED_S = 10


class Troubled(NamedTuple):
    """`share`: of its attempts of the last hour, how many failed, from 0 to 1."""

    endpoint: Endpoint
    standing: Standing
    failed: int
    share: float


def worst(tenants: Tenants) -> list[Troubled]:
    """Those with the most failed attempts first; none where nothing failed."""
    failed: dict[UUID, tuple[int, int]] = cache.get_or_set(f"worst.{digest(tenants)}", lambda: _most_failed(tenants), _REMEMBERED_S) or {}
    now = timezone.now()
    rows = Endpoint.objects.for_tenants(tenants).present().without_secrets().select_related("health").in_bulk(list(failed))
    return [Troubled(rows[id], standing(rows[id], now), bad, bad / made) for id, (bad, made) in failed.items() if id in rows]


def _most_failed(tenants: Tenants) -> dict[UUID, tuple[int, int]]:
    rows = AttemptTally.objects.for_tenants(tenants).filter(minute__gte=timezone.now() - timedelta(hours=1)).exclude(outcome="cancelled")
    sums = rows.order_by().values_list("endpoint").annotate(bad=Sum("attempts", filter=~Q(outcome="delivered"), default=0), made=Sum("attempts"))
    return {id: (int(bad), int(made)) for id, bad, made in sums.filter(bad__gt=0).order_by("-bad", "endpoint")[:SHOWN]}
