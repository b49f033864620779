"""The oldest due delivery of each of some endpoints, found without passing each time what was settled before it.

Who asks once a second, or for each page, would pass all entries of settled deliveries that nobody could clean up yet. So where looking from
the beginning takes long, this goes on from where the last one was found, and from the beginning only now and then.
"""

import threading
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from uuid import UUID

from delivery.claims import BEGINNING, Position, behind
from delivery.engines import engine
from delivery.engines.base import Want
from delivery.looking_back import RECENT

# A look from the beginning that takes longer is followed by a rest from such looks, for so many times as long.
LONG_S = 0.05
REST_FACTOR = 60


class FirstDue:
    """What one process knows of it. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standings: dict[UUID, Position] = {}
        self._whole_at = float("-inf")

    def among(self, endpoints: Iterable[UUID], now: datetime) -> dict[UUID, datetime]:
        """Since when each endpoint's oldest due delivery is due; those that have none are not in it."""
        chosen = list(endpoints)
        if not chosen:
            return {}
        whole = monotonic() >= self._whole_at
        with self._lock:
            since = {} if whole else {id: self._standings[id] for id in chosen if id in self._standings}
        began = monotonic()
        found = {due.endpoint_id: due.due_at for due in engine().claim([Want(id, 1, *since.get(id, BEGINNING)) for id in chosen], now)}
        took_s = monotonic() - began
        with self._lock:
            self._standings |= {id: behind(found.get(id, now - RECENT)) for id in chosen}
            if whole:
                self._whole_at = began + took_s * (REST_FACTOR if took_s > LONG_S else 0)
        return found


first_due = FirstDue()
