"""The page of the endpoints: how each one stands, what it is owed, and what may be asked of it."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import BigIntegerField
from django.db.models.expressions import RawSQL
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from delivery.admin import acts
from delivery.standing import Standing, standing
from jetrelay.dashboard import figures
from jetrelay.dashboard.access import HtmxRequest, staff_page
from subscriptions.models import Endpoint

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
@staff_page
def endpoints(request: HtmxRequest) -> HttpResponse:
    now, may_act = timezone.now(), request.user.has_perm(acts.PERMISSION)
    rows = [_row(endpoint, standing(endpoint, now), may_act) for endpoint in _listed()[: ENDPOINTS_SHOWN + 1]]
    return render(request, "dashboard/endpoints.html", {"rows": rows[:ENDPOINTS_SHOWN], "more": len(rows) > ENDPOINTS_SHOWN})


@require_POST
@staff_page
def endpoint_act(request: HtmxRequest, id: uuid.UUID, act: str) -> HttpResponseBase:
    """Ask something of one endpoint. What came of it is said on the page."""
    if not request.user.has_perm(acts.PERMISSION):
        raise PermissionDenied
    chosen = Endpoint.objects.present().filter(pk=id)
    if not chosen.exists():
        raise Http404("No endpoint has this id: it may have been deleted.")
    told = acts.send_test(request.user, id) if act == TEST else acts.ACTS[act].carry_out(request.user, chosen, "on the endpoints page")
    messages.add_message(request, told.level, told.words)
    return redirect("endpoints")


def _listed() -> Any:
    backlog = RawSQL(_BACKLOG, [BACKLOG_LIMIT + 1], output_field=BigIntegerField())  # noqa: S611
    found = Endpoint.objects.present().without_secrets().select_related("tenant", "inbox", "health")
    return found.annotate(backlog=backlog).order_by("name", "id")


def _row(endpoint: Endpoint, stands: Standing, may_act: bool) -> Row:
    names = [_LEAVES.get(Endpoint.State(endpoint.state), ""), "reset_breaker" if stands.last_failure or stands.failing_since else "", TEST]
    allowed = [(f"endpoint_{name}", ACTS[name]) for name in names if name] if may_act else []
    return Row(endpoint, stands, figures.Count.up_to(BACKLOG_LIMIT, vars(endpoint)["backlog"]), allowed)
