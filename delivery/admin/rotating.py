"""New signing secrets for the endpoints that were selected: asked before, then shown once, on the page that answers and nowhere else."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from delivery.admin import signing_secrets
from delivery.admin.acts import Told
from subscriptions.confirming import ask, confirmed, counted
from subscriptions.forms import OVERLAPS
from subscriptions.models import Endpoint, EndpointQuerySet

# Each secret has to be carried to a receiver by somebody.
MOST = 100


class OverlapForm(forms.Form):
    overlap_h = forms.ChoiceField(label="The old secrets stay valid for", choices=list(OVERLAPS.items()), initial="24")


def answer(model_admin: "admin.ModelAdmin[Any]", request: HttpRequest, chosen: EndpointQuerySet) -> HttpResponse:
    count = chosen.count()
    form = OverlapForm(request.POST if confirmed(request) else None)
    if confirmed(request) and form.is_valid() and count <= MOST:
        told = [signing_secrets.rotate(request.user, id, form.cleaned_data["overlap_h"]) for id in chosen.order_by("pk").values_list("pk", flat=True)]
        return shown(model_admin, request, "New signing secrets", told)
    line = f"{counted(count, 'endpoint')} will sign with a new secret." if count <= MOST else f"{count:,} endpoints are selected: select {MOST} at most."
    happens = "The new secrets are shown once, on the next page: give each to its receiver. Until the overlap ends, the old ones sign too."
    return ask(model_admin, request, "Rotate signing secrets", [line], chosen, possible=count <= MOST, happens=happens, fields=list(form), button="Rotate")


def shown(
    model_admin: "admin.ModelAdmin[Any]",
    request: HttpRequest,
    title: str,
    told: Sequence[Told],
    made: Endpoint | None = None,
) -> HttpResponse:
    """A page that has secrets in it. As every page of the admin, it is kept in no cache."""
    context = {"title": title, "opts": model_admin.opts, "told": told, "made": made}
    context = model_admin.admin_site.each_context(request) | context
    return TemplateResponse(request, "admin/secrets_rotated.html", context)
