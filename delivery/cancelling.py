"""Cancelling: what is owed to a deleted endpoint is owed no longer.

There may be a million of it, so it goes in chunks along the index `delivery_due`, each in a transaction of its own, with
a rest after each. A crash leaves the rest pending, and the next run finds it. So are found the deliveries that were stored
by a transaction that did not see the deletion yet.

Only what is pending is cancelled. What is being settled at this moment is left to whoever settles it, and a request that
is in flight may still arrive: its attempt is kept and its delivery stays cancelled.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from celery import current_app
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from delivery.engines import engine
from delivery.models import Delivery
from subscriptions.models import Endpoint

logger = logging.getLogger(__name__)

# The name of its tally, which the overview counts; it is no outcome of an attempt.
TALLY = "cancelled"
# The work of one run of the scheduled task, rests included. What is left is for the next run.
BUDGET_S = 30.0
# The most that one rest takes.
MAX_REST_S = 2.0
# A request to cancel that waited longer has been overtaken by the schedule.
_EXPIRES_S = 60

# Along delivery_due, from behind the last chunk: what has just been cancelled is not walked over again.
_NEXT = """SELECT due_at, id FROM delivery_delivery
    WHERE endpoint_id = %s AND state = 0 AND (due_at, id) > (%s, %s) ORDER BY due_at, id LIMIT %s"""

# Rests for so many seconds and returns whether to stop, as `threading.Event.wait` does.
Rest = Callable[[float], bool]


class Cancelled(NamedTuple):
    """How many were cancelled, and whether none is left."""

    cancelled: int
    finished: bool


def cancel(endpoint_id: UUID, rest: Rest, budget_s: float) -> Cancelled:
    """Cancel what is pending for one endpoint until nothing is left, the time is up or `rest` says stop."""
    count, started = 0, monotonic()
    position: tuple[Any, Any] = _beginning()
    while True:
        at = monotonic()
        with connection.cursor() as cursor:
            cursor.execute(_NEXT, [engine().key(endpoint_id), *position, engine().prune_chunk])
            rows = cursor.fetchall()
        if not rows:
            return Cancelled(count, True)
        count += _cancel_chunk(endpoint_id, [id if isinstance(id, UUID) else UUID(hex=id) for _, id in rows])
        position = _position(*rows[-1])
        paused = rest(min((monotonic() - at) * engine().prune_rest, MAX_REST_S))
        if paused or monotonic() - started > budget_s:
            return Cancelled(count, False)


def cancel_of_deleted(rest: Rest, budget_s: float = BUDGET_S) -> Cancelled:
    """Cancel what is pending for deleted endpoints. Where there is none, this costs one small query."""
    count, started = 0, monotonic()
    owed = Delivery.objects.pending().filter(endpoint=OuterRef("pk"))
    deleted = Endpoint.objects.filter(Exists(owed), state=Endpoint.State.DELETED)
    for id in list(deleted.values_list("pk", flat=True)):
        done = cancel(id, rest, budget_s - (monotonic() - started))
        count += done.cancelled
        if not done.finished:
            return Cancelled(count, False)
    return Cancelled(count, True)


def cancel_for_a_while(rest: Rest) -> None:
    """One run of the scheduled task."""
    try:
        done = cancel_of_deleted(rest)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Cancelling was cut short by the database; the next run goes on. %s", str(error).strip())
        return
    if done.cancelled:
        logger.info("Cancelled %s deliveries of deleted endpoints.%s", f"{done.cancelled:,}", "" if done.finished else " There is more: the next run goes on.")


def ask() -> None:
    """Ask some worker to cancel now. Where the broker does not take it, the schedule makes up for it within a minute."""
    try:
        current_app.send_task("delivery.cancel", queue="default", expires=_EXPIRES_S, retry=False, ignore_result=True)
    except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
        logger.debug("A request to cancel could not be sent: %s", error)


@transaction.atomic
def _cancel_chunk(endpoint_id: UUID, ids: list[UUID]) -> int:
    engine().by_index()
    # Whoever settles one of these now is left alone, so that nobody waits for anybody in a ring.
    free = Delivery.objects.pending().filter(pk__in=ids).select_for_update(skip_locked=True)
    locked = list(free.values_list("pk", flat=True))
    now = timezone.now()
    count = Delivery.objects.pending().filter(pk__in=locked).update(state=Delivery.State.CANCELLED, settled_at=now)
    if count:
        engine().add_attempt_tallies(now.replace(second=0, microsecond=0), {(endpoint_id, TALLY): {"attempts": count}})
    return count


def _beginning() -> tuple[Any, Any]:
    return _position(datetime.min.replace(tzinfo=UTC), UUID(int=0))


def _position(due_at: datetime, id: UUID | str) -> tuple[Any, Any]:
    """As parameters. SQLite hands out times without a zone, in UTC."""
    aware = due_at if due_at.tzinfo else due_at.replace(tzinfo=UTC)
    return connection.ops.adapt_datetimefield_value(aware), engine().key(id if isinstance(id, UUID) else UUID(hex=id))
