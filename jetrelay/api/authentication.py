"""`Authorization: Bearer jr_…`: who asks, and what they may do."""

from typing import Any, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from jetrelay import askers
from jetrelay.api.problems import Problem
from subscriptions import keys
from subscriptions.keys import Bearer


class KeyAuthentication(BaseAuthentication):
    """By API key. Nothing else opens the API: a browser's session must not, or any page could use it."""

    def authenticate(self, request: Request) -> tuple[Bearer, Bearer] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed("Write the header as Authorization: Bearer jr_…")
        text = text.strip()
        bearer = keys.find(text)
        if bearer is None:
            askers.keys.forget(text)
            raise AuthenticationFailed("This key opens nothing: it was never made, has expired or was revoked.")
        askers.keys.learn(text, askers.tenant(bearer.tenant_id))
        return bearer, bearer

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(BasePermission):
    """The view's `scopes` say which one each method takes."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.auth is None:
            return False
        scope = view.scopes.get(request.method)
        if scope is not None and scope not in cast(Bearer, request.auth).scopes:
            raise Problem(403, "missing_scope", f"This takes the scope {scope}, which the key does not have.")
        # A method that the view does not have is its own error.
        return True
