"""The live tail: events as they arrive. Nothing is kept open: the page asks again, and says up to where it has got."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.events.filters import Filters
from jetrelay.dashboard.events.views import choices
from jetrelay.dashboard.tail.arrivals import MOST_AT_FIRST, Cursor, arrivals

# Rows that stay on the page; the script takes away what is older.
MOST_ROWS = 200


@require_safe
@members_page
def tail(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/tail/tail.html", _state(request) | choices(request.access.sees))


@require_safe
@members_page
def tail_fragment(request: HtmxRequest) -> HttpResponse:
    """What is new, to be put on top, and what asks the next time; with the controls where these asked, to pause or to go on."""
    return render(request, "dashboard/tail/_new.html", _state(request) | {"turned": request.htmx.target == "controls"})


def _state(request: HtmxRequest) -> dict[str, Any]:
    query = request.GET.dict()
    filters, cursor = Filters.read(query), Cursor.read(query)
    found = arrivals(filters, request.access.sees, cursor)
    problem = " ".join(filter(None, (filters.problem, cursor.problem)))
    filters = filters.live
    paused = query.get("paused") == "1"
    return {
        "filters": filters,
        "since_cursor": cursor.after is not None,
        "found": found,
        "paused": paused,
        "problem": problem,
        "most_rows": MOST_ROWS,
        "most_at_first": MOST_AT_FIRST,
        # The page as it is remembered, what asks for more, and for those without script the next page.
        "running": _link("tail", filters.parts()),
        "stopped": _link("tail", filters.parts(), {"paused": "1"}),
        "poll": _link("tail_fragment", filters.parts()),
        "turn": _link("tail_fragment", filters.parts(), {} if paused else {"paused": "1"}),
        "newer": _link("tail", filters.parts(), found.cursor.parts()),
    }


def _link(name: str, *of: dict[str, str]) -> str:
    query = urlencode({name: value for each in of for name, value in each.items()})
    return f"{reverse(name)}?{query}" if query else reverse(name)
