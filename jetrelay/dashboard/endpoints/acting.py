"""What may be asked of an endpoint, and the asking."""

import uuid

from django.contrib import messages
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from delivery import endpoints
from delivery.admin import acts
from delivery.standing import Standing
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import figures, rows
from subscriptions.models import Endpoint

State = Endpoint.State
# By their name in the URL.
ACTS = {name: acts.ACTS[name].label for name in ("pause", "resume", "disable", "enable", "reset_breaker")}
TRIES = {"verify": "Verify", "test": "Send test"}
# The acts by which each state is left; the first of them is the list's.
_LEAVES = {State.ACTIVE: ("pause", "disable"), State.PAUSED: ("resume", "disable"), State.DISABLED: ("enable",), State.UNVERIFIED: ("verify",)}
Offer = tuple[str, str]


def offered(endpoint: Endpoint, stands: Standing) -> list[Offer]:
    """What may be asked of it now, on its own page: (name of the URL, label) each."""
    reset = ("reset_breaker",) if stands.last_failure or stands.failing_since else ()
    return _offers(*dict.fromkeys((*_LEAVES.get(State(endpoint.state), ()), *reset, "test", "verify")))


def offered_in_list(endpoint: Endpoint, stands: Standing) -> list[Offer]:
    """The same in short: no way that leads further than the first."""
    first = _LEAVES.get(State(endpoint.state), ())[:1]
    reset = ("reset_breaker",) if stands.last_failure or stands.failing_since else ()
    return _offers(*first, *reset, "test")


def _offers(*names: str) -> list[Offer]:
    return [(f"endpoint_{name}", (ACTS | TRIES)[name]) for name in names]


@require_POST
@members_page
def endpoint_act(request: HtmxRequest, id: uuid.UUID, act: str) -> HttpResponseBase:
    """Change its state, or put its breaker back. What came of it is said on the page that asked."""
    rows.one(request, id, to_act=True)
    told = acts.ACTS[act].carry_out(request.user, Endpoint.objects.filter(pk=id), "on the endpoints page")
    messages.add_message(request, told.level, told.words)
    return rows.back(request, "endpoints")


@require_POST
@members_page
def endpoint_try(request: HtmxRequest, id: uuid.UUID, act: str) -> HttpResponseBase:
    """Send it a challenge or a test event, and show the answer. No transaction waits for it."""
    endpoint = rows.one(request, id, to_act=True)
    outcome = acts.challenged(request.user, endpoint) if act == "verify" else acts.tested(request.user, endpoint)
    if request.htmx and request.htmx.target == "tried":
        return render(request, "dashboard/endpoints/_tried.html", {"outcome": outcome, "label": TRIES[act]})
    told = acts.told(endpoint, outcome)
    messages.add_message(request, told.level, told.words)
    return rows.back(request, "endpoints")


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def endpoint_delete(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    """Say what it costs, and do it once that is confirmed."""
    endpoint = rows.one(request, id, to_act=True)
    if request.POST.get("sure") == "yes":
        told = acts.delete(request.user, endpoint)
        messages.add_message(request, told.level, told.words)
        return redirect("endpoints") if told.level == messages.SUCCESS else redirect("endpoint", id)
    return _confirm_delete(request, endpoint)


def _confirm_delete(request: HtmxRequest, endpoint: Endpoint) -> HttpResponse:
    counted = figures.with_debts(Endpoint.objects.filter(pk=endpoint.pk).without_secrets()).get()
    context = {
        "endpoint": endpoint,
        "why_not": endpoints.why_not_deletable(endpoint),
        "pending": figures.counted(counted, "pending_count"),
        "dead": figures.counted(counted, "dead_count"),
        "subscriptions": endpoint.subscriptions.active().count(),
    }
    return render(request, "dashboard/endpoints/endpoint_delete.html", context)
