"""The list of endpoints: how each one stands, what it is owed, and what may be asked of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlencode

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from delivery.standing import Standing, standing
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import acting, figures, terms
from jetrelay.dashboard.overview.figures import Count
from subscriptions.ids import from_public, to_public
from subscriptions.models import Endpoint, EndpointQuerySet, Tenants

PAGE = 50
FAILING = "failing"
STATES = {state.value: state.label for state in Endpoint.State if state is not Endpoint.State.DELETED} | {FAILING: "Failing"}


@dataclass(frozen=True)
class Filters:
    """Which endpoints are listed: everything about it is in the URL. `problem` says what of that was not understood; the rest still counts."""

    state: str = ""
    search: str = ""
    after: uuid.UUID | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        state, after = query.get("state", ""), query.get("after", "")
        search = query.get("q", "").replace("\0", "").strip()[:200]
        filters = cls(state if state in STATES else "", search, from_public(after))
        if state and not filters.state:
            return replace(filters, problem=f"There is no state “{state[:40]}”: all states are shown.")
        if after and filters.after is None:
            return replace(filters, problem=f"“{after[:40]}” is not an endpoint's id: the list is shown from its beginning.")
        return filters

    @property
    def any(self) -> bool:
        return bool(self.state or self.search)

    def query(self) -> str:
        parts = {"state": self.state, "q": self.search, "after": to_public(Endpoint.prefix, self.after) if self.after else ""}
        return urlencode({name: value for name, value in parts.items() if value})

    @property
    def first(self) -> Self:
        return replace(self, after=None)

    def behind(self, endpoint: Endpoint) -> Self:
        return replace(self, after=endpoint.pk)

    def of(self, tenants: Tenants) -> EndpointQuerySet:
        """Those of these tenants that match, by name, from the place in the list on."""
        theirs = Endpoint.objects.for_tenants(tenants)
        found = theirs.present().without_secrets().order_by("name", "id")
        if self.state == FAILING:
            found = found.filter(health__failing_since__isnull=False)
        elif self.state:
            found = found.filter(state=self.state)
        if self.search:
            id = from_public(self.search)
            found = found.filter(pk=id) if id else found.filter(Q(name__icontains=self.search) | Q(url__icontains=self.search))
        if self.after:
            # The row stays when its endpoint is deleted, and so does the place in the list.
            name = theirs.filter(pk=self.after).values_list("name", flat=True).first()
            found = found.filter(Q(name__gt=name) | Q(name=name, id__gt=self.after)) if name is not None else found
        return found


@dataclass(frozen=True)
class Row:
    """One endpoint as the page shows it, and what may be asked of it."""

    endpoint: Endpoint
    standing: Standing
    failure: str
    backlog: Count
    trend: figures.Trend
    acts: list[acting.Offer]


@require_safe
@members_page
def endpoints(request: HtmxRequest) -> HttpResponse:
    filters, now = Filters.read(request.GET.dict()), timezone.now()
    matching = figures.with_backlog(filters.of(request.access.sees)).select_related("tenant", "inbox", "health").defer("inbox__token")
    found = list(matching[: PAGE + 1])
    trends = figures.trends([each.pk for each in found[:PAGE]], now)
    context: dict[str, Any] = {
        "rows": [_row(request, each, standing(each, now), trends[each.pk]) for each in found[:PAGE]],
        "next": filters.behind(found[PAGE - 1]).query() if len(found) > PAGE else "",
        "filters": filters,
        "states": STATES,
        "many_tenants": len({each.tenant_id for each in found}) > 1,
    }
    return render(request, "dashboard/endpoints/endpoints.html", context)


def _row(request: HtmxRequest, endpoint: Endpoint, stands: Standing, trend: figures.Trend) -> Row:
    offers = acting.offered_in_list(endpoint, stands) if request.access.may_act_in(endpoint.tenant_id) else []
    return Row(endpoint, stands, terms.failure(stands)[0], figures.counted(endpoint, "pending_count"), trend, offers)
