"""Making an endpoint, and changing its terms."""

import copy
import uuid

from django.contrib import messages
from django.contrib.admin.models import ADDITION
from django.db import IntegrityError, transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from delivery import endpoints, verification
from delivery.admin import acts
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import rows, wanting
from jetrelay.dashboard.endpoints.forms import NewEndpointForm, SettingsForm
from subscriptions import quotas, wishes
from subscriptions.allowance import Exceeded
from subscriptions.models import Endpoint, Subscription
from subscriptions.wishes import WishForm

State = Endpoint.State


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def endpoint_new(request: HtmxRequest) -> HttpResponseBase:
    """A URL, and what to send there. The secret is shown in the answer, and never again without a password."""
    access, posted = request.access, request.POST
    access.require(access.acts)
    if wanting.PREVIEW in posted:
        # Whoever looks at what a filter brings may not have filled in the rest yet.
        form = NewEndpointForm(None, access.acts_in, initial={name: posted[name] for name in ("tenant", "url", "name", "once") if name in posted})
        return wanting.shown(request, "dashboard/endpoints/endpoint_new.html", WishForm(posted, access.acts_in), {"form": form})
    data = posted if request.method == "POST" else None
    form, wish = NewEndpointForm(data, access.acts_in), WishForm(data, access.acts_in)
    if form.is_valid():
        endpoint = form.endpoint(verification.first_state())
        if subscription := wish.subscription(endpoint):
            try:
                return _make(request, endpoint, subscription)
            except Exceeded as refusal:
                form.add_error(None, refusal)
    return wanting.shown(request, "dashboard/endpoints/endpoint_new.html", wish, {"form": form})


def _make(request: HtmxRequest, endpoint: Endpoint, subscription: Subscription) -> HttpResponseBase:
    try:
        with transaction.atomic():
            if not Endpoint.objects.filter(pk=endpoint.pk).exists():
                quotas.check_endpoint(quotas.hold(endpoint.tenant_id))
            endpoint.save(force_insert=True)
            wishes.save(subscription)
            rows.note(request, endpoint, "endpoint.create", "Made on the pages.", endpoint.url, flag=ADDITION)
    except IntegrityError:
        if not Endpoint.objects.filter(pk=endpoint.pk).exists():
            raise
        messages.warning(request, "This endpoint was made already: the form came twice. Its secret can be revealed.")
        return redirect("endpoint", endpoint.pk)
    # No transaction waits for the receiver.
    outcome = acts.challenged(request.user, endpoint) if endpoint.state == State.UNVERIFIED else None
    context = {
        "endpoint": endpoint,
        "outcome": outcome,
        "label": "Challenge",
        "secrets": [("Signing secret", endpoint.secret)],
        "refusal": verification.refused_address(endpoint),
    }
    return render(request, "dashboard/endpoints/endpoint_made.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def endpoint_edit(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    """All of its terms. A new URL has to answer a challenge first, and until it does, the old one stays."""
    endpoint = rows.one(request, id, to_act=True)
    before = copy.copy(endpoint)
    form = SettingsForm(request.POST if request.method == "POST" else None, instance=endpoint)
    if form.is_valid() and _may_move(form, before):
        return _change(request, form, before)
    return _edited(request, form, before)


def _may_move(form: SettingsForm, before: Endpoint) -> bool:
    if "url" not in form.changed_data:
        # Whatever stood in a form that was opened long ago.
        form.instance.url = before.url
    try:
        verification.check_move(before, form.instance)
    except verification.NotMovable as refusal:
        form.add_error("url", str(refusal))
    return not form.errors


def _change(request: HtmxRequest, form: SettingsForm, before: Endpoint) -> HttpResponseBase:
    endpoint, columns = form.instance, form.changed_columns
    if columns:
        with transaction.atomic():
            endpoint.save(update_fields=columns)
            rows.note(request, endpoint, "endpoint.change", f"Changed {', '.join(columns)}.", ", ".join(columns))
            if endpoint.url != before.url:
                # What its old URL did says nothing of the new one.
                endpoints.reset_breaker(Endpoint.objects.filter(pk=endpoint.pk))
    messages.success(request, f"{endpoint.name}: {'saved' if columns else 'nothing was changed'}.")
    if refusal := verification.refused_address(endpoint):
        messages.warning(request, f"Nothing can be sent to {endpoint.url}: {refusal}. JETRELAY_ALLOWED_NETWORKS may open its network.")
    return redirect("endpoint", endpoint.pk)


def _edited(request: HtmxRequest, form: SettingsForm, before: Endpoint) -> HttpResponse:
    return render(request, "dashboard/endpoints/endpoint_edit.html", {"form": form, "endpoint": before})
