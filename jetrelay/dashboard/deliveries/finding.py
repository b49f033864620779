"""The deliveries that filters are about, newest first, at a cost that does not grow with the tables.

Where no index serves a filter, it is tried on the newest so many deliveries, and the page says how far that went.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet

from delivery.engines import engine
from delivery.models import Delivery, Event
from delivery.replay.moves import among
from jetrelay.dashboard.deliveries.filters import Filters
from jetrelay.newest import Look, newest
from subscriptions.ids import from_public, moment_of
from subscriptions.models import Endpoint, Tenants

PAGE = 50
# Deliveries that one page looks through: a few first, which most often is enough.
WINDOW = (500, 9_500)
# Endpoints whose names have the same part.
MOST_NAMED = 100
_IN_LISTS = ("id", "name", "state", "state_changed_at", "tenant", "health")
# What says when the next attempts are due.
_RETRIES = (
    "retry_strategy", "retry_schedule_s", "retry_first_s", "retry_factor", "retry_step_s", "retry_longest_s", "retry_count", "retry_jitter_percent", "retry_on",
)  # fmt: skip


@dataclass
class Found:
    """A page. `before`: behind which delivery the next one begins; None if there is none. `looked_at`: how many were looked through, if
    that ended before the page was full; and back to when."""

    rows: Sequence[Delivery] = field(default_factory=list)
    before: UUID | None = None
    looked_at: int = 0
    back_to: datetime | None = None


def listed(tenants: Tenants, *, with_retries: bool = False) -> "QuerySet[Delivery]":
    """Deliveries of these tenants as rows of a list: without bodies and secrets, in three queries however many there are.

    Events are fetched on their own rather than joined: a settled delivery may outlive its event.
    """
    return _with_names(Delivery.objects.for_tenants(tenants), with_retries=with_retries)


def find(filters: Filters, tenants: Tenants) -> Found:
    if filters.search:
        # One, or as many as there are endpoints.
        rows = listed(tenants).filter(_named(filters.search), filters.conditions, **_state(filters))
        rows = rows.filter(endpoint__in=_endpoints(filters, tenants) or ()) if filters.endpoint or filters.named else rows
        return _page(list((rows.filter(pk__lt=filters.before) if filters.before else rows)[: PAGE + 1]))
    endpoints = _endpoints(filters, tenants)
    if endpoints is None and not filters.conditions:
        rows = _with_names(Delivery.objects.all())
        return _page(list((rows.filter(pk__lt=filters.before) if filters.before else rows)[: PAGE + 1]))
    return _looked_through(filters, endpoints)


def endpoints_named(text: str, tenants: Tenants) -> list[UUID]:
    """Those with this in their name."""
    rows = Endpoint.objects.for_tenants(tenants).filter(name__icontains=text).order_by("name", "id")
    return list(rows.values_list("pk", flat=True)[:MOST_NAMED])


def event_of(delivery: Delivery) -> Event | None:
    """Of one that was read with its event: a settled delivery may outlive it."""
    try:
        return delivery.event
    except Event.DoesNotExist:
        return None


def _endpoints(filters: Filters, tenants: Tenants) -> list[UUID] | None:
    """Whose deliveries to look through; None for everybody's, in the order of the primary key."""
    if filters.named:
        return endpoints_named(filters.named, tenants)
    if tenants is None and not filters.endpoint and not filters.dead:
        return None
    rows = Endpoint.objects.for_tenants(tenants).order_by()
    return list((rows.filter(pk=filters.endpoint) if filters.endpoint else rows).values_list("pk", flat=True))


def _looked_through(filters: Filters, endpoints: Sequence[UUID] | None) -> Found:
    conditions, (floor, ceiling) = filters.conditions, filters.ids
    at = min(filter(None, (filters.before, ceiling)), default=None)
    found: list[UUID] = []
    looked_at, more = 0, True
    for most in WINDOW if conditions else (PAGE + 1,):
        look = _look(endpoints, at, most, Delivery.State.DEAD if filters.dead else None).above(floor)
        found += _matching(look.ids, filters, PAGE + 1 - len(found)) if conditions else look.ids
        looked_at, more, at = looked_at + len(look.ids), look.more, look.ids[-1] if look.ids else at
        if len(found) > PAGE or not more:
            break
    page = _page(list(_with_names(among(Delivery.objects.all(), found))))
    if page.before is None and more and at:
        page.before, page.looked_at, page.back_to = at, looked_at, moment_of(at)
    return page


def _matching(ids: Sequence[UUID], filters: Filters, most: int) -> list[UUID]:
    """Of those that were looked at, and no others. Whose they are is settled by now."""
    rows = among(Delivery.objects.filter(filters.conditions), ids).order_by("-id").values_list("pk", flat=True)[:most]
    if not filters.type:
        return list(rows)
    # For a rare type a planner would rather read through all events that there are, and see what is owed of them.
    with transaction.atomic(), engine().walking():
        return list(rows)


def _look(endpoints: Sequence[UUID] | None, at: UUID | None, most: int, state: int | None) -> Look:
    if endpoints is not None:
        return newest(endpoints, at, most, state, least=PAGE + 1)
    rows = Delivery.objects.filter(pk__lt=at) if at else Delivery.objects.all()
    ids = list(rows.order_by("-id").values_list("pk", flat=True)[: most + 1])
    return Look(ids[:most], len(ids) > most)


def _page(rows: list[Delivery]) -> Found:
    return Found(rows[:PAGE], rows[PAGE - 1].pk if len(rows) > PAGE else None)


def _with_names(rows: "QuerySet[Delivery]", *, with_retries: bool = False) -> "QuerySet[Delivery]":
    events = Prefetch("event", Event.objects.only("id", "type", "kind", "operation"))
    endpoints = Prefetch("endpoint", Endpoint.objects.select_related("health").only(*_IN_LISTS, *(_RETRIES if with_retries else ())))
    return rows.prefetch_related(events, endpoints).order_by("-id")


def _state(filters: Filters) -> dict[str, int]:
    return {"state": Delivery.State.DEAD} if filters.dead else {}


def _named(search: str) -> Q:
    """The one delivery, or those of the event or the endpoint, with this id."""
    found = from_public(search)
    if found is None:
        return Q(pk__in=[])
    if search.startswith(f"{Event.prefix}_"):
        return Q(event=found)
    return Q(pk=found) if search.startswith(f"{Delivery.prefix}_") else Q(pk=found) | Q(event=found)
