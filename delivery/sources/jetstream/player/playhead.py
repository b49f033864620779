"""How far clients may read, and where a new one starts.

Without a rate the whole log is there: a client starts at its cursor, or at the beginning (of a live log: at its end),
and reads as fast as it can. With a rate there is one playhead for all clients of all hosts: it starts to move when the
first client joins, and that client has it from the beginning. Later ones join at the playhead, or at their cursor and
catch up to it at full speed, so a client that comes back with the last cursor it saved misses nothing.
"""

import sys
import time

from delivery.sources.jetstream.player.log import Log

_SHORTEST_WAIT_S = 0.005  # events closer together than this leave together


class Playhead:
    def __init__(self, log: Log, rate: float | None = None) -> None:
        self._log = log
        self._rate = rate
        self._began_s: float | None = None
        self._furthest = 0  # the furthest position that any client has read

    @property
    def has_live_tip(self) -> bool:
        """Whether events become due while clients are connected."""
        return bool(self._rate) or self._log.live

    def begin(self) -> bool:
        """A client has come. Returns whether it is the first one, with which the events begin to happen."""
        if not self._rate or self._began_s is not None:
            return False
        self._began_s = time.monotonic()
        return True

    def tip(self) -> int:
        """The position after the last event that has happened."""
        limit = self.limit()
        return limit if self._rate or self._log.end is not None else self._furthest

    def start(self, position: int | None, oldest: int) -> int:
        """Where a client starts that wants this position, or has no cursor: never before the oldest, never beyond the tip."""
        if position is None:
            return self.limit() if self.has_live_tip else oldest
        return max(oldest, min(position, self.tip()))

    def limit(self) -> int:
        """The position after the last event that may be read now."""
        end = sys.maxsize if self._log.end is None else self._log.end
        if not self._rate:
            return end
        limit = min(end, int((time.monotonic() - (self._began_s or time.monotonic())) * self._rate))
        self._log.extend(limit)
        return limit

    def wait_s(self, position: int) -> float | None:
        """How long until the event at this position may be read; None when there is no such event yet."""
        if not self._rate or self._began_s is None or position == self._log.end:
            return None
        due_s = self._began_s + (position + 1) / self._rate
        return max(due_s - time.monotonic(), _SHORTEST_WAIT_S)

    def passed(self, position: int) -> None:
        self._furthest = max(self._furthest, position)
