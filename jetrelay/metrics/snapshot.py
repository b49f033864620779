"""One moment of the database, seen by all queries of a scrape."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections, transaction

# What takes longer would load the database more than it tells. In ms.
_LONGEST_STATEMENT_MS = 10_000


@contextmanager
def snapshot() -> Iterator[None]:
    """Reads inside of it see what was committed before the first of them, and nothing since. Writes nothing, and keeps nobody from writing.

    Inside of a transaction that has begun already, that one decides.
    """
    if connection.in_atomic_block:
        yield
        return
    with _deferred(), transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                cursor.execute(f"SET LOCAL statement_timeout = {_LONGEST_STATEMENT_MS:d}; SET LOCAL jit = off")
        yield


@contextmanager
def _deferred() -> Iterator[None]:
    """On SQLite: our transactions begin as writers, of which there is one at a time. This one only reads."""
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    # Of this thread's connection alone; Django has no other way to choose it for one transaction.
    mine: Any = connections["default"]
    mode, mine.transaction_mode = mine.transaction_mode, "DEFERRED"
    try:
        yield
    finally:
        mine.transaction_mode = mode
