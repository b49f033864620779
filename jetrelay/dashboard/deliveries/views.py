"""The list of deliveries, and one delivery with its attempts."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.db.models import Count
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from delivery import replay
from delivery.models import Attempt, Delivery, Event
from delivery.outcomes import policy_of
from jetrelay.dashboard import audit, words
from jetrelay.dashboard.access import HtmxRequest, members_page, way_back
from jetrelay.dashboard.deliveries import outcomes
from jetrelay.dashboard.deliveries.filters import Filters
from jetrelay.dashboard.deliveries.finding import endpoints_named, find, listed
from jetrelay.dashboard.endpoints.figures import count_of
from jetrelay.dashboard.overview import figures
from subscriptions.models import Endpoint, Tenants

ENDPOINTS_SHOWN = 200
ATTEMPTS_SHOWN = 50
# Of one endpoint's dead letters; and endpoints that the page of all of them names.
DEAD_LIMIT = 1000
DEAD_SHOWN = 12


@require_safe
@members_page
def deliveries(request: HtmxRequest) -> HttpResponseBase:
    tenants = request.access.sees
    filters = _one_endpoint(Filters.read(request.GET.dict()), tenants)
    found = find(filters, tenants)
    if filters.search and len(found.rows) == 1 and found.rows[0].public_id == filters.search:
        return redirect("delivery", found.rows[0].pk)
    endpoints = _endpoints(tenants, filters.endpoint)
    context = {
        "rows": found.rows,
        "found": found,
        "filters": filters,
        "older": filters.older_than(found.before).query() if found.before else "",
        "states": Delivery.State,
        "outcomes": outcomes.OFFERED,
        "endpoints": endpoints[:ENDPOINTS_SHOWN],
        "many_endpoints": len(endpoints) > ENDPOINTS_SHOWN,
        "selecting": request.access.acts and filters.state in (Delivery.State.DEAD, Delivery.State.CANCELLED),
        "selected": request.GET.get("select") == "page",
    }
    if filters == Filters(state=Delivery.State.DEAD):
        context["dead_at"] = _dead_at(endpoints[:ENDPOINTS_SHOWN], filters)
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
    notice = "Back in the queue." if replayed else _why_not(wanted, kept)
    found = _delivery(request, id)
    if request.htmx:
        if request.htmx.target == found.public_id:
            return render(request, "dashboard/deliveries/_row.html", {"delivery": found, "notice": notice, "selecting": "selecting" in request.POST})
        return render(request, "dashboard/deliveries/_delivery.html", _standing(found) | {"notice": notice})
    messages.add_message(request, messages.SUCCESS if replayed else messages.WARNING, f"{found.public_id}: {notice}")
    return redirect(way_back(request) or reverse("delivery", args=[id]))


def _why_not(delivery: Delivery, kept: bool) -> str:
    return f"Not replayed: its endpoint is {delivery.endpoint.get_state_display().lower()}." if kept else "Not replayed: its event has been pruned."


def _delivery(request: HtmxRequest, id: uuid.UUID) -> Delivery:
    found = listed(request.access.sees, with_retries=True).filter(pk=id).first()
    if found is None:
        raise Http404("No delivery has this id: it may have been pruned.")
    return found


def _standing(delivery: Delivery) -> dict[str, Any]:
    """A delivery with its attempts, the newest first, and what went along with them."""
    attempts = list(Attempt.objects.filter(delivery=delivery).order_by("-id")[:ATTEMPTS_SHOWN])
    waits = delivery.state == Delivery.State.PENDING and delivery.due_at > timezone.now()
    return {
        "delivery": delivery,
        "waits": waits,
        "then": words.after_that(delivery, policy_of(delivery.endpoint)),
        "attempts": attempts,
        "others": _others(delivery, attempts),
        "attempts_left_out": max(0, delivery.attempt_count - ATTEMPTS_SHOWN),
    }


def _others(delivery: Delivery, attempts: Sequence[Attempt]) -> dict[uuid.UUID, int]:
    """By attempt: how many other events went along in its request."""
    batches = {attempt.batch for attempt in attempts if attempt.batch}
    if not batches:
        return {}
    rows = Attempt.objects.filter(batch__in=batches, delivery__endpoint=delivery.endpoint_id).order_by()
    counts = {(batch, at): number for batch, at, number in rows.values_list("batch", "started_at").annotate(number=Count("pk"))}
    return {each.pk: counts.get((each.batch, each.started_at), 1) - 1 for each in attempts if each.batch}


# --- endpoints to choose from ----------------------------------------------------------------------------------------


def _one_endpoint(filters: Filters, tenants: Tenants) -> Filters:
    """A name that only one endpoint has stands for its id."""
    if not filters.named:
        return filters
    ids = endpoints_named(filters.named, tenants)
    if len(ids) == 1:
        return replace(filters, endpoint=ids[0], named="")
    return filters if ids or filters.problem else replace(filters, problem=f"No endpoint is called anything like “{filters.named[:40]}”, and none has this id.")


def _endpoints(tenants: Tenants, chosen: uuid.UUID | None) -> list[Endpoint]:
    """The first by name, one more than are shown; and the one that is chosen, which may be deleted."""
    rows = Endpoint.objects.for_tenants(tenants).only("id", "name").order_by("name", "id")
    found = list(rows.present()[: ENDPOINTS_SHOWN + 1])
    if chosen and chosen not in {each.pk for each in found[:ENDPOINTS_SHOWN]}:
        found[:0] = rows.filter(pk=chosen)
    return found


def _dead_at(endpoints: Sequence[Endpoint], filters: Filters) -> list[tuple[Endpoint, figures.Count, str]]:
    """Of these endpoints those that have the most dead letters, with the query that shows them."""
    dead = count_of(Delivery.State.DEAD, DEAD_LIMIT)
    rows = dict(Endpoint.objects.filter(pk__in=[each.pk for each in endpoints]).order_by().annotate(dead=dead).values_list("pk", "dead"))
    most = sorted((each for each in endpoints if rows.get(each.pk)), key=lambda each: -rows[each.pk])
    return [(each, figures.Count.up_to(DEAD_LIMIT, rows[each.pk]), filters.at(each.pk).query()) for each in most[:DEAD_SHOWN]]
