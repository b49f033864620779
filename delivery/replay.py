"""Putting deliveries back into the queue."""

from collections.abc import Iterable
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from delivery.models import Delivery, Event
from delivery.wakes import waker
from subscriptions.models import Endpoint


def replay(ids: Iterable[UUID]) -> int:
    """Make these deliveries due now, with a fresh retry schedule. Returns how many there were.

    The `webhook-id` stays, so that a receiver that has the event already can tell. Attempts made so far are kept and
    counted on. A delivery that is waiting for a retry is tried now.
    """
    with transaction.atomic():
        # Without its event there is nothing left to send.
        chosen = Delivery.objects.filter(Exists(Event.objects.filter(pk=OuterRef("event_id"))), pk__in=list(ids))
        endpoints = set(chosen.values_list("endpoint_id", flat=True))
        changed = chosen.update(state=Delivery.State.PENDING, due_at=timezone.now(), tries=0, settled_at=None)
    waker.wake({endpoint.lane for endpoint in Endpoint.objects.active().filter(pk__in=endpoints)})
    return changed
