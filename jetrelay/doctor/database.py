"""The database itself: whether it answers, what it is, and how it is doing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from jetrelay import away, horizon, writable
from jetrelay.doctor import running
from jetrelay.doctor.finding import Finding, ok, problem, skipped, warning
from jetrelay.doctor.registry import Check

# Of all connections that ordinary roles may have.
FEW_CONNECTIONS, NO_CONNECTIONS = 10, 3
# Fewer dead rows than this are no matter, whatever their share.
MANY_DEAD = 100_000


def database() -> Iterator[Finding]:
    kind = "PostgreSQL" if connection.vendor == "postgresql" else "SQLite"
    if connection.vendor == "sqlite" and not Path(where()).exists():
        # To connect would make an empty one, and whoever asks need not be the user that Jetrelay runs as.
        yield problem(f"there is no file {where()}", "Run `manage.py up`, or `manage.py migrate` and `manage.py bootstrap`, as the user that Jetrelay runs as.")
        return
    try:
        connection.ensure_connection()
        row("SELECT 1")
    except (DatabaseError, InterfaceError) as error:
        words = " ".join(str(error).split())
        yield problem(
            f"{kind} at {where()} does not answer: {words[:300]}",
            "Is it running, and is DATABASE_URL right? Nothing is lost while it is away: lanes and listener wait.",
        )
        return
    yield from _writes(kind)
    if connection.vendor == "postgresql":
        yield from _postgresql()
    else:
        yield from _sqlite()


def _writes(kind: str) -> Iterator[Finding]:
    """Whether it takes what workers give it."""
    try:
        if connection.vendor == "postgresql":
            # On a connection like theirs: doctor's own is read-only.
            with running.a_connection_that_writes() as theirs:
                writable.try_database(theirs)
        else:
            writable.try_database(connection)
    except (DatabaseError, InterfaceError, OSError) as error:
        words = " ".join(str(error).split())[:200]
        what, advice = away.refusal(error) or (words, "Look at the database's log: deliveries, events and cursors cannot be stored.")
        yield problem(f"{kind} at {where()} takes no writes: {what}", f"{advice} Nothing is lost meanwhile: lanes and listener wait.")


def _postgresql() -> Iterator[Finding]:
    version = row("SHOW server_version")[0]
    shown = {name: row(f"SHOW {name}")[0] for name in ("default_transaction_isolation", "server_encoding", "fsync", "synchronous_commit", "autovacuum")}
    if row("SELECT pg_is_in_recovery()")[0]:
        yield problem(f"PostgreSQL at {where()} is a standby", "Let DATABASE_URL name the primary.")
    if shown["default_transaction_isolation"] != "read committed":
        advice = f"ALTER DATABASE {settings.DATABASES['default']['NAME']} SET default_transaction_isolation = 'read committed': the claims of lanes rely on it."
        yield problem(f"transactions are {shown['default_transaction_isolation']} by default", advice)
    if shown["server_encoding"] != "UTF8":
        yield problem(f"the database's encoding is {shown['server_encoding']}", "Make it anew with ENCODING 'UTF8': not every event could be stored.")
    for name in ("fsync", "synchronous_commit"):
        if shown[name] == "off":
            yield warning(f"{name} is off", "A crash of the server may lose events that were answered with 202. Switch it on, unless that is meant.")
    if shown["autovacuum"] == "off":
        yield problem("autovacuum is off", "ALTER SYSTEM SET autovacuum = on, then SELECT pg_reload_conf(): without it tables grow, and claims become slow.")
    yield ok(f"PostgreSQL {version} at {where()} answers")


def _sqlite() -> Iterator[Finding]:
    import sqlite3

    file, mode = Path(where()), row("PRAGMA journal_mode")[0]
    if mode != "wal":
        yield warning(f"the journal's mode is {mode}", "Readers and the writer hold each other up. WAL needs a local disk and a folder that can be written to.")
    if row("PRAGMA synchronous")[0] < 2:
        yield warning("synchronous is not FULL", "A power cut may lose events that were answered with 202.")
    yield ok(f"SQLite {sqlite3.sqlite_version} at {file}, {file.stat().st_size >> 20:,} MB, answers")


def connections() -> Iterator[Finding]:
    if connection.vendor != "postgresql":
        yield skipped("SQLite has no bound on them")
        return
    most, reserved = (int(row(f"SHOW {name}")[0]) for name in ("max_connections", "superuser_reserved_connections"))
    used = row("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")[0]
    free = most - reserved - used
    told, advice = (
        f"{used} of {most - reserved} connections are in use",
        "Raise max_connections, or run fewer processes: each thread of each takes one at most.",
    )
    yield problem(told, advice) if free < NO_CONNECTIONS else warning(told, advice) if free < FEW_CONNECTIONS else ok(told)


def transactions() -> Iterator[Finding]:
    """Who keeps the database from cleaning up."""
    found = horizon.holders()
    for each in found:
        yield warning(f"nothing that was settled since can be cleaned up: {each.who}", each.advice)
    if not found and connection.vendor == "postgresql":
        yield ok(f"none is open for over {horizon.LONG_S // 60} minutes")
    elif not found:
        yield ok(f"the log has no more than {horizon.LARGE_WAL >> 20} MB")


def vacuum() -> Iterator[Finding]:
    if connection.vendor != "postgresql":
        yield skipped("SQLite has none")
        return
    switched_off = [
        name for (name,) in rows("SELECT relname FROM pg_class WHERE 'autovacuum_enabled=false' = ANY (reloptions) AND relnamespace = 'public'::regnamespace")
    ]
    if switched_off:
        yield problem(f"autovacuum is switched off for {', '.join(switched_off)}", f"ALTER TABLE {switched_off[0]} RESET (autovacuum_enabled)")
    dead = rows(
        "SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE n_dead_tup > greatest(%s, n_live_tup) ORDER BY n_dead_tup DESC", MANY_DEAD
    )
    for name, count, live in dead:
        yield warning(
            f"{name} has {count:,} dead rows and {live:,} live ones",
            f"Autovacuum does not keep up, or an old transaction holds it back. VACUUM (ANALYZE) {name}",
        )
    if not switched_off and not dead:
        yield ok("no table has more dead rows than live ones")


def indexes() -> Iterator[Finding]:
    if connection.vendor != "postgresql":
        yield skipped("SQLite has no invalid ones")
        return
    broken = [name for (name,) in rows("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready ORDER BY 1")]
    if broken:
        yield problem(f"invalid: {', '.join(broken)}", f"A concurrent build was cut off, and nothing is found by it. REINDEX INDEX CONCURRENTLY {broken[0]}")
    else:
        yield ok("all are valid")


def where() -> str:
    """Host, port and name, or the file. Never the password."""
    found = connection.settings_dict
    return f"{found['HOST'] or 'the local socket'}:{found['PORT'] or 5432}/{found['NAME']}" if connection.vendor == "postgresql" else str(found["NAME"])


def rows(statement: str, *values: str | int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def row(statement: str, *values: str | int) -> tuple[Any, ...]:
    (found,) = rows(statement, *values)
    return found


CHECKS = (
    Check("database", database),
    Check("connections", connections, needs=("database",)),
    Check("transactions", transactions, needs=("database",)),
    Check("vacuum", vacuum, needs=("database",)),
    Check("indexes", indexes, needs=("database",)),
)
