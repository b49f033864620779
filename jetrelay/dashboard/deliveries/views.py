"""The list of deliveries, and one delivery with its attempts."""

import uuid
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from delivery import replay
from delivery.models import Attempt, Delivery, Event
from jetrelay.dashboard import audit
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.deliveries.filters import PAGE, Filters, listed
from subscriptions.models import Endpoint, Tenants

ENDPOINTS_SHOWN = 200
ATTEMPTS_SHOWN = 50


@require_safe
@members_page
def deliveries(request: HtmxRequest) -> HttpResponseBase:
    filters = Filters.read(request.GET.dict())
    rows = list(filters.deliveries(request.access.sees)[: PAGE + 1])
    if filters.search and len(rows) == 1 and rows[0].public_id == filters.search:
        return redirect("delivery", rows[0].pk)
    older = filters.older_than(rows[PAGE - 1]).query() if len(rows) > PAGE else ""
    context = {"rows": rows[:PAGE], "filters": filters, "older": older, "states": Delivery.State, "endpoints": _endpoint_names(request.access.sees)}
    return render(request, "dashboard/deliveries/deliveries.html", context)


@require_safe
@members_page
def delivery(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    found = _delivery(request, id)
    event = Event.objects.filter(pk=found.event_id).select_related("source").first()
    return render(request, "dashboard/deliveries/delivery.html", _standing(found) | {"event": event})


@require_safe
@members_page
def delivery_fragment(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    return render(request, "dashboard/deliveries/_delivery.html", _standing(_delivery(request, id)))


@require_POST
@members_page
def delivery_replay(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    """Put a delivery back into the queue. With htmx the row or the page's piece that asked comes back renewed."""
    wanted = _delivery(request, id)
    request.access.require(request.access.may_act_in(wanted.endpoint.tenant_id))
    # Without its event there is nothing to send.
    kept = Event.objects.filter(pk=wanted.event_id).exists()
    with transaction.atomic():
        replayed = replay.replay([id]) if kept else 0
        if replayed:
            audit.note(request, "delivery.replay", wanted.public_id, wanted.endpoint.tenant_id)
    notice = "Back in the queue." if replayed else "Not replayed: its event has been pruned."
    found = _delivery(request, id)
    if request.htmx:
        if request.htmx.target == found.public_id:
            return render(request, "dashboard/deliveries/_row.html", {"delivery": found, "notice": notice})
        return render(request, "dashboard/deliveries/_delivery.html", _standing(found) | {"notice": notice})
    messages.add_message(request, messages.SUCCESS if replayed else messages.WARNING, f"{found.public_id}: {notice}")
    return redirect(_back(request) or reverse("delivery", args=[id]))


def _delivery(request: HtmxRequest, id: uuid.UUID) -> Delivery:
    found = listed(request.access.sees).filter(pk=id).first()
    if found is None:
        raise Http404("No delivery has this id: it may have been pruned.")
    return found


def _standing(delivery: Delivery) -> dict[str, Any]:
    """A delivery with its attempts, the newest first."""
    attempts = list(Attempt.objects.filter(delivery=delivery).order_by("-id")[:ATTEMPTS_SHOWN])
    waits = delivery.state == Delivery.State.PENDING and delivery.due_at > timezone.now()
    return {"delivery": delivery, "waits": waits, "attempts": attempts, "attempts_left_out": max(0, delivery.attempt_count - ATTEMPTS_SHOWN)}


def _endpoint_names(tenants: Tenants) -> list[Endpoint]:
    return list(Endpoint.objects.for_tenants(tenants).present().only("id", "name").order_by("name", "id")[:ENDPOINTS_SHOWN])


def _back(request: HtmxRequest) -> str:
    """The page of ours that the form came from."""
    target = request.POST.get("next", "")
    return target if url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()) else ""
