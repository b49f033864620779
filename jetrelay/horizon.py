"""Who keeps the database from cleaning up what nobody needs any more: PostgreSQL's oldest snapshots, and SQLite's log that cannot begin anew.

Whatever was settled since such a snapshot was taken stays in the tables and indexes, for as long as that lives. Claims find their way past
it, but tables grow, and whatever counts or looks for the oldest reads all of it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from django.db import connection

# Backups and reports take that long.
LONG_S = 300
# Transactions since a replication slot's snapshot; how old that is it does not say. At most some hundred are made in a second.
MANY_TRANSACTIONS = 100_000
LARGE_WAL = 1 << 28

_SESSIONS = """
    SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::int, coalesce(state, 'at work'),
        coalesce(nullif(application_name, ''), usename, backend_type), backend_type
    FROM pg_stat_activity
    WHERE (datname = current_database() OR backend_type = 'walsender') AND pid <> pg_backend_pid()
        AND backend_type IN ('client backend', 'walsender') AND xact_start < clock_timestamp() - %s * interval '1 second'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR state LIKE 'idle in transaction%%')
    ORDER BY xact_start
"""
_PREPARED = """
    SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::int FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - %s * interval '1 second' ORDER BY prepared
"""
_SLOTS = """
    SELECT slot_name, active, greatest(age(xmin), age(catalog_xmin)) FROM pg_replication_slots
    WHERE greatest(age(xmin), age(catalog_xmin)) > %s ORDER BY 3 DESC
"""


class Holder(NamedTuple):
    """`kind` for anybody; `who` for whoever runs the database, with what to do."""

    kind: str
    who: str
    advice: str


def holders() -> list[Holder]:
    return _of_postgresql() if connection.vendor == "postgresql" else of_sqlite(Path(connection.settings_dict["NAME"]))


def _of_postgresql() -> list[Holder]:
    found = []
    for pid, seconds, state, program, backend in _rows(_SESSIONS, LONG_S):
        kind = "a standby's query" if backend == "walsender" else "a session's transaction"
        advice = f"If nobody needs it: SELECT pg_terminate_backend({pid}). For all to come: idle_in_transaction_session_timeout"
        found.append(Holder(f"{kind}, open for {seconds // 60} minutes", f"process {pid}, {state}, by {program}, open for {seconds // 60} minutes", advice))
    for gid, seconds in _rows(_PREPARED, LONG_S):
        kind = f"a prepared transaction, {seconds // 60} minutes old"
        found.append(Holder(kind, f"prepared transaction {gid}, {seconds // 60} minutes old", f"If nobody finishes it: ROLLBACK PREPARED '{gid}'"))
    for name, active, age in _rows(_SLOTS, MANY_TRANSACTIONS):
        who = f"replication slot {name}, {'' if active else 'not '}in use, {age:,} transactions behind"
        found.append(Holder(f"a replication slot, {age:,} transactions behind", who, f"If nobody reads it: SELECT pg_drop_replication_slot('{name}')"))
    return found


def of_sqlite(database: Path) -> list[Holder]:
    """Its log grows for as long as somebody reads what was there before."""
    wal = database.with_name(f"{database.name}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size <= LARGE_WAL:
        return []
    told = f"{wal.name} has {size >> 20:,} MB"
    return [Holder(told, told, "A reader that never ends keeps it from being folded in: end what has been reading for long. It shrinks at the next start.")]


def _rows(statement: str, *values: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())
