"""Which deliveries a page shows: everything about it is in the URL."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlencode

from django.db.models import Prefetch, Q, QuerySet

from delivery.engines import engine
from delivery.models import Delivery, Event
from subscriptions.ids import from_public, to_public
from subscriptions.models import Endpoint, Tenants

PAGE = 50
_STATES = {state.label: state for state in Delivery.State}


@dataclass(frozen=True)
class Filters:
    """`problem` says in words what of the URL was not understood; the rest still counts."""

    state: Delivery.State | None = None
    endpoint: uuid.UUID | None = None
    search: str = ""
    before: uuid.UUID | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        state, endpoint, before = query.get("state", ""), query.get("endpoint", ""), query.get("before", "")
        filters = cls(_STATES.get(state), from_public(endpoint), query.get("q", "").strip()[:100], from_public(before))
        if state and filters.state is None:
            return replace(filters, problem=f"There is no state “{state[:40]}”: all states are shown.")
        if endpoint and filters.endpoint is None:
            return replace(filters, problem=f"“{endpoint[:40]}” is not an endpoint's id: all endpoints are shown.")
        if before and filters.before is None:
            return replace(filters, problem=f"“{before[:40]}” is not a delivery's id: the newest are shown.")
        return filters

    @property
    def any(self) -> bool:
        return bool(self.state is not None or self.endpoint or self.search)

    def query(self) -> str:
        parts = {
            "state": self.state.label if self.state is not None else "",
            "endpoint": to_public(Endpoint.prefix, self.endpoint) if self.endpoint else "",
            "q": self.search,
            "before": to_public(Delivery.prefix, self.before) if self.before else "",
        }
        return urlencode({name: value for name, value in parts.items() if value})

    @property
    def newest(self) -> Self:
        return replace(self, before=None)

    def older_than(self, delivery: Delivery) -> Self:
        return replace(self, before=delivery.pk)

    def replay_query(self, action: str) -> str | None:
        """The same deliveries for a replay's form; None where there is one at most."""
        found, prefix = from_public(self.search), self.search.partition("_")[0]
        if self.search and not (found and prefix in (Event.prefix, Endpoint.prefix)):
            return None
        endpoint = self.endpoint or (found if prefix == Endpoint.prefix else None)
        parts = {
            "action": action,
            "delivery_state": self.state.label if self.state is not None else "",
            "endpoint": to_public(Endpoint.prefix, endpoint) if endpoint else "",
            "event": to_public(Event.prefix, found) if found and prefix == Event.prefix else "",
        }
        return urlencode({name: value for name, value in parts.items() if value})

    @property
    def to_replay(self) -> str | None:
        return self.replay_query("replay")

    @property
    def to_dismiss(self) -> str | None:
        return self.replay_query("dismiss") if self.state == Delivery.State.DEAD else None

    def deliveries(self, tenants: Tenants) -> "QuerySet[Delivery]":
        """Those of these tenants, newest first; without an id to look up, as many as a page needs."""
        rows = listed(tenants)
        if tenants is not None and not (self.endpoint or self.search):
            rows = rows.filter(pk__in=self._newest_of(tenants))
        if self.state is not None:
            rows = rows.filter(state=self.state)
        if self.endpoint:
            rows = rows.filter(endpoint=self.endpoint)
        if self.before:
            rows = rows.filter(pk__lt=self.before)
        return rows.filter(_named(self.search)) if self.search else rows

    def _newest_of(self, tenants: Tenants) -> list[uuid.UUID]:
        """By the index of each endpoint. A planner would rather read everybody's, newest first, until a page of theirs is found."""
        endpoints = list(Endpoint.objects.for_tenants(tenants).order_by().values_list("pk", flat=True))
        found = engine().newest(endpoints, self.before, PAGE + 1, self.state) if endpoints else []
        return sorted((id for _, id in found), reverse=True)[: PAGE + 1]


def listed(tenants: Tenants) -> "QuerySet[Delivery]":
    """Deliveries of these tenants as rows of a list: without bodies and secrets, in three queries however many there are.

    Events are fetched on their own rather than joined: a settled delivery may outlive its event.
    """
    events = Prefetch("event", Event.objects.only("id", "type", "kind", "operation"))
    endpoints = Prefetch("endpoint", Endpoint.objects.select_related("health").only("id", "name", "state", "tenant", "health"))
    return Delivery.objects.for_tenants(tenants).prefetch_related(events, endpoints).order_by("-id")


def _named(search: str) -> Q:
    """The one delivery, or those of the event, with this id."""
    found = from_public(search)
    if found is None:
        return Q(pk__in=[])
    if search.startswith(f"{Event.prefix}_"):
        return Q(event=found)
    if search.startswith(f"{Endpoint.prefix}_"):
        return Q(endpoint=found)
    return Q(pk=found) if search.startswith(f"{Delivery.prefix}_") else Q(pk=found) | Q(event=found)
