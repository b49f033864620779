"""The hot statements, once for each database engine: PostgreSQL and SQLite.

Everything here runs in the caller's transaction and decides nothing: `outbox` and `lanes` say what is to be
written, an engine knows the quickest way to write it.
"""

from django.db import connection

from delivery.engines.base import Engine
from delivery.engines.postgresql import PostgreSQL
from delivery.engines.sqlite import SQLite

_ENGINES: dict[str, Engine] = {"postgresql": PostgreSQL(), "sqlite": SQLite()}


def engine() -> Engine:
    """The engine of the default database."""
    return _ENGINES[connection.vendor]
