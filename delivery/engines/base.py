"""What an engine does, and the rows it does it with."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from delivery.engines.pruning import Pruning
from delivery.engines.replaying import Replaying
from delivery.models import AttemptTally, Delivery, EventTally


class EventRow(NamedTuple):
    id: UUID
    source_id: UUID
    dedup_key: bytes
    kind: str
    type: str
    operation: str
    subject: str
    origin: str
    origin_cursor: int | None
    occurred_at: datetime
    received_at: datetime
    body: bytes


class DeliveryRow(NamedTuple):
    id: UUID
    event_id: UUID
    endpoint_id: UUID
    # Of an ordered endpoint: see `delivery/order.py`.
    order_key: int | None = None


class AttemptRow(NamedTuple):
    id: UUID
    delivery_id: UUID
    number: int
    started_at: datetime
    dns_ms: float
    connect_ms: float
    tls_ms: float
    first_byte_ms: float
    total_ms: float
    status: int | None
    error: str
    error_detail: str
    response_headers: str
    response_body: bytes
    # Of one that travelled in a batch: see `delivery/parcels.py`.
    batch: UUID | None = None


class Want(NamedTuple):
    """How many due deliveries of one endpoint to look for, after which one (in the order of `due_at`, then id)."""

    endpoint_id: UUID
    most: int
    after_due_at: datetime
    after_id: UUID


class Due(NamedTuple):
    """A delivery that may be sent now."""

    id: UUID
    event_id: UUID
    endpoint_id: UUID
    due_at: datetime
    attempt_count: int
    tries: int
    order_key: int | None = None


class Head(NamedTuple):
    """Which subjects of an ordered endpoint to look at: so many after a key, up to another; and how long a run of each, at most."""

    endpoint_id: UUID
    after_key: int
    subjects: int
    run: int
    until_key: int = (1 << 63) - 1


class Subjects(NamedTuple):
    """These subjects of an ordered endpoint; and how long a run of each, at most."""

    endpoint_id: UUID
    keys: tuple[int, ...]
    run: int


class Settlement(NamedTuple):
    """What an attempt does to its delivery. `attempt_count` is the count before it, a fence against late news.

    An attempt that is not `counted` leaves the retry schedule where it was. `tries` is where that stood before it: what was
    replayed meanwhile does not die of it. None for any.
    """

    id: UUID
    attempt_count: int
    status: int | None
    error: str
    due_at: datetime | None = None
    counted: bool = True
    tries: int | None = None


class EventCounts(NamedTuple):
    received: int
    stored: int
    duplicate: int
    unmatched: int
    invalid: int


LAST_ID = UUID(int=(1 << 128) - 1)
# What is counted of attempts; zeros of the columns' own types, because an array holds but one.
_NO_ATTEMPTS: dict[str, float] = {"attempts": 0, "total_ms": 0.0, **dict.fromkeys(AttemptTally().buckets(), 0)}


class Engine(Pruning, Replaying):
    """Statements of the default database, in the caller's transaction."""

    @abstractmethod
    def insert_events(self, rows: Sequence[EventRow]) -> set[UUID]:
        """Insert the rows whose (source, dedup_key) is new and return their ids."""

    @abstractmethod
    def insert_deliveries(self, rows: Sequence[DeliveryRow], now: datetime) -> None:
        """Insert pending deliveries that are due now."""

    @abstractmethod
    def insert_attempts(self, rows: Sequence[AttemptRow]) -> None: ...

    @abstractmethod
    def claim(self, wants: Sequence[Want], now: datetime) -> list[Due]:
        """What is wanted of the deliveries that are due, those due longest first. Marks nothing."""

    @abstractmethod
    def claim_runs(self, head: Head) -> list[Due]:
        """The pending deliveries of some subjects, by key and in the order of their events, due or not. Marks nothing."""

    @abstractmethod
    def claim_subjects(self, subjects: Subjects) -> list[Due]:
        """The same of these subjects, in the order in which they were named."""

    @abstractmethod
    def bodies(self, event_ids: Sequence[UUID]) -> dict[UUID, bytes]: ...

    @abstractmethod
    def newest(self, endpoints: Sequence[UUID], before: UUID | None, most: int, state: int | None = None, together: bool = False) -> list[tuple[UUID, UUID]]:
        """(endpoint, delivery) of the newest so many deliveries of each endpoint, or of those in a state, in no order.

        `together`: of these, the newest so many of all endpoints, in order; what is not among them never leaves the database.
        """

    @abstractmethod
    def settle(self, state: int, rows: Sequence[Settlement], now: datetime) -> int:
        """Move pending deliveries to a final state. Returns how many were.

        A success is news however late it comes; a failure counts only while the delivery has seen no other attempt since.
        """

    @abstractmethod
    def postpone(self, rows: Sequence[Settlement]) -> int:
        """Count a failed attempt of pending deliveries and set when the next is due. Returns how many were."""

    @abstractmethod
    def set_order_keys(self, rows: Sequence[tuple[UUID, int]]) -> None:
        """Give deliveries the keys of their subjects."""

    def add_event_tallies(self, minute: datetime, source_id: UUID, counts: Mapping[tuple[str, str], EventCounts]) -> None:
        """Add to the counts of (kind, type). In key order, so that two writers never wait for each other in a ring."""
        moment = connection.ops.adapt_datetimefield_value(minute)
        rows = [(moment, self.key(source_id), *key, *counts[key]) for key in sorted(counts)]
        self._add_up(EventTally, ("minute", "source_id", "kind", "type"), EventCounts._fields, rows)

    def add_attempt_tallies(self, minute: datetime, counts: Mapping[tuple[UUID, str], Mapping[str, float]]) -> None:
        """Add to the counts of (endpoint, outcome): `attempts`, `total_ms` and the buckets of the histogram."""
        moment = connection.ops.adapt_datetimefield_value(minute)
        rows = [
            (moment, self.key(endpoint), outcome, *(counts[endpoint, outcome].get(field, zero) for field, zero in _NO_ATTEMPTS.items()))
            for endpoint, outcome in sorted(counts)
        ]
        self._add_up(AttemptTally, ("minute", "endpoint_id", "outcome"), _NO_ATTEMPTS, rows)

    def _add_up(self, model: type[Any], keys: Iterable[str], fields: Iterable[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        table, keys, fields = model._meta.db_table, tuple(keys), tuple(fields)
        columns = (*keys, *fields)
        sums = ", ".join(f"{field} = {table}.{field} + excluded.{field}" for field in fields)
        marks = f"({', '.join(['%s'] * len(columns))})"
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * len(rows))} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {sums}"
        with connection.cursor() as cursor:
            cursor.execute(sql, [value for row in rows for value in row])

    @staticmethod
    def fence(state: int, row: Settlement) -> tuple[int | None, int | None]:
        """The attempt count and the tries that a delivery must have to be settled so; None for any."""
        return (None, None) if state == Delivery.State.DELIVERED else (row.attempt_count, row.tries)
