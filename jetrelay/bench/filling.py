"""Millions of rows in PostgreSQL, as the product would have left them: made by the server, in the order of time.

Ids are UUIDv7 that rise with the rows, as real ones do, so pages of tables and indexes lie as they would after inserts.
Rows that were settled are inserted as such: the space that their updates would have left free is not there.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

TABLES = ("delivery_event", "delivery_delivery", "delivery_attempt", "delivery_attempttally")
# Milliseconds since 1970 and a number below 16^6 that no two rows of one millisecond share.
_ID = """
    CREATE FUNCTION pg_temp.id(ms bigint, part int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(part >> 12), 3, '0') || '8' || lpad(to_hex(part & 4095), 3, '0')
            || substr(md5(ms::text || '.' || part), 1, 12))::uuid
    $$
"""
# Event n of each batch; `part` tells events of one millisecond apart.
_ROWS = "generate_series(0::bigint, %(count)s::bigint - 1) AS n, LATERAL (SELECT %(from_ms)s::bigint + n * %(span_ms)s::bigint / %(count)s::bigint AS ms) AS at"
_EVENTS = f"""
    INSERT INTO delivery_event (id, source_id, dedup_key, kind, type, operation, subject, origin, origin_cursor, occurred_at, received_at, body)
    SELECT pg_temp.id(ms, (n %% 65536)::int * 16), %(source)s, decode(md5(%(from_ms)s::text || ':' || n), 'hex'), 'commit', 'example.bench.n', 'create',
        'did:plc:' || lpad((n %% 100000)::text, 24, '0'), '', NULL, to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0), %(body)s
    FROM {_ROWS}
"""  # noqa: S608
_DELIVERIES = f"""
    INSERT INTO delivery_delivery
        (id, event_id, endpoint_id, state, due_at, attempt_count, tries, last_status, last_error, settled_at, created_at)
    SELECT pg_temp.id(ms, (n %% 65536)::int * 16 + place::int), pg_temp.id(ms, (n %% 65536)::int * 16), endpoint, %(state)s::int2, to_timestamp(ms / 1000.0),
        %(state)s::int4, %(state)s::int4, CASE %(state)s::int2 WHEN 1 THEN 200 END, '',
        CASE %(state)s::int2 WHEN 1 THEN to_timestamp(ms / 1000.0 + 0.1) END, to_timestamp(ms / 1000.0)
    FROM {_ROWS}, unnest(%(endpoints)s::uuid[]) WITH ORDINALITY AS owed (endpoint, place)
"""  # noqa: S608
_ATTEMPTS = f"""
    INSERT INTO delivery_attempt (id, delivery_id, number, started_at, dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, status, error, error_detail,
        response_headers, response_body)
    SELECT pg_temp.id(ms + 50, (n %% 65536)::int * 16 + place), pg_temp.id(ms, (n %% 65536)::int * 16 + place), 1, to_timestamp(ms / 1000.0 + 0.05),
        0.1, 5.2, 12.5, 48.1, 50.3, 200, '', '', E'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n', ''
    FROM {_ROWS}, generate_series(1, %(each)s) AS place
"""  # noqa: S608


class Filler:
    """Fills one database. `endpoints` are those that every event is owed to, 15 at most."""

    def __init__(self, url: str) -> None:
        self._url = url

    def pending(self, events: int, endpoint: UUID) -> None:
        """Store so many events that were stored within the last seconds and are owed to the endpoint."""
        now_ms = _milliseconds(datetime.now(UTC))
        self._fill(events, now_ms - events // 10, now_ms, [endpoint], state=0)

    def settled(self, deliveries: int, endpoints: Sequence[UUID], days: int) -> None:
        """Store so many deliveries that reached these endpoints at the first attempt, evenly over the days before the last hour."""
        end_ms = _milliseconds(datetime.now(UTC)) - 3_600_000
        self._fill(deliveries // len(endpoints), end_ms - days * 86_400_000, end_ms, endpoints, state=1)

    def vacuum(self) -> None:
        """Leave no work for autovacuum, which is off on these tables, and no dirty pages for the next checkpoint, if we may."""
        with psycopg.connect(self._url, autocommit=True) as server:
            for table in TABLES:
                server.execute(f"VACUUM (ANALYZE) {table}")
            try:
                server.execute("CHECKPOINT")
            except psycopg.errors.InsufficientPrivilege:
                pass

    def _fill(self, events: int, from_ms: int, to_ms: int, endpoints: Sequence[UUID], state: int) -> None:
        with psycopg.connect(self._url, cursor_factory=psycopg.ClientCursor) as server:
            for table in TABLES:
                server.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            server.execute(_ID)
            (source,) = server.execute("SELECT id FROM subscriptions_source").fetchone() or (None,)
            values: dict[str, Any] = {"count": events, "from_ms": from_ms, "span_ms": to_ms - from_ms, "source": source, "body": b'{"n":"%s"}' % (b"x" * 510)}
            values |= {"endpoints": list(endpoints), "each": len(endpoints), "state": state}
            server.execute(_EVENTS, values)
            server.execute(_DELIVERIES, values)
            if state:
                server.execute(_ATTEMPTS, values)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
