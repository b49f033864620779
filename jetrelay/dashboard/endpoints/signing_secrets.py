"""The signing secret, revealed or rotated by those who act on the endpoint and enter their password again.

A secret stands in the answer to that POST and nowhere else: in no URL, session, message or log.
"""

import uuid
from datetime import timedelta
from typing import Any

from django import forms
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from delivery import rotation
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import rows
from jetrelay.dashboard.endpoints.passwords import PasswordForm
from subscriptions.forms import OVERLAPS
from subscriptions.models import Endpoint

Shown = list[tuple[str, str]]


class RotateForm(PasswordForm):
    overlap_h = forms.ChoiceField(label="The old secret stays valid for", choices=list(OVERLAPS.items()))
    field_order = ("overlap_h", "password")


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def endpoint_secret(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    endpoint = rows.one(request, id, to_act=True)
    form = PasswordForm(request.POST if request.method == "POST" else None, request.user)
    shown: Shown = []
    if form.is_valid():
        rows.note(request, endpoint, "endpoint.reveal-secret", "Revealed the signing secret")
        shown = _live(endpoint)
    return _page(request, endpoint, form, shown, "secret")


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def endpoint_rotate(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    endpoint = rows.one(request, id, to_act=True)
    form = RotateForm(request.POST if request.method == "POST" else None, request.user)
    shown: Shown = []
    if form.is_valid():
        choice = form.cleaned_data["overlap_h"]
        try:
            with transaction.atomic():
                endpoint = rotation.rotate(id, timedelta(hours=int(choice)))
                kept = OVERLAPS[choice]
                rows.note(request, endpoint, "endpoint.rotate-secret", f"Rotated the signing secret; the old one stays valid for {kept}.", f"old one: {kept}")
            shown = [("The new signing secret", endpoint.secret)]
        except rotation.NotRotatable as refusal:
            form.add_error(None, str(refusal))
    return _page(request, endpoint, form, shown, "rotate")


def _live(endpoint: Endpoint) -> Shown:
    current, *before = endpoint.secrets_at(timezone.now())
    shown = [("The signing secret", current)]
    if before:
        shown.append((f"The one before, valid until {endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC", before[0]))
    return shown


def _page(request: HtmxRequest, endpoint: Endpoint, form: PasswordForm, shown: Shown, what: str) -> HttpResponse:
    overlap = endpoint.previous_secret_expires_at if len(endpoint.secrets_at(timezone.now())) > 1 else None
    context: dict[str, Any] = {"endpoint": endpoint, "form": form, "secrets": shown, "what": what, "overlap": overlap}
    return render(request, f"dashboard/endpoints/{what}.html", context | {"one_signature": endpoint.signature_scheme == Endpoint.SignatureScheme.HOOKSTREAM})
