"""Whether there is room for one more: asked in the transaction that makes it, with the tenant's row locked.

    hold(tenant)        the tenant, as it is now; whoever makes something else for it waits until this transaction ends
    check_…(tenant)     raises Exceeded

So two who make the last one at the same moment do not both find room. Counts go one further than the quota.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from subscriptions.allowance import Exceeded, most
from subscriptions.ids import first_id, moment_of
from subscriptions.models import (
    ApiKey,
    AuditEntry,
    Endpoint,
    Membership,
    Source,
    Subscription,
    Tenant,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def hold(tenant: Tenant | UUID) -> Tenant:
    """Lock the tenant's row until the transaction ends. Before any other row: else two acts wait for each other."""
    id = tenant.pk if isinstance(tenant, Tenant) else tenant
    return Tenant.objects.select_for_update(no_key=True).get(pk=id)


def counted(rows: "QuerySet[Any]", limit: int) -> int:
    """How many these are, or one more than the limit."""
    return rows.order_by()[: limit + 1].count()


def check(held: Tenant, name: str, rows: "QuerySet[Any]", more: int = 1) -> None:
    """Raise Exceeded unless so many more have room beside these rows."""
    limit = most(name, held.quotas)
    used = counted(rows, limit)
    if more and used + more > limit:
        raise Exceeded(name, limit, used)


# --- what a tenant has ----------------------------------------------------------------------------


def endpoints(tenant: UUID) -> "QuerySet[Endpoint]":
    return Endpoint.objects.filter(tenant=tenant).present()


def subscriptions(tenant: UUID) -> "QuerySet[Subscription]":
    deleted = Endpoint.State.DELETED
    return Subscription.objects.filter(endpoint__tenant=tenant).exclude(endpoint__state=deleted)


def sources(tenant: UUID) -> "QuerySet[Source]":
    return Source.objects.filter(tenant=tenant)


def live_keys(tenant: UUID) -> "QuerySet[ApiKey]":
    return ApiKey.objects.filter(tenant=tenant).live()


def new_keys(tenant: UUID, now: datetime) -> "QuerySet[ApiKey]":
    return ApiKey.objects.filter(tenant=tenant, pk__gte=first_id(now - HOUR))


def members(tenant: UUID) -> "QuerySet[Membership]":
    return Membership.objects.filter(tenant=tenant)


def audit_entries(tenant: UUID, now: datetime) -> "QuerySet[AuditEntry]":
    return AuditEntry.objects.filter(tenant=tenant, pk__gte=first_id(now - DAY))


# --- checks ---------------------------------------------------------------------------------------


def check_endpoint(held: Tenant) -> None:
    check(held, "endpoints", endpoints(held.pk))


def check_subscription(held: Tenant, endpoint: UUID, more: int = 1) -> None:
    check(held, "subscriptions", subscriptions(held.pk), more)
    check(held, "subscriptions_per_endpoint", Subscription.objects.filter(endpoint=endpoint), more)


def check_source(held: Tenant) -> None:
    check(held, "sources", sources(held.pk))


def check_member(held: Tenant, more: int = 1) -> None:
    check(held, "members", members(held.pk), more)


def check_key(held: Tenant, *, instead: bool = False) -> None:
    """`instead`: it takes the place of another one, and the two live together for a while."""
    now = timezone.now()
    _check_pace("new_keys_per_hour", held.quotas, new_keys(held.pk, now), HOUR, now)
    if not instead:
        check(held, "keys", live_keys(held.pk))


def check_audit(tenant: UUID, own: Mapping[str, Any]) -> None:
    """Whether something may be done that is written down. Counted in the index, and without a lock: some too many do no harm."""
    now = timezone.now()
    _check_pace("audit_entries_per_day", own, audit_entries(tenant, now), DAY, now)


def _check_pace(name: str, own: Mapping[str, Any], rows: "QuerySet[Any]", period: timedelta, now: datetime) -> None:
    """`rows`: those of this period, whose ids say when they were made."""
    limit = most(name, own)
    if (used := counted(rows, limit)) >= limit:
        # When the first of those that count does not count any more.
        first = list(rows.order_by("-pk").values_list("pk", flat=True)[limit - 1 : limit]) if limit else []
        wait_s = (moment_of(first[0]) + period - now).total_seconds() if first else 3600
        raise Exceeded(name, limit, used, wait_s=max(1, round(wait_s)))
