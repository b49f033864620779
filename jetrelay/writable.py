"""Whether the database, the broker and a folder take writes: each is tried, because what only answers a question may refuse all work.

A Redis that is full, a replica, a standby, a disk without room: all of them answer, and none of them takes anything.
"""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from django.db import DatabaseError, transaction

from delivery.models import Lease
from jetrelay import away

# More than a file system keeps beside a file's name, so that a full disk shows.
_SIZE = 8_192
# How long a writer of SQLite may keep the trial waiting. It commits within milliseconds, and prunes in short transactions.
_LOCK_MS = 3_000
# A trial that was cut off leaves no key behind for longer.
_KEPT_S = 10


def try_redis(client: "redis.Redis") -> None:
    """As wakes travel: onto a list, and off its other end. Raises RedisError."""
    name = f"jetrelay:trial:{uuid.uuid4().hex}"
    client.lpush(name, b"wake")
    client.expire(name, _KEPT_S)
    if client.rpop(name) != b"wake":
        raise redis.ResponseError("what was put into it did not come out again: a proxy or a cluster may stand in between")


def is_refusal(error: redis.RedisError) -> bool:
    """Whether Redis is there, and does not take what it is given."""
    return not isinstance(error, redis.ConnectionError | redis.TimeoutError)


def why_redis(error: redis.RedisError) -> tuple[str, str]:
    """In words: what is wrong with it, and what to do."""
    said = " ".join(str(error).split())[:200]
    if isinstance(error, redis.exceptions.OutOfMemoryError) or said.startswith(("OOM", "command not allowed when used memory")):
        return "its memory is full", "Raise maxmemory (CONFIG SET maxmemory …), or find what else is in it: Jetrelay needs a few MB."
    if isinstance(error, redis.exceptions.ReadOnlyError) or "read only replica" in said:
        return "it is a read-only replica", "Let BROKER_URL name the primary."
    if said.startswith("MISCONF"):
        return "it cannot save its data to its disk", "Make room there. Jetrelay needs nothing saved: CONFIG SET save ''"
    if said.startswith("NOREPLICAS"):
        return "it has too few replicas", "Start them, or: CONFIG SET min-replicas-to-write 0"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "its user may not do that", "Give the user of BROKER_URL lists, sets and keys (ACL SETUSER … +@all ~*)."
    return said, "Is it a plain Redis, and is BROKER_URL right?"


def try_folder(folder: Path) -> None:
    """Write a file of some size, rename it and take it away. Raises OSError."""
    trial = folder / f".trial-{uuid.uuid4().hex}"
    try:
        trial.write_bytes(bytes(_SIZE))
        trial = trial.rename(trial.with_suffix(".taken"))
    finally:
        trial.unlink(missing_ok=True)


def try_database(connection: Any) -> None:
    """Write a row, and take it back before anybody sees it. Raises the database's error, or OSError where its disk is full."""
    on_file = connection.vendor == "sqlite" and not connection.in_atomic_block
    if on_file:
        # What is rolled back may never reach the disk.
        try_folder(Path(str(connection.settings_dict["NAME"])).parent)
        _wait(connection, _LOCK_MS)
    try:
        with transaction.atomic(using=connection.alias):
            Lease.objects.using(connection.alias).bulk_create([Lease(name=f"trial:{uuid.uuid4().hex}", expires_at=datetime.now(UTC))])
            transaction.set_rollback(True, using=connection.alias)
    except DatabaseError as error:
        # A table that is not there yet is no refusal: migrations are another matter.
        if not away.is_unmade(error):
            raise
    finally:
        if on_file and connection.connection is not None:
            _wait(connection, 1_000 * int(connection.settings_dict["OPTIONS"].get("timeout", 5)))


def _wait(connection: Any, most_ms: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {most_ms}")
