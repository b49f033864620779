"""The stand-in: a worker that hears nothing looks for due work itself.

Wakes and sweeps come through the broker. While that is away, or beat is, or Celery is still waiting to connect again,
lanes that have an owner go on; those that are free would stand still until it is back. The database is the queue, so a
worker needs neither to know what is due.
"""

import logging
import threading
from time import monotonic

from django.db import DatabaseError, InterfaceError, connection

from delivery import lanes
from delivery.tenure import GRACE_S, stopping

logger = logging.getLogger(__name__)

# Beat asks for a sweep every second. One worker of several gets each, so that some seconds without are no news.
PATIENCE_S = 5.0
EVERY_S = 1.0


class StandIn:
    """Sweeps on a thread of its own while nothing is heard from the broker."""

    def __init__(self, patience_s: float = PATIENCE_S, every_s: float = EVERY_S) -> None:
        self._patience_s, self._every_s = patience_s, every_s
        self._heard_at = monotonic()
        self._drains: dict[int, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, name="stand-in", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hear(self) -> None:
        """Somebody asked this worker for something."""
        self._heard_at = monotonic()

    def join(self) -> None:
        """Wait until what it drains is settled, once `stopping` is set."""
        if self._thread.is_alive():
            self._thread.join(self._every_s + GRACE_S)
        for drain in self._drains.values():
            drain.join(GRACE_S)

    def _run(self) -> None:
        standing_in = False
        while not stopping.wait(self._every_s):
            silent = monotonic() - self._heard_at > self._patience_s
            if silent and not standing_in:
                logger.warning("No sweep has come for %.0f s: is the broker there, and beat? This worker looks for due deliveries itself.", self._patience_s)
            standing_in = silent
            if silent:
                self._sweep()
        connection.close()

    def _sweep(self) -> None:
        try:
            for lane in lanes.lanes_due():
                if lane not in self._drains or not self._drains[lane].is_alive():
                    self._drains[lane] = threading.Thread(target=_drain, args=[lane], name=f"stand-in, lane {lane}", daemon=True)
                    self._drains[lane].start()
        except (DatabaseError, InterfaceError):
            connection.close()  # the next look makes another


def _drain(lane: int) -> None:
    try:
        while lanes.drain(lane):
            pass
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Lane %d has to wait: %s", lane, str(error).strip())
    finally:
        connection.close()
