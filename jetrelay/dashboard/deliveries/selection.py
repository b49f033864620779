"""Several deliveries at once: replayed or dismissed as they were ticked, once their number has been seen."""

import uuid
from collections.abc import Sequence

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from delivery import replay
from delivery.admin.noting import note_moved
from delivery.models import Delivery
from jetrelay.dashboard.access import HtmxRequest, members_page, way_back
from jetrelay.dashboard.deliveries.finding import event_of, listed
from subscriptions.ids import from_public
from subscriptions.models import Endpoint

# More than a page has; more do not fit into a URL.
MOST = 100
REPLAY, DISMISS = "replay", "dismiss"
_NO_RECEIVER = (Endpoint.State.UNVERIFIED, Endpoint.State.DELETED)


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def deliveries_selected(request: HtmxRequest) -> HttpResponseBase:
    """GET says what is selected and how many can be done; POST does it."""
    access, posted = request.access, request.method == "POST"
    access.require(access.acts)
    given = request.POST if posted else request.GET
    action = DISMISS if given.get("action") == DISMISS else REPLAY
    ids = {id for id in map(from_public, given.getlist("delivery")[:MOST]) if id}
    rows = list(listed(access.sees).filter(pk__in=ids)) if ids else []
    access.require(all(access.may_act_in(row.endpoint.tenant_id) for row in rows))
    ready, left_out = _sorted_out(rows, action)
    back = way_back(request) or f"{reverse('deliveries')}?state=dead"
    if posted and ready:
        with transaction.atomic():
            count = replay.dismiss(ready) if action == DISMISS else replay.replay(ready)
            if count:
                note_moved(request.user, f"delivery.{action}", ready, "on the deliveries page")
        messages.add_message(request, messages.SUCCESS if count else messages.WARNING, _told(action, count, len(ids) - count))
        return redirect(back)
    missing = len(ids) - len(rows)
    context = {"action": action, "rows": rows, "ready": set(ready), "left_out": left_out, "missing": missing, "back": back}
    return render(request, "dashboard/deliveries/selected.html", context)


def _sorted_out(rows: Sequence[Delivery], action: str) -> tuple[list[uuid.UUID], dict[str, int]]:
    """Which of these can be done; and of the others how many, by reason."""
    ready: list[uuid.UUID] = []
    left_out: dict[str, int] = {}
    for row in rows:
        if why := _why_not(row, action):
            left_out[why] = left_out.get(why, 0) + 1
        else:
            ready.append(row.pk)
    return ready, left_out


def _why_not(row: Delivery, action: str) -> str:
    if action == DISMISS:
        return "" if row.state == Delivery.State.DEAD else "not dead (any more): only dead ones can be dismissed"
    if event_of(row) is None:
        return "without its event, which has been pruned"
    return "of an endpoint that is deleted or has not been verified" if row.endpoint.state in _NO_RECEIVER else ""


def _told(action: str, count: int, rest: int) -> str:
    done = f"{count:,} dismissed: cancelled now, and still to be replayed as long as they are kept." if action == DISMISS else f"{count:,} back in the queue."
    return f"{done} {rest:,} could not be." if rest else done
