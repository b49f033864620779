"""The overview: how everything is doing. A fragment view returns one piece of the page, from the very template that the page includes."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.overview import figures
from jetrelay.dashboard.stream.hosts import current, streams

TOP_COLLECTIONS = 50


@require_safe
@members_page
def overview(request: HtmxRequest) -> HttpResponse:
    sees = request.access.sees
    rows = figures.traffic(sees)
    return render(request, "dashboard/overview/overview.html", _events(rows) | _collections(rows) | {"outcomes": figures.outcomes(sees)})


@require_safe
@members_page
def events_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/overview/_events.html", _events(figures.traffic(request.access.sees)))


@require_safe
@members_page
def outcomes_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/overview/_outcomes.html", {"outcomes": figures.outcomes(request.access.sees)})


@require_safe
@members_page
def collections_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/overview/_collections.html", _collections(figures.traffic(request.access.sees)))


def _events(rows: list[figures.Traffic]) -> dict[str, Any]:
    found = current(streams())
    last_events = [stream.row.last_event_at for stream in found if stream.row.last_event_at]
    return {
        "streams": found,
        "open_gaps": figures.open_gaps(),
        "last_event_at": max(last_events, default=None),
        "commits": figures.in_all(row for row in rows if row.kind == "commit"),
        "all": figures.in_all(rows),
    }


def _collections(rows: list[figures.Traffic]) -> dict[str, Any]:
    return {"collections": rows[:TOP_COLLECTIONS], "more_collections": max(0, len(rows) - TOP_COLLECTIONS)}
