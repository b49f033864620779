"""The live tail: events as they arrive."""

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, members_page


@require_safe
@members_page
def tail(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/tail/tail.html")
