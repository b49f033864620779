"""The page of the endpoints: how each one stands, what it is owed, and what may be asked of it."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import BigIntegerField
from django.db.models.expressions import RawSQL
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from delivery.admin import acts
from delivery.standing import Standing, standing
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.overview import figures
from subscriptions.models import Endpoint, Tenants

BACKLOG_LIMIT = 10_000
ENDPOINTS_SHOWN = 200
TEST = "test"
# By their name in the URL; the admin has the rest.
ACTS = {name: acts.ACTS[name].label for name in ("pause", "resume", "enable", "reset_breaker")} | {TEST: "Send test"}
# The one act by which each state is left, on this page.
_LEAVES = {Endpoint.State.ACTIVE: "pause", Endpoint.State.PAUSED: "resume", Endpoint.State.DISABLED: "enable"}

# Counted by the index delivery_due, and no further than the limit for any one endpoint.
_BACKLOG = """(SELECT COUNT(*) FROM (SELECT 1 FROM delivery_delivery owed
    WHERE owed.endpoint_id = subscriptions_endpoint.id AND owed.state = 0 LIMIT %s) few)"""


@dataclass(frozen=True)
class Row:
    """One endpoint as the page shows it, and what may be asked of it: (name of its URL, label) each."""

    endpoint: Endpoint
    standing: Standing
    backlog: figures.Count
    acts: list[tuple[str, str]]


@require_safe
@members_page
def endpoints(request: HtmxRequest) -> HttpResponse:
    now, access = timezone.now(), request.access
    found = _listed(access.sees)[: ENDPOINTS_SHOWN + 1]
    rows = [_row(endpoint, standing(endpoint, now), access.may_act_in(endpoint.tenant_id)) for endpoint in found]
    return render(request, "dashboard/endpoints/endpoints.html", {"rows": rows[:ENDPOINTS_SHOWN], "more": len(rows) > ENDPOINTS_SHOWN})


@require_safe
@members_page
def endpoint(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    found = _listed(request.access.sees).filter(pk=id).first()
    if found is None:
        raise Http404("No endpoint has this id: it may have been deleted.")
    row = _row(found, standing(found, timezone.now()), request.access.may_act_in(found.tenant_id))
    return render(request, "dashboard/endpoints/endpoint.html", {"row": row})


@require_POST
@members_page
def endpoint_act(request: HtmxRequest, id: uuid.UUID, act: str) -> HttpResponseBase:
    """Ask something of one endpoint. What came of it is said on the page."""
    chosen = Endpoint.objects.for_tenants(request.access.sees).present().filter(pk=id)
    tenant = chosen.values_list("tenant", flat=True).first()
    if tenant is None:
        raise Http404("No endpoint has this id: it may have been deleted.")
    request.access.require(request.access.may_act_in(tenant))
    told = acts.send_test(request.user, id) if act == TEST else acts.ACTS[act].carry_out(request.user, chosen, "on the endpoints page")
    messages.add_message(request, told.level, told.words)
    return redirect("endpoints")


def _listed(tenants: Tenants) -> Any:
    backlog = RawSQL(_BACKLOG, [BACKLOG_LIMIT + 1], output_field=BigIntegerField())  # noqa: S611
    found = Endpoint.objects.for_tenants(tenants).present().without_secrets().select_related("tenant", "inbox", "health")
    return found.annotate(backlog=backlog).order_by("name", "id")


def _row(endpoint: Endpoint, stands: Standing, may_act: bool) -> Row:
    names = [_LEAVES.get(Endpoint.State(endpoint.state), ""), "reset_breaker" if stands.last_failure or stands.failing_since else "", TEST]
    allowed = [(f"endpoint_{name}", ACTS[name]) for name in names if name] if may_act else []
    return Row(endpoint, stands, figures.Count.up_to(BACKLOG_LIMIT, vars(endpoint)["backlog"]), allowed)
