"""SQLite: the same rows by prepared statements, which cost no round trip here.

UUIDs are kept as 32 hex digits and times as text, the way Django's own fields keep them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from delivery.engines.base import LAST_ID, AttemptRow, DeliveryRow, Due, Engine, EventRow, Head, Settlement, Subjects, Want

# SQLite's own bound on parameters in one statement is 32,766; smaller chunks cost nothing.
_CHUNK = 500

CLAIM = (
    "SELECT id, event_id, due_at, attempt_count, tries, order_key FROM delivery_delivery"
    " WHERE endpoint_id = %s AND state = 0 AND due_at <= %s AND (due_at, id) > (%s, %s) ORDER BY due_at, id LIMIT %s"
)
_NEXT_KEY = "SELECT order_key FROM delivery_delivery WHERE endpoint_id = %s AND state = 0 AND order_key > %s AND order_key <= %s ORDER BY order_key LIMIT 1"
_RUN = (
    "SELECT id, event_id, due_at, attempt_count, tries FROM delivery_delivery"
    " WHERE endpoint_id = %s AND state = 0 AND order_key = %s ORDER BY event_id LIMIT %s"
)


def as_text(moment: datetime) -> str:
    """As Django's DateTimeField writes it, so that comparisons of text are comparisons of time."""
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(sep=" ", timespec="microseconds") if naive.microsecond else naive.isoformat(sep=" ")


class SQLite(Engine):
    # There is one writer at a time: lanes and outbox wait while a chunk goes, and get four fifths of the time.
    prune_chunk = 200
    prune_rest = 4.0
    skip_locked = ""

    def insert_events(self, rows: Sequence[EventRow]) -> set[UUID]:
        # Django numbers SQLite's parameters one by one: reuse the statement, and ask for the ids only on a conflict.
        marks = ", ".join(["%s"] * len(EventRow._fields))
        columns = ", ".join(EventRow._fields)
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO delivery_event ({columns}) VALUES ({marks}) ON CONFLICT (source_id, dedup_key) DO NOTHING",
                [(row.id.hex, row.source_id.hex, *row[2:9], as_text(row.occurred_at), as_text(row.received_at), row.body) for row in rows],
            )
            inserted = cursor.rowcount
        ids = {row.id for row in rows}
        if inserted == len(rows):
            return ids
        return {UUID(hex=hex) for (hex,) in self._where_in("SELECT id FROM delivery_event WHERE id IN", ids)}

    def insert_deliveries(self, rows: Sequence[DeliveryRow], now: datetime) -> None:
        moment = as_text(now)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO delivery_delivery (id, event_id, endpoint_id, order_key, state, due_at, attempt_count, tries, last_error, created_at)"
                " VALUES (%s, %s, %s, %s, 0, %s, 0, 0, '', %s)",
                [(row.id.hex, row.event_id.hex, row.endpoint_id.hex, row.order_key, moment, moment) for row in rows],
            )

    def insert_attempts(self, rows: Sequence[AttemptRow]) -> None:
        marks = ", ".join(["%s"] * len(AttemptRow._fields))
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO delivery_attempt ({', '.join(AttemptRow._fields)}) VALUES ({marks})",
                [(row.id.hex, row.delivery_id.hex, row.number, as_text(row.started_at), *row[4:-1], row.batch and row.batch.hex) for row in rows],
            )

    def claim(self, wants: Sequence[Want], now: datetime) -> list[Due]:
        moment, found = as_text(now), []
        with connection.cursor() as cursor:
            for want in wants:
                cursor.execute(CLAIM, [want.endpoint_id.hex, moment, as_text(want.after_due_at), want.after_id.hex, want.most])
                found += [
                    Due(UUID(hex=id), UUID(hex=event), want.endpoint_id, due.replace(tzinfo=UTC), attempts, tries, key)
                    for id, event, due, attempts, tries, key in cursor.fetchall()
                ]
        return found

    def claim_runs(self, head: Head) -> list[Due]:
        key, found = head.after_key, []
        with connection.cursor() as cursor:
            for _ in range(head.subjects):
                cursor.execute(_NEXT_KEY, [head.endpoint_id.hex, key, head.until_key])
                row = cursor.fetchone()
                if row is None:
                    break
                (key,) = row
                found += _run_of(cursor, head.endpoint_id, key, head.run)
        return found

    def claim_subjects(self, subjects: Subjects) -> list[Due]:
        with connection.cursor() as cursor:
            return [due for key in subjects.keys for due in _run_of(cursor, subjects.endpoint_id, key, subjects.run)]

    def bodies(self, event_ids: Sequence[UUID]) -> dict[UUID, bytes]:
        rows = self._where_in("SELECT id, body FROM delivery_event WHERE id IN", event_ids)
        return {UUID(hex=id): bytes(body) for id, body in rows}

    def newest(self, endpoints: Sequence[UUID], before: UUID | None, most: int, state: int | None = None, together: bool = False) -> list[tuple[UUID, UUID]]:
        in_state = "" if state is None else f" AND state = {state:d}"
        newest = f"SELECT id FROM delivery_delivery WHERE endpoint_id = wanted.id AND id < %s{in_state} ORDER BY id DESC LIMIT %s"
        sql = f"SELECT wanted.id, owed.id FROM subscriptions_endpoint AS wanted JOIN delivery_delivery AS owed ON owed.id IN ({newest})"
        where, values = self.among("wanted.id", endpoints)
        with connection.cursor() as cursor:
            ordered, last = (" ORDER BY owed.id DESC LIMIT %s", [most]) if together else ("", [])
            cursor.execute(f"{sql} WHERE {where}{ordered}", [(before or LAST_ID).hex, most, *values, *last])
            return [(UUID(hex=endpoint), UUID(hex=id)) for endpoint, id in cursor.fetchall()]

    def settle(self, state: int, rows: Sequence[Settlement], now: datetime) -> int:
        moment = as_text(now)
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE delivery_delivery SET state = %s, settled_at = %s, attempt_count = attempt_count + 1, tries = tries + 1,"
                " last_status = %s, last_error = %s WHERE id = %s AND state = 0"
                " AND attempt_count = COALESCE(%s, attempt_count) AND tries = COALESCE(%s, tries)",
                [(state, moment, row.status, row.error, row.id.hex, *self.fence(state, row)) for row in rows],
            )
            return int(cursor.rowcount)

    def postpone(self, rows: Sequence[Settlement]) -> int:
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE delivery_delivery SET due_at = %s, last_status = %s, last_error = %s, attempt_count = attempt_count + 1, tries = tries + %s"
                " WHERE id = %s AND state = 0 AND attempt_count = %s",
                [(as_text(row.due_at), row.status, row.error, int(row.counted), row.id.hex, row.attempt_count) for row in rows if row.due_at],
            )
            return int(cursor.rowcount)

    def set_order_keys(self, rows: Sequence[tuple[UUID, int]]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany("UPDATE delivery_delivery SET order_key = %s WHERE id = %s", [(key, id.hex) for id, key in rows])

    def _where_in(self, sql: str, ids: Sequence[UUID] | set[UUID]) -> list[tuple[Any, ...]]:
        hexes, found = [id.hex for id in ids], []
        with connection.cursor() as cursor:
            for start in range(0, len(hexes), _CHUNK):
                some = hexes[start : start + _CHUNK]
                cursor.execute(f"{sql} ({', '.join(['%s'] * len(some))})", some)
                found += cursor.fetchall()
        return found

    @staticmethod
    def key(id: UUID) -> Any:
        return id.hex

    def by_index(self) -> None:
        """SQLite uses an index wherever there is one."""

    @staticmethod
    def among(column: str, ids: Sequence[UUID]) -> tuple[str, list[Any]]:
        return f"{column} IN ({', '.join(['%s'] * len(ids))})", [id.hex for id in ids]


def _run_of(cursor: Any, endpoint: UUID, key: int, most: int) -> list[Due]:
    cursor.execute(_RUN, [endpoint.hex, key, most])
    return [
        Due(UUID(hex=id), UUID(hex=event), endpoint, due.replace(tzinfo=UTC), attempts, tries, key) for id, event, due, attempts, tries in cursor.fetchall()
    ]
