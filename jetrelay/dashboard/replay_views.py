"""The pages of replays: what is running, and asking for one. A link with a filter leads to the count, the count to the button."""

import uuid

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from delivery import replay
from delivery.models import Replay
from delivery.replay.form import ReplayForm
from jetrelay.dashboard.access import HtmxRequest, staff_page
from subscriptions.models import Endpoint

PERMISSION = "delivery.change_delivery"
SHOWN = 50


@require_safe
@staff_page
def replays(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/replays.html", _latest(request))


@require_safe
@staff_page
def replays_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/_replays.html", _latest(request))


@require_http_methods(["GET", "HEAD", "POST"])
@staff_page
def replay_new(request: HtmxRequest) -> HttpResponseBase:
    """GET counts what the filter in the URL matches; POST orders it."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    posted = request.method == "POST"
    form = ReplayForm(request.POST if posted else request.GET or None)
    if posted and (ordered := form.start(by=request.user.get_username())):
        messages.success(request, f"{ordered.public_id}: {ordered.expected_text} to {ordered.action}. Workers have begun, or will within seconds.")
        return redirect("replays")
    counted = form.preview() if form.is_bound else None
    return render(request, "dashboard/replay_new.html", {"form": form, "counted": counted})


@require_POST
@staff_page
def replay_cancel(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    found = get_object_or_404(Replay, pk=id)
    if replay.cancel(found, by=request.user.get_username()):
        messages.success(request, f"{found.public_id} is cancelled. What it has done so far stays done.")
    else:
        messages.warning(request, f"{found.public_id} was over already.")
    return redirect("replays")


def _latest(request: HtmxRequest) -> dict[str, object]:
    """Those that run, whatever their age, then the newest."""
    rows = Replay.objects.defer("collections")
    found = [*rows.running().order_by("-id")[:SHOWN], *rows.exclude(state=Replay.State.RUNNING).order_by("-id")[:SHOWN]]
    names = dict(Endpoint.objects.filter(pk__in={row.endpoint_id for row in found if row.endpoint_id}).values_list("pk", "name"))
    running = any(row.running for row in found)
    return {"rows": [(row, names.get(row.endpoint_id)) for row in found], "running": running, "may_steer": request.user.has_perm(PERMISSION)}
