"""The moves themselves: a delivery back into the queue, and a dead letter out of sight. Each is idempotent."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from delivery.engines import engine
from delivery.models import Delivery, Event
from delivery.models.flow import in_state
from delivery.order import keyed, order_key
from delivery.wakes import waker
from subscriptions.models import Endpoint

M = TypeVar("M", bound=Model)

# Ids in one statement.
CHUNK = 1000
# As AttemptTally keeps it; nobody has attempted anything.
_CANCELLED = "cancelled"


@dataclass
class Moved:
    """What a move changed, and which lanes are to be woken once it is committed."""

    done: int = 0
    lanes: set[int] = field(default_factory=set)

    def add(self, other: "Moved") -> None:
        self.done += other.done
        self.lanes |= other.lanes


def replay(ids: Iterable[UUID]) -> int:
    """Make these deliveries due now, with a fresh retry schedule. Returns how many there were.

    The `webhook-id` stays, so that a receiver that has the event already can tell. Attempts made so far are kept and
    counted on. A delivery that is waiting for a retry is tried now. Nothing is put back whose event has been pruned, or
    whose endpoint is deleted or has not been verified.
    """
    chosen, moved = sorted(set(ids)), Moved()
    with transaction.atomic():
        for start in range(0, len(chosen), CHUNK):
            moved.add(put_back(among(Delivery.objects.all(), chosen[start : start + CHUNK]), timezone.now()))
        transaction.on_commit(lambda: waker.wake(moved.lanes))
    return moved.done


def dismiss(ids: Iterable[UUID]) -> int:
    """Cancel those of these deliveries that are dead. Returns how many were. As long as they are kept, they can be replayed."""
    chosen, done = sorted(set(ids)), 0
    with transaction.atomic():
        for start in range(0, len(chosen), CHUNK):
            done += set_aside(among(Delivery.objects.all(), chosen[start : start + CHUNK]), timezone.now()).done
    return done


def put_back(deliveries: "QuerySet[Delivery]", now: datetime) -> Moved:
    """Those of some thousand deliveries, at most, that can be sent, in the caller's transaction. The caller wakes the lanes."""
    endpoints = _hold_endpoints(deliveries.order_by().values_list("endpoint_id", flat=True).distinct())
    rows = list(_locked(deliveries.filter(endpoint__in=endpoints)).values_list("pk", "event_id", "endpoint_id"))
    # Without its event there is nothing to send. An event stays while it has deliveries, so no lock is needed.
    kept = set(among(Event.objects.order_by(), list({event for _, event, _ in rows})).values_list("pk", flat=True))
    rows = [row for row in rows if row[1] in kept]
    among(Delivery.objects.all(), [id for id, _, _ in rows]).update(state=Delivery.State.PENDING, due_at=now, tries=0, settled_at=None)
    with_keys = keyed(endpoints)
    _set_order({id: event for id, event, endpoint in rows if endpoint in with_keys})
    return Moved(len(rows), active_lanes(endpoints[endpoint] for _, _, endpoint in rows))


def set_aside(deliveries: "QuerySet[Delivery]", now: datetime) -> Moved:
    """Cancel those that are dead, in the caller's transaction."""
    rows = list(_locked(deliveries.filter(in_state(Delivery.State.DEAD))).values_list("pk", "endpoint_id"))
    among(Delivery.objects.all(), [id for id, _ in rows]).update(state=Delivery.State.CANCELLED, settled_at=now)
    counts = Counter(endpoint for _, endpoint in rows)
    engine().add_attempt_tallies(now.replace(second=0, microsecond=0), {(endpoint, _CANCELLED): {"attempts": count} for endpoint, count in counts.items()})
    return Moved(len(rows))


def among(rows: "QuerySet[M]", ids: Sequence[UUID]) -> "QuerySet[M]":
    """Those of the rows with these ids. On PostgreSQL one array: Django's `pk__in` has every id go through three layers by itself."""
    if not ids:
        return rows.none()  # SQLite reads a whole table to find none of them
    sql, values = engine().among(f'"{rows.model._meta.db_table}"."id"', ids)
    return rows.extra(where=[sql], params=values)  # noqa: S610 - ids are parameters


def active_lanes(endpoints: Iterable[Endpoint]) -> set[int]:
    return {endpoint.lane for endpoint in endpoints if endpoint.state == Endpoint.State.ACTIVE}


def receiving(ids: Iterable[UUID]) -> dict[UUID, Endpoint]:
    """Those of the endpoints that something may be owed to, without their secrets."""
    found = Endpoint.objects.filter(pk__in=set(ids)).exclude(state__in=(Endpoint.State.UNVERIFIED, Endpoint.State.DELETED))
    return {endpoint.pk: endpoint for endpoint in found.only("id", "state", "shard").order_by()}


def _hold_endpoints(ids: Iterable[UUID]) -> dict[UUID, Endpoint]:
    """Read again once they are held: one that was just deleted must not be owed anything any more."""
    chosen: Sequence[UUID] = sorted(set(ids))
    engine().hold_endpoints(chosen)
    return receiving(chosen)


def _locked(deliveries: "QuerySet[Delivery]") -> "QuerySet[Delivery]":
    """In the order of ids, as everyone who locks several."""
    return deliveries.order_by("id").select_for_update(no_key=True)


def _set_order(owed: dict[UUID, UUID]) -> None:
    """Give the deliveries of ordered endpoints their key, by their events."""
    subjects = dict(among(Event.objects.order_by(), list(owed.values())).values_list("pk", "subject"))
    rows = [Delivery(pk=id, order_key=order_key(subjects[event])) for id, event in owed.items()]
    Delivery.objects.bulk_update(rows, ["order_key"], batch_size=200)
