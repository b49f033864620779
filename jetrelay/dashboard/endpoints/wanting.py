"""What an endpoint wants: its subscriptions, added, changed, switched and removed, each with a look at what it would bring."""

import uuid
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from delivery.admin import acts
from delivery.trial import Trial, trial
from jetrelay.dashboard import audit
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import rows, terms
from subscriptions import wishes
from subscriptions.allowance import Exceeded
from subscriptions.compiled import filter_of
from subscriptions.models import Endpoint, Subscription
from subscriptions.wishes import WishForm

# In what is posted: nothing is to be saved, only looked at.
PREVIEW = "preview"
LOOKED_AT = 1_000
SAMPLES = 8
_FORM = "dashboard/endpoints/subscription_form.html"


def shown(request: HtmxRequest, template: str, wish: WishForm, context: dict[str, Any]) -> HttpResponse:
    """The page with its form, as it was filled in; of a preview the piece alone where htmx asked for it."""
    if PREVIEW in request.POST:
        context |= _previewed(wish)
        if request.htmx:
            template = "dashboard/endpoints/_preview.html"
    return render(request, template, context | {"wish": wish})


def _previewed(wish: WishForm) -> dict[str, Any]:
    wanted = wish.subscription()
    if wanted is None:
        return {"previewed": True}
    found = trial(wanted.source, filter_of(wanted), LOOKED_AT)
    return {"previewed": True, "trial": found, "samples": found.samples[:SAMPLES], "per_minute": _per_minute(found), "source": wanted.source}


def _per_minute(found: Trial) -> float | None:
    """How many a minute, by those that were looked at; None of too short a time to say."""
    seconds = (timezone.now() - found.oldest_at).total_seconds() if found.oldest_at else 0
    return found.matched * 60 / seconds if seconds >= 1 else None


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def subscription_new(request: HtmxRequest, id: uuid.UUID) -> HttpResponseBase:
    endpoint = rows.one(request, id, to_act=True)
    wish = WishForm(request.POST if request.method == "POST" else None, [endpoint.tenant])
    if PREVIEW not in request.POST and (wanted := wish.subscription(endpoint)):
        try:
            with transaction.atomic():
                wishes.save(wanted)
                _note(request, endpoint, wanted, "create", "Added a subscription")
        except Exceeded as refusal:
            wish.add_error(None, refusal)
        else:
            messages.success(request, f"{endpoint.name}: subscribed. Events are sent from now on; what came before can be recovered.")
            return redirect("endpoint", id)
    return shown(request, _FORM, wish, {"endpoint": endpoint})


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def subscription_edit(request: HtmxRequest, id: uuid.UUID, subscription: uuid.UUID) -> HttpResponseBase:
    endpoint = rows.one(request, id, to_act=True)
    present = _of(endpoint, subscription)
    wish = WishForm(request.POST if request.method == "POST" else None, [endpoint.tenant], present)
    if PREVIEW not in request.POST and (wanted := wish.subscription(endpoint)):
        if wish.has_changed():
            with transaction.atomic():
                wanted.save(update_fields=["collections", "operations", "kinds", "dids", "updated_at"])
                _note(request, endpoint, wanted, "change", f"Changed a subscription ({', '.join(wish.changed_data)})")
        messages.success(request, f"{endpoint.name}: {'subscription changed' if wish.has_changed() else 'nothing was changed'}.")
        return redirect("endpoint", id)
    return shown(request, _FORM, wish, {"endpoint": endpoint, "subscription": present})


@require_POST
@members_page
def subscription_switch(request: HtmxRequest, id: uuid.UUID, subscription: uuid.UUID) -> HttpResponseBase:
    """On or off, whichever is posted: a button that is pressed twice does it once."""
    endpoint = rows.one(request, id, to_act=True)
    present, on = _of(endpoint, subscription), request.POST.get("on") == "yes"
    if present.active != on:
        present.active = on
        with transaction.atomic():
            present.save(update_fields=["active", "updated_at"])
            _note(request, endpoint, present, "change", f"Switched a subscription {'on' if on else 'off'}")
    messages.success(request, f"{endpoint.name}: the subscription to {present.source.name} is {'on' if on else 'off'}.")
    return redirect("endpoint", id)


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def subscription_remove(request: HtmxRequest, id: uuid.UUID, subscription: uuid.UUID) -> HttpResponseBase:
    endpoint = rows.one(request, id, to_act=True)
    present = _of(endpoint, subscription)
    if request.POST.get("sure") == "yes":
        with transaction.atomic():
            _note(request, endpoint, present, "delete", "Removed a subscription")
            present.delete()
        messages.success(request, f"{endpoint.name}: the subscription to {present.source.name} is removed.")
        return redirect("endpoint", id)
    return render(request, "dashboard/endpoints/subscription_remove.html", {"endpoint": endpoint, "subscription": present, "wish": terms.wish(present)})


def _of(endpoint: Endpoint, id: uuid.UUID) -> Subscription:
    found = Subscription.objects.filter(endpoint=endpoint, pk=id).select_related("source").first()
    if found is None:
        raise Http404("This endpoint has no subscription with this id: it may have been removed.")
    return found


def _note(request: HtmxRequest, endpoint: Endpoint, subscription: Subscription, act: str, logged: str) -> None:
    acts.log(request.user, endpoint, f"{logged}.")
    audit.note(request, f"subscription.{act}", subscription.public_id, endpoint.tenant_id, f"for {endpoint.public_id}")
