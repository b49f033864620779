"""The account of a soak, from the tables themselves and in one snapshot; it holds while old rows are pruned.

Rows that are about to be pruned are no witnesses, so it looks at the newest stretch alone: ids are made in the order of time. What was
stored and what was sent are compared over the whole run by the sink's journal, once it is over.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from subscriptions.ids import first_id

# Runs a query in the snapshot; gives its one row.
One = Callable[..., Sequence[Any]]

# Between the moment that a batch is stored under and the ids of its rows, at most.
_APART = timedelta(seconds=10)
# Long enough to say something, short enough to be read every few seconds beside what is measured.
_SHORTEST = timedelta(seconds=20)

_COUNTED = "SELECT COALESCE(SUM(received - stored - duplicate - unmatched - invalid), 0) FROM delivery_eventtally"
_STORED = "SELECT COALESCE(SUM(stored), 0) FROM delivery_eventtally WHERE minute >= %s"
_EVENTS = "SELECT COUNT(*) FROM delivery_event WHERE id >= %s AND received_at >= %s"
_NOT_OWED = (
    "SELECT COUNT(*) FROM delivery_event AS event WHERE event.id >= %s"
    " AND NOT EXISTS (SELECT 1 FROM delivery_delivery AS owed WHERE owed.event_id = event.id AND owed.id >= %s)"
)
_OF_NOTHING = (
    "SELECT COUNT(*) FROM delivery_delivery AS owed WHERE owed.id >= %s"
    " AND NOT EXISTS (SELECT 1 FROM delivery_event AS event WHERE event.id = owed.event_id AND event.id >= %s)"
)
_MADE = "SELECT COALESCE(SUM(attempt_count), 0) FROM delivery_delivery WHERE id >= %s"
_ATTEMPTS = "SELECT COUNT(*) FROM delivery_attempt WHERE delivery_id >= %s"
_STATELESS = "SELECT COUNT(*) FROM delivery_delivery WHERE id >= %s AND state NOT IN (0, 1, 2, 3)"


class Account(NamedTuple):
    """How many are not accounted for, in each way in which that can be. All should be 0."""

    # received - stored - duplicate - unmatched - invalid
    uncounted: int
    # Between the tallies' stored and the events, where whole minutes of them are still here.
    untallied: int
    # Events that their one endpoint is not owed, and deliveries of no event.
    not_owed: int
    of_nothing: int
    # Between the attempts that deliveries count and those that are there.
    unlogged: int
    # Deliveries that are neither pending nor delivered, dead or cancelled.
    stateless: int

    @property
    def unaccounted(self) -> int:
        return sum(map(abs, self))


def take(one: One, now: datetime, keep_s: float, key: Callable[[UUID], Any], time: Callable[[datetime], Any]) -> Account:
    """Of the rows that have been here for a minute or so, and in no case for longer than half of what they are kept."""
    minute = now.replace(second=0, microsecond=0)
    if now - minute < _SHORTEST:
        minute -= timedelta(minutes=1)
    oldest = now - timedelta(seconds=keep_s / 2)
    since = max(minute, oldest)
    first, margin = key(first_id(since)), key(first_id(since - _APART))
    untallied = 0
    if since == minute:
        untallied = _int(one(_STORED, time(minute))) - _int(one(_EVENTS, margin, time(minute)))
    return Account(
        _int(one(_COUNTED)),
        untallied,
        _int(one(_NOT_OWED, first, margin)),
        _int(one(_OF_NOTHING, first, margin)),
        _int(one(_MADE, first)) - _int(one(_ATTEMPTS, first)),
        _int(one(_STATELESS, first)),
    )


def _int(row: Sequence[Any]) -> int:
    return int(row[0])
