"""The pages of replays: what is running, how one is doing, and asking for one. A link with a filter leads to the count, the count to the button."""

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from delivery.models import Delivery, Event, Replay
from delivery.replay import cancel
from delivery.replay.form import ReplayForm
from jetrelay.dashboard import audit
from jetrelay.dashboard.access import Access, HtmxRequest, members_page, way_back
from jetrelay.dashboard.replays.progress import progress
from subscriptions.ids import from_public
from subscriptions.models import Endpoint

PAGE = 50


@require_safe
@members_page
def replays(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/replays/replays.html", _listed(request))


@require_safe
@members_page
def replays_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/replays/_replays.html", _listed(request))


@require_safe
@members_page
def replay(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    return render(request, "dashboard/replays/replay.html", _standing(request, id))


@require_safe
@members_page
def replay_fragment(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    return render(request, "dashboard/replays/_replay.html", _standing(request, id))


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def replay_new(request: HtmxRequest) -> HttpResponseBase:
    """GET counts what the filter in the URL matches; POST orders it."""
    access = request.access
    access.require(access.acts)
    posted = request.method == "POST"
    form = ReplayForm(request.POST if posted else request.GET or None, access.acts_in)
    with transaction.atomic():
        ordered = form.start(by=request.user.get_username()) if posted else None
        if ordered:
            audit.note(request, f"replay.{ordered.action}", ordered.public_id, ordered.tenant_id, f"about {ordered.expected_text} deliveries")
    if ordered:
        messages.success(request, f"{ordered.public_id}: {ordered.expected_text} to {ordered.action}. Workers have begun, or will within seconds.")
        return redirect("replay", ordered.pk)
    counted = form.preview() if form.is_bound else None
    return render(request, "dashboard/replays/replay_new.html", {"form": form, "counted": counted})


@require_POST
@members_page
def replay_cancel(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    found = _replay(request, id)
    request.access.require(_may_cancel(request.access, found))
    with transaction.atomic():
        cancelled = cancel(found, by=request.user.get_username())
        if cancelled:
            audit.note(request, "replay.cancel", found.public_id, found.tenant_id)
    if cancelled:
        messages.success(request, f"{found.public_id} is cancelled. What it has done so far stays done.")
    else:
        messages.warning(request, f"{found.public_id} was over already.")
    return redirect(way_back(request) or "replays")


def _replay(request: HtmxRequest, id: uuid.UUID) -> Replay:
    found = Replay.objects.for_tenants(request.access.sees).select_related("tenant").filter(pk=id).first()
    if found is None:
        raise Http404("No replay has this id.")
    return found


def _standing(request: HtmxRequest, id: uuid.UUID) -> dict[str, Any]:
    """A replay with the names of what it is about, as far as they are there."""
    access, found = request.access, _replay(request, id)
    endpoint = Endpoint.objects.for_tenants(access.sees).only("id", "name", "state").filter(pk=found.endpoint_id).first() if found.endpoint_id else None
    event = Event.objects.for_tenants(access.sees).only("id", "type", "kind").filter(pk=found.event_id).first() if found.event_id else None
    context = {"replay": found, "endpoint": endpoint, "event": event, "may_cancel": found.running and _may_cancel(access, found)}
    return context | {"progress": progress(found, timezone.now()), "result": _result(found)}


def _result(replay: Replay) -> str:
    """The query that shows what came of it, as far as one can."""
    state = Delivery.State.CANCELLED.label if replay.action == Replay.Action.DISMISS else ""
    endpoint = Endpoint(pk=replay.endpoint_id).public_id if replay.endpoint_id else ""
    event = Event(pk=replay.event_id).public_id if replay.event_id else ""
    return urlencode({name: value for name, value in {"state": state, "endpoint": endpoint, "q": event}.items() if value})


def _listed(request: HtmxRequest) -> dict[str, Any]:
    """Those that run, whatever their age, then the others, the newest first."""
    access, now, given = request.access, timezone.now(), request.GET.get("before", "").strip()
    before = from_public(given)
    rows = Replay.objects.for_tenants(access.sees).defer("collections")
    others = rows.exclude(state=Replay.State.RUNNING).order_by("-id")
    others_found = list((others.filter(pk__lt=before) if before else others)[: PAGE + 1])
    running = [] if before else list(rows.running().order_by("-id")[:PAGE])
    found = [*running, *others_found[:PAGE]]
    names = dict(Endpoint.objects.for_tenants(access.sees).filter(pk__in={row.endpoint_id for row in found if row.endpoint_id}).values_list("pk", "name"))
    return {
        "rows": [(row, row.endpoint_id and names.get(row.endpoint_id), progress(row, now), row.running and _may_cancel(access, row)) for row in found],
        "running": bool(running),
        "before": before,
        "older": others_found[PAGE - 1].public_id if len(others_found) > PAGE else "",
        "problem": f"“{given[:40]}” is not a replay's id: the newest are shown." if given and not before else "",
    }


def _may_cancel(access: Access, replay: Replay) -> bool:
    """A replay that is bound to no tenant is about all of them."""
    return access.may_act_in(replay.tenant_id) if replay.tenant_id else access.acts_in is None
