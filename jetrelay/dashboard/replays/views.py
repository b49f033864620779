"""The pages of replays: what is running, and asking for one. A link with a filter leads to the count, the count to the button."""

import uuid

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from delivery import replay
from delivery.models import Replay
from delivery.replay.form import ReplayForm
from jetrelay.dashboard import audit
from jetrelay.dashboard.access import Access, HtmxRequest, members_page
from subscriptions.models import Endpoint

SHOWN = 50


@require_safe
@members_page
def replays(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/replays/replays.html", _latest(request))


@require_safe
@members_page
def replays_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/replays/_replays.html", _latest(request))


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
        return redirect("replays")
    counted = form.preview() if form.is_bound else None
    return render(request, "dashboard/replays/replay_new.html", {"form": form, "counted": counted})


@require_POST
@members_page
def replay_cancel(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    access = request.access
    found = get_object_or_404(Replay.objects.for_tenants(access.sees), pk=id)
    access.require(_may_cancel(access, found))
    with transaction.atomic():
        cancelled = replay.cancel(found, by=request.user.get_username())
        if cancelled:
            audit.note(request, "replay.cancel", found.public_id, found.tenant_id)
    if cancelled:
        messages.success(request, f"{found.public_id} is cancelled. What it has done so far stays done.")
    else:
        messages.warning(request, f"{found.public_id} was over already.")
    return redirect("replays")


def _latest(request: HtmxRequest) -> dict[str, object]:
    """Those that run, whatever their age, then the newest."""
    access = request.access
    rows = Replay.objects.for_tenants(access.sees).defer("collections")
    found = [*rows.running().order_by("-id")[:SHOWN], *rows.exclude(state=Replay.State.RUNNING).order_by("-id")[:SHOWN]]
    names = dict(Endpoint.objects.for_tenants(access.sees).filter(pk__in={row.endpoint_id for row in found if row.endpoint_id}).values_list("pk", "name"))
    running = any(row.running for row in found)
    return {"rows": [(row, names.get(row.endpoint_id), row.running and _may_cancel(access, row)) for row in found], "running": running}


def _may_cancel(access: Access, replay: Replay) -> bool:
    """A replay that is bound to no tenant is about all of them."""
    return access.may_act_in(replay.tenant_id) if replay.tenant_id else access.acts_in is None
