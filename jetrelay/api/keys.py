"""`/keys`: making, rotating and revoking keys. No key gives away more than it has."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError as Refusal
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jetrelay.api.fields import Choice, List, Moment, Strict, Text, Whole
from jetrelay.api.pages import PARAMETERS, page
from jetrelay.api.problems import Problem
from jetrelay.api.views import ApiView, one
from subscriptions import keys
from subscriptions.allowance import Exceeded
from subscriptions.models import ApiKey, Tenant


class NewKey(Strict):
    name = Text(max_length=keys.MAX_NAME)
    scopes = List(child=Choice(choices=list(keys.SCOPES)), min_length=1, max_length=len(keys.SCOPES))
    expires_at = Moment(required=False)
    rate_limit_per_s = Whole(required=False, min_value=1, max_value=1_000_000)


class KeyOverlap(Strict):
    overlap_s = Whole(
        required=False,
        min_value=0,
        max_value=int(keys.MAX_OVERLAP.total_seconds()),
        help_text="How long the old key stays valid: 24 hours unless you say otherwise.",
    )


def show(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.public_id,
        "name": key.name,
        "visible_prefix": key.visible_prefix,
        "state": key.state(timezone.now()).value,
        "scopes": key.scopes,
        "rate_limit_per_s": key.rate_limit_per_s,
        "created_at": Moment().to_representation(key.created_at),
        "created_by": key.created_by,
        "expires_at": Moment().to_representation(key.expires_at),
        "last_used_at": Moment().to_representation(key.last_used_at),
        "revoked_at": Moment().to_representation(key.revoked_at),
    }


def show_all(found: Sequence[ApiKey]) -> list[dict[str, Any]]:
    return [show(key) for key in found]


class _Keys(ApiView):
    def rows(self) -> "QuerySet[ApiKey]":
        return ApiKey.objects.for_tenant(self.tenant)


class KeyList(_Keys):
    scopes = {"GET": "keys:read", "POST": "keys:write"}
    query = {"GET": PARAMETERS}

    def get(self, request: Request) -> Response:
        return page(request, self.rows(), show_all)

    def post(self, request: Request) -> Response:
        wish = self.body(NewKey)
        if missing := [scope for scope in wish["scopes"] if scope not in self.bearer.scopes]:
            raise ValidationError({"scopes": [f"Your own key does not have {', '.join(missing)}: a key gives away no more than it has."]})
        if "expires_at" in wish and wish["expires_at"] <= timezone.now():
            raise ValidationError({"expires_at": ["This time has passed: choose a later one."]})
        expires_at, limit = _within(wish, self.bearer)
        tenant = Tenant.objects.get(pk=self.tenant.pk)
        key, text = keys.issue(tenant, wish["name"], wish["scopes"], expires_at=expires_at, rate_limit_per_s=limit, by=self.bearer.actor)
        self.note("key.create", key.public_id, f"{key}: {', '.join(key.scopes)}")
        return Response(show(key) | {"key": text}, 201)


class KeyDetail(_Keys):
    scopes = {"GET": "keys:read", "DELETE": "keys:write"}

    def get(self, request: Request, id: str) -> Response:
        return Response(show(one(self.rows(), id)))

    def delete(self, request: Request, id: str) -> Response:
        key = one(self.rows(), id)
        if keys.revoke(key):
            self.note("key.revoke", key.public_id, str(key))
        return Response(show(one(self.rows(), id)))


class KeyRotate(_Keys):
    scopes = {"POST": "keys:write"}

    def post(self, request: Request, id: str) -> Response:
        seconds = self.body(KeyOverlap).get("overlap_s")
        key = one(self.rows(), id)
        if beyond := [scope for scope in key.scopes if scope not in self.bearer.scopes]:
            raise Problem(403, "missing_scope", f"This key has {', '.join(beyond)}, which yours has not.")
        _within({"expires_at": key.expires_at, "rate_limit_per_s": key.rate_limit_per_s}, self.bearer)
        try:
            made, text = keys.rotate(key, keys.OVERLAP if seconds is None else timedelta(seconds=seconds), by=self.bearer.actor)
        except Exceeded:
            raise
        except Refusal as refusal:
            raise Problem(409, "wrong_state", " ".join(refusal.messages)) from None
        self.note("key.rotate", key.public_id, f"by {made.public_id}")
        return Response(show(made) | {"key": text}, 201)


def _within(wish: Mapping[str, Any], own: keys.Bearer) -> tuple[datetime | None, int | None]:
    """When a new key ends and how many requests it may make: neither for longer nor for more than one's own, else it would outlive itself."""
    expires_at, limit = wish.get("expires_at", own.expires_at), wish.get("rate_limit_per_s", own.rate_limit_per_s)
    if own.expires_at and (expires_at is None or expires_at > own.expires_at):
        raise ValidationError({"expires_at": [f"Your own key ends at {Moment().to_representation(own.expires_at)}: choose that time or an earlier one."]})
    # A key without a limit has that of the installation.
    most = own.rate_limit_per_s or settings.JETRELAY_API_RATE_LIMIT
    if (limit or settings.JETRELAY_API_RATE_LIMIT) > most:
        raise ValidationError({"rate_limit_per_s": [f"Your own key has {most:,} requests per second: choose that or less."]})
    return expires_at, limit
