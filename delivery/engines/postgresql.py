"""PostgreSQL: rows go in by binary COPY, ids come and go as arrays.

Measured for 1,000 events: COPY through a temporary table 17-20 µs an event, arrays through `unnest` 75-90.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import psycopg
from django.db import connection
from django.db.models import Model
from psycopg.adapt import Dumper
from psycopg.rows import tuple_row

from delivery.engines.base import LAST_ID, AttemptRow, DeliveryRow, Due, Engine, EventRow, Head, Settlement, Subjects, Want
from delivery.models import Delivery

_EVENT_TYPES = ("uuid", "uuid", "bytea", "text", "text", "text", "text", "text", "int8", "timestamptz", "timestamptz", "bytea")
_DELIVERY_TYPES = ("uuid", "uuid", "uuid", "int8", "int2", "timestamptz", "int4", "int4", "text", "timestamptz")
_ATTEMPT_TYPES = ("uuid", "uuid", "int4", "timestamptz", *["float8"] * 5, "int2", "text", "text", "text", "bytea", "uuid")

_EVENT_COLUMNS = ", ".join(EventRow._fields)

CLAIM = """
    SELECT due.id, due.event_id, due.due_at, due.attempt_count, due.tries, due.order_key, wanted.place
    FROM unnest(%s::uuid[], %s::int[], %s::timestamptz[], %s::uuid[]) WITH ORDINALITY AS wanted (endpoint_id, most, after_due_at, after_id, place)
    CROSS JOIN LATERAL (
        SELECT id, event_id, due_at, attempt_count, tries, order_key FROM delivery_delivery
        WHERE endpoint_id = wanted.endpoint_id AND state = 0 AND due_at <= %s AND (due_at, id) > (wanted.after_due_at, wanted.after_id)
        ORDER BY due_at, id LIMIT wanted.most
    ) AS due
"""

# From subject to subject by the index, however many deliveries each of them has.
CLAIM_RUNS = """
    WITH RECURSIVE subject (key, number) AS (
        (SELECT order_key, 1 FROM delivery_delivery
            WHERE endpoint_id = %s AND state = 0 AND order_key > %s AND order_key <= %s ORDER BY order_key LIMIT 1)
        UNION ALL
        SELECT (SELECT order_key FROM delivery_delivery
            WHERE endpoint_id = %s AND state = 0 AND order_key > subject.key AND order_key <= %s ORDER BY order_key LIMIT 1), number + 1
        FROM subject WHERE subject.key IS NOT NULL AND number < %s
    )
    SELECT run.id, run.event_id, run.due_at, run.attempt_count, run.tries, subject.key
    FROM subject CROSS JOIN LATERAL (
        SELECT id, event_id, due_at, attempt_count, tries FROM delivery_delivery
        WHERE endpoint_id = %s AND state = 0 AND order_key = subject.key ORDER BY event_id LIMIT %s
    ) AS run ORDER BY subject.key, run.event_id
"""

# The same of subjects that are known.
CLAIM_SUBJECTS = """
    SELECT run.id, run.event_id, run.due_at, run.attempt_count, run.tries, subject.key
    FROM unnest(%s::bigint[]) WITH ORDINALITY AS subject (key, place) CROSS JOIN LATERAL (
        SELECT id, event_id, due_at, attempt_count, tries FROM delivery_delivery
        WHERE endpoint_id = %s AND state = 0 AND order_key = subject.key ORDER BY event_id LIMIT %s
    ) AS run ORDER BY subject.place, run.event_id
"""

_NEWEST = "SELECT id FROM delivery_delivery WHERE endpoint_id = wanted.id AND id < %(before)s{in_state} ORDER BY id DESC LIMIT %(most)s"
# Few may be pending among very many, or very many: of those that are due longest so many are sorted, and the newest of all are looked at.
_NEWEST_PENDING = """
    SELECT id FROM (
        SELECT id FROM (
            SELECT id FROM delivery_delivery WHERE endpoint_id = wanted.id AND state = 0 ORDER BY due_at, id LIMIT 10000
        ) AS oldest WHERE id < %(before)s
        UNION SELECT last.id FROM (
            SELECT id, state FROM delivery_delivery WHERE endpoint_id = wanted.id AND id < %(before)s ORDER BY id DESC LIMIT %(most)s
        ) AS last WHERE last.state = 0
    ) AS pending ORDER BY id DESC LIMIT %(most)s
"""


class _Ids(tuple[UUID, ...]):
    """An array of ids on its way to the server. psycopg's own dumper of lists asks every item what it is, which costs seven times as much."""

    __slots__ = ()


class _IdsDumper(Dumper):
    format = psycopg.pq.Format.BINARY
    oid = psycopg.adapters.types["uuid"].array_oid

    def dump(self, obj: _Ids) -> bytes:
        # One dimension, no nulls, the items' type, how many, numbered from 1; then each item after its length.
        head = struct.pack("!iiIii", 1, 0, psycopg.adapters.types["uuid"].oid, len(obj), 1)
        return head + b"".join([b"\0\0\0\x10" + id.bytes for id in obj])


psycopg.adapters.register_dumper(_Ids, _IdsDumper)


@contextmanager
def _cursor(*, binary: bool = False) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
    """psycopg's own cursor, with parameters bound by the server, and Django's exceptions."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection, row_factory=tuple_row) as cursor:
        cursor.format = psycopg.pq.Format.BINARY if binary else psycopg.pq.Format.TEXT
        yield cursor


def _copy(cursor: psycopg.Cursor[Any], target: str, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with cursor.copy(f"COPY {target} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


@cache
def _adding_up(model: type[Model], keys: tuple[str, ...], fields: tuple[str, ...]) -> str:
    """The upsert of tallies, from one array for each column. (As many VALUES as rows cost a third of a worker with 1,000 endpoints.)"""
    table, columns = model._meta.db_table, (*keys, *fields)
    by_column = {field.column: field for field in model._meta.concrete_fields}
    arrays = ", ".join(f"%s::{by_column[name].db_type(connection)}[]" for name in columns)
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in fields)
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {sums}"


class PostgreSQL(Engine):
    prune_chunk = 1000
    prune_rest = 1.0
    skip_locked = "FOR UPDATE SKIP LOCKED"

    def insert_events(self, rows: Sequence[EventRow]) -> set[UUID]:
        ids = {row.id for row in rows}
        with _cursor(binary=True) as cursor:
            # One for each connection; its rows are gone at every commit.
            cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS staged_event (LIKE delivery_event) ON COMMIT DELETE ROWS")
            _copy(cursor, f"staged_event ({_EVENT_COLUMNS})", _EVENT_TYPES, rows)
            # In the order of the key, so that two writers of the same events wait for each other in a line and not in a ring.
            cursor.execute(
                f"INSERT INTO delivery_event ({_EVENT_COLUMNS}) SELECT {_EVENT_COLUMNS} FROM staged_event ORDER BY dedup_key"
                " ON CONFLICT (source_id, dedup_key) DO NOTHING"
            )
            if cursor.rowcount == len(rows):
                return ids
            # Only now is it worth asking which; our own new ids tell them from the ones that were there before.
            cursor.execute("SELECT id FROM delivery_event WHERE id = ANY(%s)", [_Ids(ids)])
            return {id for (id,) in cursor}

    def insert_deliveries(self, rows: Sequence[DeliveryRow], now: datetime) -> None:
        columns = "id, event_id, endpoint_id, order_key, state, due_at, attempt_count, tries, last_error, created_at"
        state = Delivery.State.PENDING.value
        with _cursor() as cursor:
            _copy(cursor, f"delivery_delivery ({columns})", _DELIVERY_TYPES, ((*row, state, now, 0, 0, "", now) for row in rows))

    def insert_attempts(self, rows: Sequence[AttemptRow]) -> None:
        with _cursor() as cursor:
            _copy(cursor, f"delivery_attempt ({', '.join(AttemptRow._fields)})", _ATTEMPT_TYPES, rows)

    def claim(self, wants: Sequence[Want], now: datetime) -> list[Due]:
        columns = [list(column) for column in zip(*wants, strict=True)]
        with _cursor(binary=True) as cursor:
            cursor.execute(CLAIM, [*columns, now], prepare=True)
            return [Due(id, event, wants[place - 1].endpoint_id, due_at, attempts, tries, key) for id, event, due_at, attempts, tries, key, place in cursor]

    def claim_runs(self, head: Head) -> list[Due]:
        endpoint = head.endpoint_id
        with _cursor(binary=True) as cursor:
            values = [endpoint, head.after_key, head.until_key, endpoint, head.until_key, head.subjects, endpoint, head.run]
            cursor.execute(CLAIM_RUNS, values, prepare=True)
            return [Due(id, event, endpoint, due_at, attempts, tries, key) for id, event, due_at, attempts, tries, key in cursor]

    def claim_subjects(self, subjects: Subjects) -> list[Due]:
        endpoint = subjects.endpoint_id
        with _cursor(binary=True) as cursor:
            cursor.execute(CLAIM_SUBJECTS, [list(subjects.keys), endpoint, subjects.run], prepare=True)
            return [Due(id, event, endpoint, due_at, attempts, tries, key) for id, event, due_at, attempts, tries, key in cursor]

    def bodies(self, event_ids: Sequence[UUID]) -> dict[UUID, bytes]:
        with _cursor(binary=True) as cursor:
            cursor.execute("SELECT id, body FROM delivery_event WHERE id = ANY(%s)", [_Ids(event_ids)], prepare=True)
            return dict(cursor.fetchall())

    def newest(self, endpoints: Sequence[UUID], before: UUID | None, most: int, state: int | None = None, together: bool = False) -> list[tuple[UUID, UUID]]:
        with _cursor(binary=True) as cursor:
            # A number in the text: a parameter would keep the planner from the index of dead ones.
            in_state = "" if state is None else f" AND state = {state:d}"
            each = _NEWEST_PENDING if state == Delivery.State.PENDING else _NEWEST.format(in_state=in_state)
            sql = f"SELECT wanted.id, newest.id FROM unnest(%(of)s::uuid[]) AS wanted (id) CROSS JOIN LATERAL ({each}) AS newest"
            values = {"of": list(endpoints), "before": before or LAST_ID, "most": most}
            if together:
                sql = f"{sql} ORDER BY newest.id DESC LIMIT %(most)s"
            cursor.execute(sql, values, prepare=True)
            return cursor.fetchall()

    # Below, `state + 0`: rows are found by their ids. The index of what is pending would look like the shorter way to a planner that
    # does not know yet how much that is.

    def settle(self, state: int, rows: Sequence[Settlement], now: datetime) -> int:
        settled = 0
        groups: dict[tuple[int | None, str, int | None, int | None], list[UUID]] = {}
        for row in rows:
            groups.setdefault((row.status, row.error, *self.fence(state, row)), []).append(row.id)
        with _cursor() as cursor:
            for (status, error, attempts, tries), ids in groups.items():
                cursor.execute(
                    "UPDATE delivery_delivery SET state = %s, settled_at = %s, attempt_count = attempt_count + 1, tries = tries + 1,"
                    " last_status = %s, last_error = %s WHERE id = ANY(%s) AND state + 0 = 0"
                    " AND attempt_count = COALESCE(%s, attempt_count) AND tries = COALESCE(%s, tries)",
                    [state, now, status, error, _Ids(ids), attempts, tries],
                )
                settled += cursor.rowcount
        return settled

    def postpone(self, rows: Sequence[Settlement]) -> int:
        if not rows:
            return 0
        columns = zip(*[(row.id, row.attempt_count, row.status, row.error, row.due_at, row.counted) for row in rows], strict=True)
        with _cursor() as cursor:
            cursor.execute(
                "UPDATE delivery_delivery AS owed SET due_at = news.due_at, last_status = news.status, last_error = news.error,"
                " attempt_count = owed.attempt_count + 1, tries = owed.tries + news.counted::int"
                " FROM unnest(%s::uuid[], %s::int[], %s::int[], %s::text[], %s::timestamptz[], %s::bool[])"
                " AS news (id, attempt_count, status, error, due_at, counted)"
                " WHERE owed.id = ANY(%s) AND owed.id = news.id AND owed.state + 0 = 0 AND owed.attempt_count = news.attempt_count",
                [*(list(column) for column in columns), _Ids(row.id for row in rows)],
            )
            return cursor.rowcount

    def set_order_keys(self, rows: Sequence[tuple[UUID, int]]) -> None:
        if rows:
            with _cursor() as cursor:
                cursor.execute(
                    "UPDATE delivery_delivery AS owed SET order_key = given.key"
                    " FROM unnest(%s::uuid[], %s::bigint[]) AS given (id, key) WHERE owed.id = given.id",
                    [list(column) for column in zip(*rows, strict=True)],
                )

    def _add_up(self, model: type[Model], keys: Iterable[str], fields: Iterable[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        sql = _adding_up(model, tuple(keys), tuple(fields))
        with _cursor() as cursor:
            # The text is the same for any number of rows: psycopg reads it once, and the server plans it once.
            cursor.execute(sql, [list(column) for column in zip(*rows, strict=True)], prepare=True)

    def by_index(self) -> None:
        # For a thousand ids of a table of some 100,000 rows it would; a bloated or unanalysed one is worse. And no JIT with it.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL jit = off")

    @staticmethod
    def among(column: str, ids: Sequence[UUID]) -> tuple[str, list[Any]]:
        return f"{column} = ANY(%s)", [list(ids)]
