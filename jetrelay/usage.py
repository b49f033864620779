"""What tenants have used of each quota, for the pages, the admin and the API. A query for each kind, however many tenants are asked about."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from delivery import owing
from delivery.models import Replay
from jetrelay.api.models import IdempotentRequest
from subscriptions import quotas
from subscriptions.allowance import QUOTAS, most
from subscriptions.ids import first_id
from subscriptions.models import ApiKey, AuditEntry, Endpoint, Membership, Source, Subscription, Tenant

# Pending deliveries are counted so far, of all tenants together.
COUNTED = 100_000


class Usage(NamedTuple):
    """`used`: None of what is bounded one by one. `more`: it was counted no further. `own`: the operator gave the tenant its own."""

    name: str
    of: str
    used: int | None
    more: bool
    most: int
    own: bool

    @property
    def full(self) -> bool:
        return self.used is not None and self.used >= self.most


def usage(tenants: Sequence[Tenant], so_far: int | None = None) -> dict[UUID, list[Usage]]:
    """By tenant, in the order of `QUOTAS`. `so_far`: how far to count the pending deliveries of each."""
    ids = [tenant.pk for tenant in tenants]
    now = timezone.now()
    present = ~Q(endpoint__state=Endpoint.State.DELETED)
    new = Q(pk__gte=first_id(now - quotas.HOUR))
    today = Q(pk__gte=first_id(now - quotas.DAY))
    answers: Any = IdempotentRequest.objects.filter(tenant__in=ids).order_by().values("tenant")
    kept = {row["tenant"]: row for row in answers.annotate(number=Count("pk"), bytes=Sum("size"))}
    so_far = so_far or max(1, COUNTED // max(1, len(ids)))
    used: dict[str, Mapping[UUID, int]] = {
        "endpoints": _of(Endpoint.objects.present(), "tenant", ids),
        "subscriptions": _of(Subscription.objects.filter(present), "endpoint__tenant", ids),
        "sources": _of(Source.objects.all(), "tenant", ids),
        "keys": _of(ApiKey.objects.live(now), "tenant", ids),
        "new_keys_per_hour": _of(ApiKey.objects.filter(new), "tenant", ids),
        "members": _of(Membership.objects.all(), "tenant", ids),
        "pending_deliveries": owing.counts(ids, so_far),
        "replays": _of(Replay.objects.running(), "tenant", ids),
        "audit_entries_per_day": _of(AuditEntry.objects.filter(today), "tenant", ids),
        "answers": {id: row["number"] for id, row in kept.items()},
        "answer_bytes": {id: row["bytes"] for id, row in kept.items()},
    }
    found: dict[UUID, list[Usage]] = {}
    for tenant in tenants:
        found[tenant.pk] = []
        for name, quota in QUOTAS.items():
            number = used[name].get(tenant.pk, 0) if name in used else None
            more = name == "pending_deliveries" and number is not None and number > so_far
            shown = so_far if more else number
            limit = most(name, tenant.quotas)
            found[tenant.pk].append(Usage(name, quota.of, shown, more, limit, name in tenant.quotas))
    return found


def _of(rows: "QuerySet[Any]", field: str, tenants: Sequence[UUID]) -> dict[UUID, int]:
    counted: Any = rows.filter(**{f"{field}__in": tenants}).order_by().values(field)
    return dict(counted.annotate(number=Count("pk")).values_list(field, "number"))
