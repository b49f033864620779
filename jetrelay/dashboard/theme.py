"""Light or dark: by the system, or by the reader's choice, which a cookie keeps for their browser."""

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from jetrelay.dashboard.access import way_back

COOKIE = "theme"
THEMES = ("system", "light", "dark")
_YEAR_S = 365 * 24 * 3600


@require_POST
def choose_theme(request: HttpRequest) -> HttpResponseBase:
    """For everybody, signed in or not: nothing is kept here."""
    chosen = request.POST.get("theme", "")
    response = redirect(way_back(request) or reverse("overview"))
    if chosen in THEMES:
        response.set_cookie(COOKIE, chosen, max_age=_YEAR_S, httponly=True, samesite="Lax", secure=request.is_secure())
    return response


def theme(request: HttpRequest) -> dict[str, str]:
    """`theme` in every template: one of THEMES."""
    chosen = request.COOKIES.get(COOKIE, "")
    return {"theme": chosen if chosen in THEMES else "system"}
