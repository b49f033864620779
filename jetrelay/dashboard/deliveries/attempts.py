"""One attempt: the request as it was sent, what the receiver answered, and how long each part took."""

import uuid
from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from delivery.models import MAX_KEPT_RESPONSE, Attempt, Delivery, Event
from delivery.signing import TOLERANCE_S
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.deliveries import curl
from jetrelay.dashboard.deliveries.finding import event_of, listed
from jetrelay.dashboard.deliveries.sent import NEVER_LEFT, Sent, sent, timestamp_of


@require_safe
@members_page
def delivery_attempt(request: HtmxRequest, id: uuid.UUID, attempt: uuid.UUID) -> HttpResponse:
    delivery, found = _attempt(request, id, attempt)
    may_act = request.access.may_act_in(delivery.endpoint.tenant_id)
    made = sent(found, delivery, signed=may_act)
    context: dict[str, Any] = {"delivery": delivery, "attempt": found, "sent": made, "may_act": may_act, "never_left": found.error in NEVER_LEFT}
    context |= {"cut": len(found.response_body) >= MAX_KEPT_RESPONSE, "neighbours": _neighbours(found), **_together(request, made, delivery)}
    if made and made.headers and made.body is not None:
        context |= {"command": curl.command(made, file_name(found)), "inline": curl.fits(made), "file": file_name(found)}
        context["variables"] = [header for header in made.headers if header.variable]
        context["is_old"] = timezone.now().timestamp() - timestamp_of(found) > TOLERANCE_S
    return render(request, "dashboard/deliveries/attempt.html", context)


@require_safe
@members_page
def delivery_attempt_body(request: HtmxRequest, id: uuid.UUID, attempt: uuid.UUID) -> HttpResponse:
    """The request's body, byte for byte, to be saved and never shown: it is anybody's."""
    delivery, found = _attempt(request, id, attempt)
    made = sent(found, delivery, signed=False)
    if made is None or made.body is None:
        raise Http404("The body of this request cannot be made again: an event of it has been pruned.")
    headers = {"Content-Disposition": f'attachment; filename="{file_name(found)}"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(made.body, content_type="application/octet-stream", headers=headers)


def file_name(attempt: Attempt) -> str:
    return f"{attempt.public_id}.body"


def _attempt(request: HtmxRequest, id: uuid.UUID, attempt: uuid.UUID) -> tuple[Delivery, Attempt]:
    delivery = listed(request.access.sees).filter(pk=id).first()
    found = Attempt.objects.filter(pk=attempt, delivery=delivery).first() if delivery else None
    if delivery is None or found is None:
        raise Http404("No attempt has this id: it may have been pruned with its delivery.")
    return delivery, found


def _together(request: HtmxRequest, made: Sent | None, delivery: Delivery) -> dict[str, Any]:
    """The others that went along. They are the same endpoint's, so their deliveries may be seen; their events are asked for."""
    others = [each for each in made.together if each.pk != delivery.pk] if made else []
    ids = [each.event_id for each in others]
    seen = set(Event.objects.for_tenants(request.access.sees).filter(pk__in=ids).values_list("pk", flat=True)) if ids else set()
    return {"others": [(each, event_of(each) if each.event_id in seen else None) for each in others]}


def _neighbours(attempt: Attempt) -> dict[str, Attempt | None]:
    rows = Attempt.objects.filter(delivery=attempt.delivery_id).only("id", "delivery", "number")
    return {"before": rows.filter(pk__lt=attempt.pk).order_by("-id").first(), "after": rows.filter(pk__gt=attempt.pk).order_by("id").first()}
