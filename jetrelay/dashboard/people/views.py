"""Keys, members, the audit log and one's own account."""

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from jetrelay.dashboard.access import HtmxRequest, members_page


@require_safe
@members_page
def keys(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/people/keys.html")


@require_safe
@members_page
def members(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/people/members.html")


@require_safe
@members_page
def audit(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/people/audit.html")


@require_safe
@members_page
def account(request: HtmxRequest) -> HttpResponse:
    return render(request, "dashboard/people/account.html")
