"""The endpoints that a request may be about, and the note of what was done to them."""

import uuid

from django.contrib.admin.models import CHANGE
from django.db import transaction
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect

from delivery.admin import acts
from jetrelay.dashboard.access import HtmxRequest, way_back
from subscriptions.models import Endpoint, EndpointQuerySet


def seen(request: HtmxRequest) -> EndpointQuerySet:
    return Endpoint.objects.for_tenants(request.access.sees).present()


def one(request: HtmxRequest, id: uuid.UUID, *, to_act: bool = False) -> Endpoint:
    """The endpoint with this id. One that is not theirs is not there; one that they may only look at is refused if it is `to_act` on."""
    found = seen(request).select_related("tenant", "health", "inbox").defer("inbox__token").filter(pk=id).first()
    if found is None:
        raise Http404("No endpoint has this id: it may have been deleted.")
    request.access.require(not to_act or request.access.may_act_in(found.tenant_id))
    return found


@transaction.atomic
def note(request: HtmxRequest, endpoint: Endpoint, action: str, logged: str, detail: str = "", flag: int = CHANGE) -> None:
    """Write down who did what, in both logs: see `acts.log`. Never with a secret in it."""
    acts.log(request.user, endpoint, logged, flag, action=action, detail=detail)


def back(request: HtmxRequest, otherwise: str, *args: object) -> HttpResponseBase:
    """To the page of ours that the form came from."""
    target = way_back(request)
    return redirect(target) if target else redirect(otherwise, *args)
