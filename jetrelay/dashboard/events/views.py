"""The list of events, and one event."""

import uuid

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from delivery.models import Event
from jetrelay.dashboard.access import HtmxRequest, members_page

PAGE = 50


@require_safe
@members_page
def events(request: HtmxRequest) -> HttpResponse:
    rows = list(Event.objects.for_tenants(request.access.sees).defer("body", "dedup_key").order_by("-id")[:PAGE])
    return render(request, "dashboard/events/events.html", {"rows": rows})


@require_safe
@members_page
def event(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    found = Event.objects.for_tenants(request.access.sees).select_related("source").filter(pk=id).first()
    if found is None:
        raise Http404("No event has this id: it may have been pruned.")
    return render(request, "dashboard/events/event.html", {"event": found})
