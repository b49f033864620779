"""API keys: the list, which everybody in the tenant sees, because deliveries and the audit log name them; and what owners do to them."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from jetrelay.dashboard import audit
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.people.tenants import OfATenant
from subscriptions import keys as api_keys
from subscriptions.forms import OVERLAPS
from subscriptions.ids import from_public, to_public
from subscriptions.models import ApiKey, Tenants, actor_of

PAGE = 50


@dataclass(frozen=True)
class Filters:
    """Everything that says which keys a page shows. `problem` says in words what of the URL was not understood."""

    state: ApiKey.State | None = None
    before: uuid.UUID | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        state, before = query.get("state", ""), query.get("before", "")
        known, place = next((each for each in ApiKey.State if each == state), None), from_public(before)
        problem = f"There is no state “{state[:40]}”: all keys are shown." if state and known is None else ""
        if before and place is None:
            problem = f"“{before[:40]}” is not a key's id: the newest are shown."
        return cls(known, place, problem)

    def query(self, before: uuid.UUID | None = None) -> str:
        parts = {"state": self.state or "", "before": to_public(ApiKey.prefix, before) if before else ""}
        return urlencode({name: value for name, value in parts.items() if value})

    def keys(self, tenants: Tenants, now: datetime) -> "list[ApiKey]":
        """The newest first, one more than a page holds if there are more."""
        rows = ApiKey.objects.for_tenants(tenants).select_related("tenant").defer("digest").order_by("-id")
        if self.state:
            rows = {ApiKey.State.LIVE: rows.live, ApiKey.State.EXPIRED: rows.expired, ApiKey.State.REVOKED: lambda _: rows.revoked()}[self.state](now)
        return list((rows.filter(pk__lt=self.before) if self.before else rows)[: PAGE + 1])


class NewKey(OfATenant):
    """Of scopes, those that a tenant may give away."""

    field_order = ("tenant", "name", "scopes", "expires_at")

    name = forms.CharField(label="Name", max_length=api_keys.MAX_NAME, error_messages={"required": "Say what the key is for, such as “billing service”."})
    scopes = forms.MultipleChoiceField(
        label="What it may do",
        choices=[(scope, api_keys.SCOPES[scope]) for scope in api_keys.TENANTS_SCOPES],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "A key without scopes can do nothing: tick what it is to do."},
    )
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        help_text="Empty: never. A key that expires limits what a lost one can do.",
        input_formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        error_messages={"invalid": "This is not a time: write a date and a time in UTC, such as 2027-01-31 12:00."},
    )

    def clean_expires_at(self) -> datetime | None:
        wanted: datetime | None = self.cleaned_data["expires_at"]
        if wanted and wanted <= timezone.now():
            raise ValidationError("This time has passed: choose a later one, or none.")
        return wanted


class Rotation(forms.Form):
    overlap_h = forms.ChoiceField(label="The present key stays valid for", choices=list(OVERLAPS.items()))


class Revocation(forms.Form):
    sure = forms.BooleanField(
        label="Revoke it for good; what uses it stops working", error_messages={"required": "Tick the box to confirm: this cannot be taken back."}
    )


@require_safe
@members_page
def keys(request: HtmxRequest) -> HttpResponse:
    now, filters, access = timezone.now(), Filters.read(request.GET.dict()), request.access
    found = filters.keys(access.sees, now)
    older = filters.query(found[PAGE - 1].pk) if len(found) > PAGE else ""
    rows = [(key, key.state(now)) for key in found[:PAGE]]
    several = access.sees is None or len(access.sees) > 1
    return render(request, "dashboard/people/keys.html", {"rows": rows, "filters": filters, "older": older, "states": ApiKey.State, "several": several})


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def key_new(request: HtmxRequest) -> HttpResponseBase:
    """Make a key. Its text is in this answer alone."""
    access = request.access
    access.require(access.owns)
    form = NewKey(access.owns_in, request.POST if request.method == "POST" else None)
    if form.is_valid():
        wish = form.cleaned_data
        try:
            with transaction.atomic():
                made = api_keys.issue(form.chosen(), wish["name"], wish["scopes"], expires_at=wish["expires_at"], by=actor_of(request.user))
                audit.note(request, "key.create", made[0].public_id, made[0].tenant_id, f"{made[0]}: {', '.join(made[0].scopes)}")
        except ValidationError as refusal:
            form.add_error(None, refusal.messages)
        else:
            return _shown_once(request, *made)
    return render(request, "dashboard/people/key_new.html", {"form": form})


@require_safe
@members_page
def key(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    return _page(request, _found(request, id))


@require_POST
@members_page
def key_rotate(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    """Make a key that takes the place of this one. Its text is in this answer alone."""
    access, found = request.access, _found(request, id)
    access.require(access.may_own(found.tenant_id))
    # Else an owner would come to hold what only the operator gives away.
    access.require(access.steers or not api_keys.OPERATORS_SCOPES & set(found.scopes))
    form = Rotation(request.POST)
    if form.is_valid():
        overlap = timedelta(hours=int(form.cleaned_data["overlap_h"]))
        try:
            with transaction.atomic():
                made = api_keys.rotate(found, overlap, by=actor_of(request.user))
                audit.note(request, "key.rotate", found.public_id, found.tenant_id, f"by {made[0].public_id}")
        except ValidationError as refusal:
            form.add_error(None, refusal.messages)
        else:
            return _shown_once(request, *made, of=_found(request, id))
    return _page(request, found, rotation=form)


@require_POST
@members_page
def key_revoke(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    found = _found(request, id)
    request.access.require(request.access.may_own(found.tenant_id))
    form = Revocation(request.POST)
    if not form.is_valid():
        return _page(request, found, revocation=form)
    with transaction.atomic():
        revoked = api_keys.revoke(found)
        if revoked:
            audit.note(request, "key.revoke", found.public_id, found.tenant_id, str(found))
    if revoked:
        messages.success(request, f"{found}: revoked. Within a second it opens nothing any more.")
    else:
        messages.warning(request, f"{found} was revoked already.")
    return redirect("keys")


def _found(request: HtmxRequest, id: uuid.UUID) -> ApiKey:
    found = ApiKey.objects.for_tenants(request.access.sees).select_related("tenant").defer("digest").filter(pk=id).first()
    if found is None:
        raise Http404("No key has this id.")
    return found


def _page(request: HtmxRequest, found: ApiKey, *, rotation: Rotation | None = None, revocation: Revocation | None = None) -> HttpResponse:
    access = request.access
    context = {
        "key": found,
        "state": found.state(timezone.now()),
        "scopes": [(scope, api_keys.SCOPES.get(scope, "")) for scope in found.scopes],
        "may_rotate": access.steers or not api_keys.OPERATORS_SCOPES & set(found.scopes),
        "rotation": rotation or Rotation(),
        "revocation": revocation or Revocation(),
    }
    return render(request, "dashboard/people/key.html", context)


def _shown_once(request: HtmxRequest, made: ApiKey, text: str, *, of: ApiKey | None = None) -> HttpResponse:
    return render(request, "dashboard/people/key_made.html", {"key": made, "text": text, "rotated": of})
