"""What the database of a soak looks like from outside, again and again: counts, sizes, dead rows, and how long a claim takes."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import psycopg

from delivery.engines import postgresql, sqlite
from jetrelay.bench import account, proc
from jetrelay.bench.account import Account

# As many as a lane claims at most of one endpoint, from its beginning: what a lane does when it looks back.
_MOST, _BEGINNING = 1000, (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
# The fastest of so many counts: what else the machine does is no news about the tables.
_CLAIMS = 5
QUEUE = "delivery_due"
TABLES = ("delivery_event", "delivery_delivery", "delivery_attempt")


@dataclass(frozen=True)
class Table:
    """Sizes in bytes; of the rows, those that are there and those that are dead and not yet vacuumed away."""

    table: int
    indexes: int
    live: int
    dead: int


@dataclass(frozen=True)
class Tables:
    """The database at one moment."""

    account: Account
    received: int
    stored: int
    delivered: int
    pending: int
    dead: int
    gaps: int
    # How long the oldest due delivery has waited.
    waited_s: float
    # The age of the oldest event; pruning is behind by what it is older than it is kept.
    oldest_s: float
    claim_ms: float
    # Pages that the claim looked at; None where the engine does not say.
    claim_blocks: int | None
    connections: int | None
    # The mean of the engine's own processes for these connections, in bytes; None where they cannot be seen.
    backend: int | None
    sizes: dict[str, Table] = field(default_factory=dict)


class Watch(ABC):
    """One connection to the database of the soak, kept for all samples."""

    endpoint: UUID

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s

    @abstractmethod
    def look(self, now: datetime) -> Tables:
        """All of it, the counts from one snapshot."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def one(self, sql: str, *values: Any) -> Sequence[Any]: ...

    @staticmethod
    def key(id: UUID) -> Any:
        return id

    @staticmethod
    def time(moment: datetime) -> Any:
        return moment

    def counts(self, now: datetime) -> dict[str, Any]:
        due = self.one("SELECT MIN(due_at) FROM delivery_delivery WHERE state = 0")[0]
        first = self.one("SELECT MIN(received_at) FROM (SELECT received_at FROM delivery_event ORDER BY id LIMIT 1) AS first")[0]
        received, stored = self.one("SELECT COALESCE(SUM(received), 0), COALESCE(SUM(stored), 0) FROM delivery_eventtally")
        return {
            "account": account.take(self.one, now, self.keep_s, self.key, self.time),
            "received": int(received),
            "stored": int(stored),
            "delivered": int(self.one("SELECT COALESCE(SUM(attempts), 0) FROM delivery_attempttally WHERE outcome = 'delivered'")[0]),
            "pending": self.one("SELECT COUNT(*) FROM delivery_delivery WHERE state = 0")[0],
            "dead": self.one("SELECT COUNT(*) FROM delivery_delivery WHERE state = 2")[0],
            "gaps": self.one("SELECT COUNT(*) FROM delivery_streamgap WHERE filled_by = ''")[0],
            "waited_s": _age_s(due, now),
            "oldest_s": _age_s(first, now),
        }


class PostgreSQLWatch(Watch):
    def __init__(self, url: str, keep_s: float) -> None:
        super().__init__(keep_s)
        self.connection = psycopg.connect(url, autocommit=True)
        self.endpoint = self.one("SELECT id FROM subscriptions_endpoint")[0]

    def look(self, now: datetime) -> Tables:
        self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        counts = self.counts(now)
        self.connection.execute("COMMIT")
        ms, blocks = self._claim(now)
        others = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        pids = [pid for (pid,) in self.connection.execute(f"SELECT pid {others}")]
        own = [seen.own for pid in pids if (seen := proc.backend(pid))]
        return Tables(
            **counts,
            claim_ms=ms,
            claim_blocks=blocks,
            connections=len(pids),
            backend=sum(own) // len(own) if own else None,
            sizes={name: self._size(name) for name in TABLES} | {QUEUE: self._queue(counts["pending"])},
        )

    def one(self, sql: str, *values: Any) -> Sequence[Any]:
        row = self.connection.execute(sql, values or None).fetchone()
        assert row is not None
        return row

    def close(self) -> None:
        self.connection.close()

    def _claim(self, now: datetime) -> tuple[float, int]:
        values = [[self.endpoint], [_MOST], [_BEGINNING[0]], [_BEGINNING[1]], now]
        found = [self.one(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {postgresql.CLAIM}", *values)[0][0] for _ in range(_CLAIMS)]
        plan = found[0]["Plan"]
        return min(each["Execution Time"] for each in found), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def _size(self, name: str) -> Table:
        sql = (
            "SELECT pg_table_size(relid), pg_indexes_size(relid), n_live_tup, n_dead_tup FROM pg_stat_user_tables"
            " WHERE relname = %s AND schemaname = current_schema()"
        )
        return Table(*self.one(sql, name))

    def _queue(self, pending: int) -> Table:
        """The index that claims go by: every delivery comes into it, and leaves it at once."""
        return Table(0, self.one("SELECT pg_relation_size(%s::regclass)", QUEUE)[0], pending, 0)


class SQLiteWatch(Watch):
    def __init__(self, url: str, keep_s: float) -> None:
        super().__init__(keep_s)
        self.path = Path(url.removeprefix("sqlite:///"))
        self.connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.endpoint = UUID(hex=self.one("SELECT id FROM subscriptions_endpoint")[0])

    def look(self, now: datetime) -> Tables:
        self.connection.execute("BEGIN")
        counts = self.counts(now)
        # Pages that pruning has freed are what stands here for dead rows.
        page, pages, free = (self.one(f"PRAGMA {name}")[0] for name in ("page_size", "page_count", "freelist_count"))
        self.connection.execute("COMMIT")
        sizes = {"file": Table(page * pages, 0, pages - free, free)}
        wal = self.path.with_name(f"{self.path.name}-wal")
        if wal.exists():
            sizes["wal"] = Table(wal.stat().st_size, 0, 0, 0)
        return Tables(**counts, claim_ms=self._claim(now), claim_blocks=None, connections=None, backend=None, sizes=sizes)

    def one(self, sql: str, *values: Any) -> Sequence[Any]:
        row: Sequence[Any] = self.connection.execute(sql.replace("%s", "?"), values).fetchone()
        return row

    def close(self) -> None:
        self.connection.close()

    @staticmethod
    def key(id: UUID) -> Any:
        return id.hex

    @staticmethod
    def time(moment: datetime) -> Any:
        return sqlite.as_text(moment)

    def _claim(self, now: datetime) -> float:
        values, took = [self.endpoint.hex, self.time(now), self.time(_BEGINNING[0]), _BEGINNING[1].hex, _MOST], []
        for _ in range(_CLAIMS):
            started = perf_counter()
            self.connection.execute(sqlite.CLAIM.replace("%s", "?"), values).fetchall()
            took.append((perf_counter() - started) * 1000)
        return min(took)


def watch(url: str, keep_s: float) -> Watch:
    return PostgreSQLWatch(url, keep_s) if url.startswith("postgres") else SQLiteWatch(url, keep_s)


def _age_s(value: Any, now: datetime) -> float:
    """Of a moment as a database gives it; 0 where there is none."""
    if value is None:
        return 0.0
    moment: datetime = datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value
    return max(0.0, (now - moment).total_seconds())
