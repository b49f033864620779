"""The list of events, and one event with what became of it at every endpoint."""

import re
import uuid
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from delivery.models import Event
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.events.filters import Filters
from jetrelay.dashboard.events.search import Search, owed
from jetrelay.dashboard.events.verdicts import Place, Verdicts
from subscriptions import validation
from subscriptions.ids import from_public
from subscriptions.models import Source, Tenants

SOURCES_SHOWN = 200
_ID = re.compile(rf"{Event.prefix}_[0-9a-f]{{32}}\Z")


@require_safe
@members_page
def events(request: HtmxRequest) -> HttpResponseBase:
    sees = request.access.sees
    filters = Filters.read(request.GET.dict())
    wanted = filters.search.strip()
    if _ID.match(wanted) and (id := from_public(wanted)):
        if Event.objects.for_tenants(sees).filter(pk=id).exists():
            return redirect("event", id)
        return render(request, "dashboard/events/events.html", choices(sees) | {"filters": filters, "unknown": wanted})
    found = Search(filters, sees).page()
    became = owed(found.rows, sees)
    rows = [(row, became.get(row.pk, [])) for row in found.rows]
    older = filters.query(before=f"{Event.prefix}_{found.beyond.hex}") if found.beyond else ""
    return render(request, "dashboard/events/events.html", choices(sees) | {"filters": filters, "found": found, "rows": rows, "older": older})


def choices(tenants: Tenants) -> dict[str, Any]:
    """What the filters' lists hold."""
    sources = list(Source.objects.for_tenants(tenants).order_by("name", "id")[:SOURCES_SHOWN])
    return {"kinds": validation.KINDS, "operations": validation.OPERATIONS, "sources": sources}


@require_safe
@members_page
def event(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    found = _event(request, id)
    body = bytes(found.body)
    context = {"event": found, "size": len(body), "unreadable": not _readable(body), "wire": _wire(found), "dedup_key": bytes(found.dedup_key).hex()}
    return render(request, "dashboard/events/event.html", context | _verdicts(request, found))


@require_safe
@members_page
def event_fragment(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    found = _event(request, id, "body")
    return render(request, "dashboard/events/_endpoints.html", {"event": found} | _verdicts(request, found))


@require_safe
@members_page
def event_body(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    """The body byte for byte, as a file: a browser would make a page of what looks like one."""
    found = _event(request, id)
    name = f"{found.public_id}.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(bytes(found.body), content_type="application/octet-stream", headers=headers)


def _event(request: HtmxRequest, id: uuid.UUID, *without: str) -> Event:
    found = Event.objects.for_tenants(request.access.sees).select_related("source").defer(*without).filter(pk=id).first()
    if found is None:
        raise Http404("No event has this id: it may have been pruned.")
    return found


def _verdicts(request: HtmxRequest, event: Event) -> dict[str, Any]:
    place = Place.read(request.GET.dict())
    return {"verdicts": Verdicts.of(event, request.access, place), "place": place, "owed": owed([event], request.access.sees).get(event.pk, [])}


def _readable(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _wire(event: Event) -> str:
    """How a Jetstream's host sent it, which its address says."""
    if event.source.kind != Source.Kind.JETSTREAM or not event.origin:
        return ""
    return "v2" if event.origin.endswith(validation.V2_PATH) else "v1"
