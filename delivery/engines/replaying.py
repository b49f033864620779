"""What a replay holds while it works, and how it finds its way without reading whole tables. The engines differ in locks and planners."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connection

_BY_ROWS = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL seq_page_cost = 0; SET LOCAL random_page_cost = 0"
_AS_EVER = "; ".join(f"SET LOCAL {name} TO DEFAULT" for name in ("enable_bitmapscan", "enable_sort", "seq_page_cost", "random_page_cost"))


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
    def walking(self) -> Iterator[None]:
        """Answer the ORM's queries in this block along the index that has the fewest rows to read. In a transaction.

        PostgreSQL counts pages. It prefers the primary key for the next rows of an endpoint that it takes for a big one, and reads
        the rows of every other endpoint on the way, which may be millions. Where pages are free, it counts rows.
        """
        if connection.vendor != "postgresql":
            yield
            return
        with connection.cursor() as cursor:
            # Whole tables stay out of the question until the transaction ends.
            cursor.execute(f"SET LOCAL enable_seqscan = off; SET LOCAL jit = off; {_BY_ROWS}")
        yield
        with connection.cursor() as cursor:
            cursor.execute(_AS_EVER)
