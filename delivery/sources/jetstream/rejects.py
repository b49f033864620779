"""Frames that were no events: counted all, kept the last of them, and named in the log now and then."""

import logging
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from delivery.sources.jetstream.frames import one_line

logger = logging.getLogger(__name__)

# So many are held between two batches; of each, so many bytes.
MAX_KEPT = 1000
MAX_HEAD = 4096
# Of a host that sends garbage, one frame in so many seconds stands in the log.
COMPLAIN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Reject:
    """One frame that was no event. `size` is that of the whole frame, in bytes."""

    host: str
    at: datetime
    reason: str
    size: int
    head: bytes


class Rejects:
    """What one host sent in vain. The reading thread adds, the storing thread takes."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._kept: deque[Reject] = deque(maxlen=MAX_KEPT)
        self._count = self._taken = self._named = 0
        self._name_at = 0.0
        # Taken, and not in the host's row yet; kept by the thread that stores.
        self.unshown = 0

    def add(self, frame: bytes, reason: str) -> None:
        self._kept.append(Reject(self._host, datetime.now(UTC), reason, len(frame), frame[:MAX_HEAD]))
        self._count += 1
        if monotonic() >= self._name_at:
            unsaid = self._count - self._named - 1
            self._name_at, self._named = monotonic() + COMPLAIN_EVERY_S, self._count
            more = f" ({unsaid} more since the last line)" if unsaid else ""
            logger.warning("%s: rejected a frame: %s: %.200r%s", self._host, one_line(reason), frame[:200], more)

    def count(self) -> int:
        """How many there were since the last call."""
        count = self._count
        new, self._taken = count - self._taken, count
        self.unshown += new
        return new

    def take(self) -> list[Reject]:
        """The last of those since the last call."""
        return [self._kept.popleft() for _ in range(len(self._kept))]
