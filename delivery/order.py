"""Order per subject: an ordered endpoint gets the events of one subject one after the other, in stream order.

    pending of endpoint E:   a1 b1 a2 c1 a3 b2
    in flight at once:       a1 b1    c1           (one for each subject)
    b1 fails, due in 30 s:   b2 waits with it; a2, a3 and c go on
    b1 is dead:              b2 is next

The database knows the order: of each subject, the pending delivery with the lowest event id is the next one, and nothing
of that subject is sent before it is due. `order_key`, a digest of the subject, makes that an index look-up. It is set when
a delivery is made for an ordered endpoint, and by `Keying` when an endpoint becomes ordered.

What is claimed of a subject is a run of deliveries, so that the next one leaves as soon as the one before has arrived and
not only when that is settled. If one fails, the rest of its run goes back to the database, where it never left.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from time import monotonic
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from delivery.engines import engine
from delivery.engines.base import Head
from delivery.models import Delivery, EndpointHealth, Event
from subscriptions.models import Endpoint

# Rows that get their key in one statement.
CHUNK = 1000
# A transaction that began before the endpoint was ordered may commit deliveries without a key until then.
LATE = timedelta(minutes=2)
LOOK_EVERY_S = 1.0
# Below every key.
BEFORE_ALL = -1
LAST_KEY = 2**63 - 1


def order_key(subject: str) -> int:
    """A digest of the subject: 63 bits, as a bigint holds. Two subjects that share one wait for each other, and no more."""
    return int.from_bytes(blake2b(subject.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


@dataclass
class Keying:
    """Gives the pending deliveries of one ordered endpoint their keys. Nothing is claimed in order before it is complete."""

    endpoint: UUID
    # Since when the endpoint is ordered and complete, as the database has it.
    since: datetime | None
    complete: bool = False
    next_at: float = 0.0

    def work(self) -> None:
        """Do a part of what is left to do, if there is anything."""
        now = timezone.now()
        if self.since and now - self.since > LATE:
            self.complete = True
        elif monotonic() >= self.next_at:
            self._give_some(now)

    def _give_some(self, now: datetime) -> None:
        rows = Delivery.objects.pending().filter(endpoint=self.endpoint, order_key=None)
        # Of an endpoint that was seen to before, only what a late transaction may have left.
        rows = rows.filter(due_at__gte=self.since - LATE) if self.since else rows
        some = list(rows.order_by("due_at", "id").values_list("pk", "event_id")[:CHUNK])
        _set_keys(some)
        if len(some) == CHUNK:
            return
        if self.since is None:
            EndpointHealth.objects.update_or_create(endpoint_id=self.endpoint, defaults={"ordered_since": now})
            self.since = now
        self.complete, self.next_at = True, monotonic() + LOOK_EVERY_S


def forget(endpoints: Iterable[UUID]) -> None:
    """These endpoints have no order any more: if they are ordered again, what came meanwhile needs keys."""
    EndpointHealth.objects.filter(pk__in=list(endpoints)).update(ordered_since=None)


def keyed(endpoints: Iterable[UUID]) -> frozenset[UUID]:
    """Those of the endpoints whose deliveries need a key: the ordered ones, and those that were until their lane has taken note.

    An endpoint that is ordered no more and then again before any lane has looked must not be owed anything without one.
    """
    found = Endpoint.objects.filter(Q(ordered=True) | Q(health__ordered_since__isnull=False), pk__in=list(endpoints))
    return frozenset(found.order_by().values_list("pk", flat=True))


def has_turn(endpoint: UUID, since: datetime | None) -> bool:
    """Whether something may be sent to an ordered endpoint that has due deliveries, or might be where a thousand subjects wait."""
    runs = engine().claim_runs(Head(endpoint, BEFORE_ALL, CHUNK, 1))
    now = timezone.now()
    if len(runs) == CHUNK or any(due.due_at <= now for due in runs):
        return True
    if since and now - since > 2 * LATE:
        return False
    return Delivery.objects.due(now).filter(endpoint=endpoint, order_key=None).exists()


def _set_keys(deliveries: Iterable[tuple[UUID, UUID]]) -> None:
    owed = dict(deliveries)
    subjects = dict(Event.objects.filter(pk__in=owed.values()).values_list("pk", "subject"))
    engine().set_order_keys([(id, order_key(subjects.get(event, ""))) for id, event in owed.items()])
