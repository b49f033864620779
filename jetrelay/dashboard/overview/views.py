"""The overview: how everything is doing. A fragment view returns one piece of the page, from the very template that the page includes."""

from functools import cached_property
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.overview import figures, series
from jetrelay.dashboard.overview.drawn import drawn
from jetrelay.dashboard.overview.series import SPANS, Steps
from jetrelay.dashboard.overview.worst import worst
from jetrelay.dashboard.stream.hosts import current, streams
from subscriptions.models import Tenants

TOP_COLLECTIONS = 50


@require_safe
@members_page
def overview(request: HtmxRequest) -> HttpResponse:
    sees = request.access.sees
    rows, hour = figures.traffic(sees), _Hour(sees)
    return render(request, "dashboard/overview/overview.html", _events(rows, hour) | _outcomes(sees, hour) | _charts(request, hour) | _collections(rows))


@require_safe
@members_page
def events_fragment(request: HtmxRequest) -> HttpResponse:
    sees = request.access.sees
    return render(request, "dashboard/overview/_events.html", _events(figures.traffic(sees), _Hour(sees)))


@require_safe
@members_page
def outcomes_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/overview/_outcomes.html", _outcomes(request.access.sees, _Hour(request.access.sees)))


@require_safe
@members_page
def charts_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/overview/_charts.html", _charts(request, _Hour(request.access.sees)))


@require_safe
@members_page
def collections_fragment(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/overview/_collections.html", _collections(figures.traffic(request.access.sees)))


class _Hour:
    """The last hour, which several pieces look at, read once for each of them together."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    @cached_property
    def events(self) -> Steps:
        return series.events(self._tenants, SPANS["hour"])

    @cached_property
    def attempts(self) -> Steps:
        return series.attempts(self._tenants, SPANS["hour"])


def _events(rows: list[figures.Traffic], hour: _Hour) -> dict[str, Any]:
    found = current(streams())
    last_events = [stream.row.last_event_at for stream in found if stream.row.last_event_at]
    # The last minute that is over.
    received = hour.events.values("received")[-2] or 0
    return {
        "streams": found,
        "open_gaps": figures.open_gaps(),
        "last_event_at": max(last_events, default=None),
        "commits": figures.in_all(row for row in rows if row.kind == "commit"),
        "all": figures.in_all(rows),
        "events_per_s": received / 60,
    }


def _outcomes(sees: Tenants, hour: _Hour) -> dict[str, Any]:
    return {"outcomes": figures.outcomes(sees, hour.attempts), "worst": worst(sees)}


def _charts(request: HtmxRequest, hour: _Hour) -> dict[str, Any]:
    """The time span is in the URL; one that there is not is the last hour."""
    sees, now, span = request.access.sees, timezone.now(), SPANS.get(request.GET.get("span", ""), SPANS["hour"])
    if span is SPANS["hour"]:
        events, attempts = hour.events, hour.attempts
    else:
        events, attempts = series.events(sees, span, now), series.attempts(sees, span, now)
    return {"span": span, "spans": SPANS.values(), "charts": drawn(events, attempts, now)}


def _collections(rows: list[figures.Traffic]) -> dict[str, Any]:
    return {"collections": rows[:TOP_COLLECTIONS], "more_collections": max(0, len(rows) - TOP_COLLECTIONS)}
