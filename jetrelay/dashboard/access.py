"""Who may open a page, and what a browser may do with it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django_htmx.http import HttpResponseClientRefresh
from django_htmx.middleware import HtmxDetails

# Scripts, styles and images are our own files; nothing is inline, and nothing comes from another host.
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"

View = Callable[..., HttpResponseBase]
R = TypeVar("R", bound=HttpResponseBase)


class HtmxRequest(HttpRequest):
    """A request that has passed django-htmx's middleware."""

    htmx: HtmxDetails


def confined(response: R) -> R:
    """Bind the browser to our own files, and keep the page out of caches."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def staff_page(view: View) -> View:
    """For staff alone. Others are sent to sign in; a fragment reloads its whole page, which then asks."""

    @wraps(view)
    def wrapped(request: HtmxRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_active and request.user.is_staff:
            return confined(view(request, *args, **kwargs))
        if request.htmx:
            return HttpResponseClientRefresh()
        back = request.get_full_path() if request.method == "GET" else reverse("overview")
        return redirect_to_login(back, reverse("admin:login"))

    return wrapped
