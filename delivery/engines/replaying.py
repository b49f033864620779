"""What a replay holds while it works, and how it finds its way without reading whole tables. The engines differ in locks and planners."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connection


class Replaying(ABC):
    """Locks are kept until the caller's transaction ends. SQLite has none: there a writer is alone."""

    @staticmethod
    @abstractmethod
    def among(column: str, ids: Sequence[UUID]) -> tuple[str, list[Any]]: ...

    def hold_events(self, ids: Sequence[UUID]) -> set[UUID]:
        """Keep these events from being pruned. Returns those that are still here.

        For whoever adds deliveries to stored events: see `prune_events`. Two who do may hold one event at once.
        """
        return self._hold("delivery_event", ids, "FOR KEY SHARE")

    def hold_endpoints(self, ids: Sequence[UUID]) -> None:
        """Keep these endpoints as they are: one that is being deleted, paused or given an order waits, or is waited for."""
        self._hold("subscriptions_endpoint", ids, "FOR SHARE")

    def _hold(self, table: str, ids: Sequence[UUID], lock: str) -> set[UUID]:
        among, values = self.among("id", ids)
        # In the order of ids, as everyone who locks several.
        sql = f"SELECT id FROM {table} WHERE {among} ORDER BY id {lock if connection.features.has_select_for_update else ''}"
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return {id if isinstance(id, UUID) else UUID(hex=id) for (id,) in cursor.fetchall()}

    @contextmanager
    def index_only(self) -> Iterator[None]:
        """Answer the ORM's queries in this block from indexes alone. In a transaction.

        PostgreSQL prefers the primary key for the next rows of an endpoint that it takes for a big one, and reads every other
        endpoint's rows on the way. An index that holds all that is asked for is then the only plan left.
        """
        if connection.vendor != "postgresql":
            yield
            return
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; SET LOCAL jit = off")
        yield
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_indexscan TO DEFAULT")
