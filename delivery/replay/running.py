"""Carrying replays out, a step at a time, by whichever worker comes along.

    lock the replay's row -> look at the next rows -> move those that match -> save the position -> COMMIT -> wake lanes

Moves and position commit together, so a crash neither skips a delivery nor takes one twice, even if it is dead again by
now. The lock on the row makes that so however many workers there are; the lease only spares them waiting for each other.
A run ends after some seconds, so that a slow pace holds no worker: where it stands is in the row, and the next run goes on.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from time import monotonic
from uuid import UUID

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Min
from django.utils import timezone

from delivery.engines import engine
from delivery.leases import Holding
from delivery.models import Replay
from delivery.replay.moves import Moved
from delivery.replay.walks import SETTLING, Position, walk_of
from delivery.wakes import waker
from subscriptions.validation import MIN_RATE

logger = logging.getLogger(__name__)

# The work of one run, rests included.
BUDGET_S = 5.0
LEASE = "replay"
# A crashed run keeps others away for this long. A step takes milliseconds.
LEASE_S = 9.0
# A paced replay takes a step this often, or for each delivery if these are further apart.
STEP_S = 0.5
MAX_REST_S = 2.0
# One that the database refuses to go on with lets the others go first.
_SETBACK = timedelta(seconds=10)

# Between two steps of the slowest pace; what is planned further ahead was planned by a wrong clock.
_LONGEST = timedelta(seconds=1 / MIN_RATE + 60)

# Rests for so many seconds and returns whether to stop, as `threading.Event.wait` does.
Rest = Callable[[float], bool]


def step(id: UUID, now: datetime, most: int | None = None) -> bool:
    """Take one replay a step further: `most` rows are looked at (None: as the engine likes). False if it is over, or not due yet."""
    with transaction.atomic():
        replay = Replay.objects.running().filter(pk=id, next_at__lte=now).select_for_update(no_key=True, of=("self",)).first()
        if replay is None:
            return False
        moved = _advance(replay, now, most or engine().prune_chunk)
        replay.save(update_fields=["state", "after_endpoint", "after_id", "looked_at", "done", "skipped", "next_at", "ended_at"])
    waker.wake(moved.lanes)
    return replay.running


def run(rest: Rest, budget_s: float = BUDGET_S) -> bool:
    """Take all running replays further, a step of one of each tenant's in turn. Returns whether there is more to do at once, and nobody who does it."""
    if not Replay.objects.running().exists():
        return False
    holding = Holding(LEASE, LEASE_S)
    if not holding.take():
        return False
    try:
        return _run(rest, monotonic() + budget_s, holding)
    finally:
        holding.release()


def run_for_a_while(rest: Rest) -> bool:
    """One run of the scheduled task. Returns whether another one should follow at once."""
    try:
        return run(rest)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Replays were cut short by the database; the next run goes on. %s", str(error).strip())
        return False


def _run(rest: Rest, until: float, holding: Holding) -> bool:
    turns = count()
    while True:
        now = timezone.now()
        Replay.objects.running().filter(next_at__gt=now + _LONGEST).update(next_at=now)
        due = _one_of_each_tenant(next(turns), now)
        for id in due:
            started = monotonic()
            _step_or_set_back(id)
            if rest(min((monotonic() - started) * engine().prune_rest, MAX_REST_S)):
                return False
            if holding.ripe and not holding.renew():
                return False
        left_s = until - monotonic()
        if left_s <= 0:
            return Replay.objects.running().exists()
        if not due:
            soonest: datetime | None = Replay.objects.running().aggregate(soonest=Min("next_at"))["soonest"]
            # What is due later than this run lasts is for the beat.
            wait_s = (soonest - timezone.now()).total_seconds() if soonest else left_s
            if wait_s >= left_s or rest(max(wait_s, 0.0)):
                return False


def _one_of_each_tenant(turn: int, now: datetime) -> list[UUID]:
    """The replays that are due for a step now: a tenant with a hundred of them has no more steps than one with a single one."""
    rows = Replay.objects.running().filter(next_at__lte=now).order_by("next_at", "id").values_list("tenant_id", "pk")
    tenants: dict[UUID | None, list[UUID]] = {}
    for tenant, id in rows:
        tenants.setdefault(tenant, []).append(id)
    return [ids[turn % len(ids)] for ids in tenants.values()]


def _step_or_set_back(id: UUID) -> None:
    try:
        step(id, timezone.now())
    except (DatabaseError, InterfaceError) as error:
        logger.warning("A replay could not go on; it is tried again soon. %s", str(error).strip())
        Replay.objects.running().filter(pk=id).update(next_at=timezone.now() + _SETBACK)


def _advance(replay: Replay, now: datetime, most: int) -> Moved:
    """One step, in the transaction that holds the replay's row."""
    walk, room = walk_of(replay), _room(replay.rate_per_s)
    walk.hold()
    rows = walk.look(Position(replay.after_endpoint, replay.after_id), most, now)
    matching = walk.matching([row.id for row in rows])
    rows_taken, chosen = _take(rows, matching, room)
    moved = walk.move(chosen, now) if chosen else Moved()
    if rows_taken:
        replay.after_endpoint, replay.after_id = rows_taken[-1]
    replay.looked_at += len(rows_taken)
    replay.done += moved.done
    replay.skipped += len(chosen) - moved.done
    if len(rows_taken) == len(rows) < most:
        if walk.at_end(now):
            replay.state, replay.ended_at = Replay.State.FINISHED, now
        elif not rows:
            replay.next_at = now + SETTLING / 5
    replay.next_at = max(replay.next_at, _paced(replay, len(chosen), now))
    return moved


def _take(rows: list[Position], matching: set[UUID], room: int | None) -> tuple[list[Position], list[UUID]]:
    """As many rows as there is room for the matching ones among them."""
    chosen: list[UUID] = []
    for place, row in enumerate(rows, 1):
        if row.id in matching:
            chosen.append(row.id)
            if len(chosen) == room:
                return rows[:place], chosen
    return rows, chosen


def _room(rate_per_s: float | None) -> int | None:
    """How many deliveries one step may move."""
    return max(1, round(rate_per_s * STEP_S)) if rate_per_s else None


def _paced(replay: Replay, count: int, now: datetime) -> datetime:
    """When the next step may be taken, so that the rate is kept to.

    A little lateness is made up for: what counts is when this step should have been, unless that was a whole step ago.
    """
    if not replay.rate_per_s or not count:
        return replay.next_at
    length = timedelta(seconds=count / replay.rate_per_s)
    return (replay.next_at if now - replay.next_at < length else now) + length
