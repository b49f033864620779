"""What pruning looks at and what it deletes. The engines differ in how they write a list of ids, and in row locks.

Looking takes no lock. Deleting happens later, in a transaction of the caller's, and asks the same question again: a
delivery may have been replayed in between, an event may have been given a delivery.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from django.db import connection

from delivery.models import Delivery

_SETTLED = f"{Delivery.State.DELIVERED:d}, {Delivery.State.CANCELLED:d}"
# A delivery is as old as its last word: what was delivered today is news, however long it took.
_OVER = f"(state IN ({_SETTLED}) AND COALESCE(settled_at, created_at) < %s OR state = {Delivery.State.DEAD:d} AND COALESCE(settled_at, created_at) < %s)"
# A scalar, which no planner turns into a join that reads the whole table: one look at the index for each event.
_NEEDED = "(SELECT 1 FROM delivery_delivery WHERE event_id = delivery_event.id%s LIMIT 1)"


class Terms(NamedTuple):
    """Deliveries that were settled before these moments may go: delivered and cancelled ones, and dead ones."""

    settled_before: datetime
    dead_before: datetime


class Pruning(ABC):
    # Rows that one transaction looks at and deletes, at most.
    prune_chunk: ClassVar[int]
    # How long to rest after each, in multiples of the time that it took.
    prune_rest: ClassVar[float]
    # Rows that somebody else is changing are left for the next pass. Empty where a writer is alone anyway.
    skip_locked: ClassVar[str]

    def look_at_deliveries(self, after: UUID, before: UUID, most: int, terms: Terms) -> dict[UUID, int | None]:
        """The deliveries between two ids, in their order: the state of those that are over, None for the others."""
        sql = f"SELECT id, CASE WHEN {_OVER} THEN state END FROM delivery_delivery WHERE id > %s AND id < %s ORDER BY id LIMIT %s"
        return {_id(id): state for id, state in self._rows(sql, [*_moments(terms), self.key(after), self.key(before), most])}

    def look_at_events(self, after: UUID, before: UUID, most: int, unless: Terms | None = None) -> dict[UUID, bool]:
        """The events between two ids, in their order, and whether deliveries need them. With terms: once these are applied."""
        still, moments = (f" AND NOT {_OVER}", _moments(unless)) if unless else ("", [])
        sql = f"SELECT id, {_NEEDED % still} FROM delivery_event WHERE id > %s AND id < %s ORDER BY id LIMIT %s"
        return {_id(id): needed is not None for id, needed in self._rows(sql, [*moments, self.key(after), self.key(before), most])}

    def count_attempts(self, deliveries: Sequence[UUID]) -> int:
        among, values = self.among("delivery_id", deliveries)
        ((count,),) = self._rows(f"SELECT COUNT(*) FROM delivery_attempt WHERE {among}", values)
        return int(count)

    def prune_deliveries(self, ids: Sequence[UUID], terms: Terms) -> tuple[Counter[int], int]:
        """Delete those of the deliveries that are over now, with their attempts. Returns how many, by state, and the attempts."""
        self.by_index()
        among, values = self.among("id", ids)
        # In the order of ids, as everyone who locks several.
        sql = f"SELECT id, state FROM delivery_delivery WHERE {among} AND {_OVER} ORDER BY id {self.skip_locked}"
        locked = {_id(id): state for id, state in self._rows(sql, [*values, *_moments(terms)])}
        if not locked:
            return Counter(), 0
        among, values = self.among("delivery_id", list(locked))
        attempts = self._delete(f"DELETE FROM delivery_attempt WHERE {among}", values)
        among, values = self.among("id", list(locked))
        self._delete(f"DELETE FROM delivery_delivery WHERE {among} AND {_OVER}", [*values, *_moments(terms)])
        return Counter(locked.values()), attempts

    def prune_events(self, ids: Sequence[UUID]) -> int:
        """Delete those of the events that no delivery needs. Returns how many.

        Locked first, and asked about in a statement of its own, which sees what was committed until then: whoever adds a
        delivery to a stored event has to hold the event (FOR KEY SHARE) until that delivery is committed.
        """
        self.by_index()
        among, values = self.among("id", ids)
        locked = [_id(id) for (id,) in self._rows(f"SELECT id FROM delivery_event WHERE {among} ORDER BY id {self.skip_locked}", values)]
        if not locked:
            return 0
        among, values = self.among("id", locked)
        return self._delete(f"DELETE FROM delivery_event WHERE {among} AND {_NEEDED % ''} IS NULL", values)

    @abstractmethod
    def by_index(self) -> None:
        """Ask the planner for indexes in this transaction, where it might choose to read a table of that size as a whole."""

    @staticmethod
    def key(id: UUID) -> Any:
        """A UUID as this database keeps it."""
        return id

    @staticmethod
    @abstractmethod
    def among(column: str, ids: Sequence[UUID]) -> tuple[str, list[Any]]:
        """A condition for these ids, with its parameters."""

    @staticmethod
    def _rows(sql: str, values: Iterable[Any]) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, list(values))
            return list(cursor.fetchall())

    @staticmethod
    def _delete(sql: str, values: Iterable[Any]) -> int:
        with connection.cursor() as cursor:
            cursor.execute(sql, list(values))
            return int(cursor.rowcount)


def _id(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(hex=value)


def _moments(terms: Terms) -> list[Any]:
    return [connection.ops.adapt_datetimefield_value(moment) for moment in terms]
