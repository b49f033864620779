"""Who is asking, whose rows they see, and what they may do there; and what a browser may do with a page.

Every page of the dashboard is a `members_page`; those about oneself are a `signed_in_page`. Its view asks `request.access`, its template
`access`: nothing else decides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Self, TypeVar
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBadRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import HttpResponseClientRefresh
from django_htmx.middleware import HtmxDetails

from subscriptions.models import Membership, Tenants

# Scripts, styles and images are our own files; nothing is inline, and nothing comes from another host.
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"

View = Callable[..., HttpResponseBase]
R = TypeVar("R", bound=HttpResponseBase)

_ACT = (Membership.Role.OWNER, Membership.Role.MEMBER)


@dataclass(frozen=True)
class Access:
    """What one user may see and do. `sees`, `acts_in` and `owns_in`: in these tenants; None, of a superuser, is in all of them."""

    sees: Tenants = ()
    acts_in: Tenants = ()
    # The admin is for staff; Django's permissions say what they may do there.
    admin: bool = False
    # An owner has a tenant's members and keys in hand.
    owns_in: Tenants = ()

    @classmethod
    def of(cls, user: AbstractBaseUser | AnonymousUser) -> Self:
        if not user.is_active:
            return cls()
        admin = bool(getattr(user, "is_staff", False))
        if getattr(user, "is_superuser", False):
            return cls(None, None, admin, None)
        found = list(Membership.objects.filter(user=user.pk).select_related("tenant").order_by("tenant__name", "tenant"))
        owned = [each.tenant for each in found if each.role == Membership.Role.OWNER]
        return cls([each.tenant for each in found], [each.tenant for each in found if each.role in _ACT], admin, owned)

    @property
    def admitted(self) -> bool:
        """Whether there is anything to see for them."""
        return self.sees is None or bool(self.sees)

    @property
    def acts(self) -> bool:
        """Whether there is a tenant in which they may change something."""
        return self.acts_in is None or bool(self.acts_in)

    @property
    def owns(self) -> bool:
        """Whether there is a tenant whose members and keys they have in hand."""
        return self.owns_in is None or bool(self.owns_in)

    @property
    def steers(self) -> bool:
        """Whether they may change what all tenants share, which is the stream."""
        return self.acts_in is None

    def may_act_in(self, tenant: UUID) -> bool:
        return self.acts_in is None or any(each.pk == tenant for each in self.acts_in)

    def may_own(self, tenant: UUID) -> bool:
        return self.owns_in is None or any(each.pk == tenant for each in self.owns_in)

    def require(self, allowed: bool) -> None:
        """Raises PermissionDenied, which is a 403. What they may not even see is no matter of this: it is not there (404)."""
        if not allowed:
            raise PermissionDenied


class HtmxRequest(HttpRequest):
    """A request that has passed django-htmx's middleware and, for a members' page, been admitted."""

    htmx: HtmxDetails
    access: Access


def confined(response: R) -> R:
    """Bind the browser to our own files, and keep the page out of caches."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def confine_pages(get_response: View) -> View:
    """Middleware: no page goes without a policy, whoever made it, the admin and error pages included."""

    def wrapped(request: HttpRequest) -> HttpResponseBase:
        # PostgreSQL takes no NUL. The API and our own lists say so each in their way; the admin would ask the database.
        in_path = "\0" in request.path and not request.path.startswith("/api/")
        odd = in_path or (request.path.startswith("/admin/") and "%00" in request.META["QUERY_STRING"])
        response = HttpResponseBadRequest("There is a NUL (%00) in the address: take it out.\n", "text/plain") if odd else get_response(request)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    return wrapped


def way_back(request: HttpRequest) -> str:
    """The page of ours that a form came from, as its `next` says; empty where that is none of ours."""
    target = (request.POST if request.method == "POST" else request.GET).get("next", "")
    # Without the slash `redirect` would take it for a name of ours.
    ours = target.startswith("/") and url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    return target if ours else ""


def members_page(view: View) -> View:
    """For members of a tenant, and for superusers. Strangers are sent to sign in; a fragment reloads its whole page, which then asks."""

    @wraps(view)
    def wrapped(request: HtmxRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        request.access = Access.of(request.user)
        if request.access.admitted:
            # Whoever only looks has no POST at all, whatever a view forgets.
            request.access.require(request.access.acts or request.method != "POST")
            return confined(view(request, *args, **kwargs))
        if request.htmx:
            return HttpResponseClientRefresh()
        if request.user.is_active:
            return confined(render(request, "dashboard/people/no_tenant.html", status=403))
        return _to_sign_in(request)

    return wrapped


def signed_in_page(view: View) -> View:
    """For everybody who is signed in, whatever they may see: for pages about nobody but themselves."""

    @wraps(view)
    def wrapped(request: HtmxRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        request.access = Access.of(request.user)
        return confined(view(request, *args, **kwargs)) if request.user.is_active else _to_sign_in(request)

    return wrapped


def _to_sign_in(request: HtmxRequest) -> HttpResponseBase:
    # Whoever had a session is told that it is over; the cookie goes with this answer.
    # One that was written under another SECRET_KEY is there, and nothing is in it.
    ended = bool(request.COOKIES.get(settings.SESSION_COOKIE_NAME)) and not request.session.keys()
    where = reverse("login") + ("?ended=1" if ended else "")
    return redirect_to_login(request.get_full_path() if request.method == "GET" else reverse("overview"), where)


def access(request: HttpRequest) -> dict[str, Any]:
    """`access` in every template. What no template asks for costs nothing."""
    return {"access": SimpleLazyObject(lambda: getattr(request, "access", None) or Access.of(getattr(request, "user", AnonymousUser())))}
