"""The page of the stream: its hosts, its gaps, the frames that were rejected, and what may be asked of it."""

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from delivery import stream as steer
from delivery.models import MAX_REJECTED, StreamGap
from jetrelay.dashboard import audit
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.overview import figures
from jetrelay.dashboard.stream import logs
from jetrelay.dashboard.stream.hosts import Stream, streams
from jetrelay.dashboard.stream.steering import WISHES, Wish
from subscriptions.ids import from_public


@require_safe
@members_page
def stream(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/stream/stream.html", _whole(request, streams()))


@require_safe
@members_page
def hosts_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/stream/_hosts.html", {"streams": streams()})


@require_safe
@members_page
def gaps_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/stream/_gaps.html", _gaps(_place(request)))


@require_safe
@members_page
def rejected_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/stream/_rejected.html", _rejected(_place(request)))


@require_POST
@members_page
def stream_ask(request: HtmxRequest, wish: str) -> HttpResponseBase:
    """Ask something of the hosts. What is wrong with the form is said at the form."""
    request.access.require(request.access.steers)
    found = streams()
    form = WISHES[wish](found, request.POST)
    with transaction.atomic():
        told = form.carry_out(form.chosen()) if form.is_valid() else ""
        if told:
            audit.note(request, form.action, detail=form.detail(form.chosen()))
    if told:
        messages.success(request, told)
        return redirect("stream")
    return render(request, "dashboard/stream/stream.html", _whole(request, found, form))


@require_POST
@members_page
def gaps_acknowledge(request: HtmxRequest) -> HttpResponseBase:
    """The one that the form names, or all that are open."""
    request.access.require(request.access.steers)
    named = request.POST.get("gap", "")
    gaps = StreamGap.objects.filter(pk__in=[from_public(named)]) if named else StreamGap.objects.alarming()
    with transaction.atomic():
        count = steer.acknowledge(gaps, request.user.get_username())
        if count:
            audit.note(request, "gap.acknowledge", named if count == 1 else "", detail=f"{count:,} gaps" if count > 1 else "")
    if count:
        messages.success(
            request,
            f"Acknowledged: {count:,} gap{'' if count == 1 else 's'}. A host that still has the events can fill {'it' if count == 1 else 'them'} all the same.",
        )
    else:
        messages.warning(request, "Nothing was acknowledged: it is filled, was acknowledged already, or is gone.")
    return redirect(f"{reverse('stream')}#gaps")


def _whole(request: HtmxRequest, found: list[Stream], refused: Wish | None = None) -> dict[str, Any]:
    """The whole page, with the form that was refused among the others."""
    place = _place(request)
    wishes = [refused if refused and refused.name == name else wish(found) for name, wish in WISHES.items()]
    return {"streams": found, "place": place, "wishes": wishes} | _gaps(place) | _rejected(place)


def _place(request: HtmxRequest) -> logs.Place:
    return logs.Place.read(request.GET.dict())


def _gaps(place: logs.Place) -> dict[str, Any]:
    return {"place": place, "gaps": logs.gaps(place), "open_gaps": figures.open_gaps()}


def _rejected(place: logs.Place) -> dict[str, Any]:
    return {"place": place, "frames": logs.rejected_frames(place), "kept_frames": MAX_REJECTED}
