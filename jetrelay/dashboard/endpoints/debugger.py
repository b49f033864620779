"""The signature debugger: what a receiver got, checked with the endpoint's secrets. It never shows one, nor what a signature should be."""

import uuid
from time import time
from typing import Any

from django import forms
from django.http import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from delivery.diagnosis import diagnose, read_headers
from delivery.models import Attempt, Delivery, Event
from delivery.recipes import Facts, Secret
from delivery.signing import Scheme
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import rows
from subscriptions.ids import from_public
from subscriptions.models import Endpoint

MAX_BODY = 1024 * 1024
MAX_HEADERS = 64 * 1024
_ATTEMPTS = 20
_EXAMPLE = "webhook-id: evt_…\nwebhook-timestamp: 1790000000\nwebhook-signature: v1,…"


class SignatureForm(forms.Form):
    """What the receiver got."""

    headers = forms.CharField(
        label="Headers",
        max_length=MAX_HEADERS,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false", "placeholder": _EXAMPLE}),
        help_text="One in a line, or a JSON object. What your own code computes may stand in the signature's header: then this says how it came about.",
    )
    body = forms.CharField(
        label="Body",
        required=False,
        strip=False,
        max_length=MAX_BODY,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "dir": "auto"}),
        help_text="Browsers change line ends in a box: where they may matter, give the body as a file.",
    )
    body_file = forms.FileField(label="Or the body as a file", required=False, allow_empty_file=True, help_text="Every byte of it counts.")
    scheme = forms.ChoiceField(label="Scheme", choices=Endpoint.SignatureScheme.choices)

    def clean_body_file(self) -> Any:
        file = self.cleaned_data["body_file"]
        if file is not None and file.size > MAX_BODY:
            raise forms.ValidationError(f"The file has {file.size:,} bytes: at most {MAX_BODY:,} are looked at.")
        return file

    @property
    def given_body(self) -> bytes:
        file = self.cleaned_data["body_file"]
        # Browsers send every line end of a box as two characters, whatever was pasted.
        return bytes(file.read()) if file is not None else str(self.cleaned_data["body"]).replace("\r\n", "\n").encode(errors="surrogatepass")


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def endpoint_signature(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    endpoint = rows.one(request, id, to_act=True)
    posted = request.method == "POST"
    form = SignatureForm(request.POST if posted else None, request.FILES if posted else None, initial={"scheme": endpoint.signature_scheme})
    found = None
    if form.is_valid():
        headers = read_headers(form.cleaned_data["headers"])
        facts = _facts(endpoint, headers.get("webhook-id", ""), form.given_body)
        found = diagnose(Scheme(form.cleaned_data["scheme"]), _secrets(endpoint), headers, facts, time())
    context = {"endpoint": endpoint, "form": form, "found": found, "scheme_differs": found and form.cleaned_data["scheme"] != endpoint.signature_scheme}
    return render(request, "dashboard/endpoints/signature.html", context)


def _facts(endpoint: Endpoint, webhook_id: str, body: bytes) -> Facts:
    """What is known of the request: only of an event that this endpoint was owed."""
    event = from_public(webhook_id) if webhook_id.lower().startswith(f"{Event.prefix}_") or "_" not in webhook_id else None
    delivery = Delivery.objects.filter(event=event, endpoint=endpoint).first() if event else None
    if delivery is None:
        return Facts("", "", body)
    stored = Event.objects.filter(pk=delivery.event_id).values_list("body", flat=True).first()
    started = Attempt.objects.filter(delivery=delivery).order_by("-id").values_list("started_at", flat=True)[:_ATTEMPTS]
    times = sorted({int(at.timestamp()) + late for at in started for late in (0, 1)})
    return Facts("", "", body, bytes(stored) if stored is not None else None, times)


def _secrets(endpoint: Endpoint) -> list[Secret]:
    found = [Secret("the current secret", endpoint.secret)]
    if endpoint.previous_secret:
        until = endpoint.previous_secret_expires_at
        live = until is not None and until > timezone.now()
        found.append(Secret(f"the previous secret, which {'is valid' if live else 'was valid'} until {until:%Y-%m-%d %H:%M} UTC", endpoint.previous_secret))
    return found
