"""The throttle: who takes much of a processor rests in between, while others have something small to do.

Shares (`shares.py`) bound how much of a fixed-size thing somebody holds. Processors are taken by the moment, and who keeps one busy
makes whoever comes next wait, at each of a dozen steps from a post to its delivery. So a process counts how long it works for each
tenant. One for which it worked for more than a quarter of the last second is busy. Beside another one that posts or receives, for which it
worked a third of that or less, the busy one is served in small pieces, and rests after each, for REST_FACTOR times as long as it took.
A tenant that is alone never rests, nor do busy ones among themselves.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from math import exp
from time import monotonic

# For more than this of the last second: busy.
BUSY_S = 0.25
# After a piece of work, rest for so many times as long; and for no longer than this.
REST_FACTOR = 2.0
MOST_REST_S = 1.0
# Somebody who has posted or received within this is there. Of those, so many that came last are looked at.
PRESENT_S = 3.0
_LOOKED_AT = 8
# They have little to do beside one who has more than so many times as much.
LITTLE = 3
# Those that are remembered at once.
_MOST = 10_000
# About what a small piece of work takes: whoever comes meanwhile waits for that long.
PIECE_S = 0.01


class Cost:
    """What one of something has cost of late: a delivery, or a row. The last `memory` of them count for most."""

    def __init__(self, one_s: float, memory: int) -> None:
        self._one_s, self._memory = one_s, memory

    def learn(self, number: int, took_s: float) -> None:
        """So many took so long together."""
        if number:
            self._one_s += (took_s / number - self._one_s) * min(1.0, number / self._memory)

    @property
    def piece(self) -> int:
        """How many make a small piece of work."""
        return int(PIECE_S / self._one_s)


class Throttle:
    """How long one part of this process has worked for each of late. Thread-safe.

    `beside` is the part that knows who is there, if it is another one.
    """

    def __init__(self, beside: "Throttle | None" = None) -> None:
        self._beside = beside or self
        self._lock = threading.Lock()
        # How long it worked for each in the last second, about; and as of when that is.
        self._worked: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        # Who is there, and when they came last.
        self._present: OrderedDict[Hashable, float] = OrderedDict()
        # Until when each rests.
        self._rests: dict[Hashable, float] = {}

    def came(self, who: Hashable) -> None:
        """Count them as somebody who posts or receives now."""
        with self._lock:
            self._present[who] = monotonic()
            self._present.move_to_end(who)
            if len(self._present) > _MOST:
                self._present.popitem(last=False)

    def worked(self, who: Hashable, seconds: float) -> None:
        """Count work that was done for them. It may be time for a rest."""
        now = monotonic()
        with self._lock:
            self._worked[who] = self._of_late(who, now) + seconds, now
            self._worked.move_to_end(who)
            if len(self._worked) > _MOST:
                self._rests.pop(self._worked.popitem(last=False)[0], None)
        if self.slows(who):
            rest_s = max(self._rests.get(who, 0.0) - now, 0.0) + seconds * REST_FACTOR
            self._rests[who] = now + min(rest_s, MOST_REST_S)

    def rest_s(self, who: Hashable) -> float:
        """How long they have to rest from now on."""
        if (until := self._rests.get(who)) is None:
            return 0.0
        if (left_s := until - monotonic()) > 0:
            return left_s
        self._rests.pop(who, None)
        return 0.0

    def slows(self, who: Hashable) -> bool:
        """Whether they are busy beside somebody who has little to do."""
        now = monotonic()
        mine = self._of_late(who, now)
        return mine >= BUSY_S and any(its * LITTLE < mine for its in self._beside.of_others(who, now))

    def of_others(self, who: Hashable, now: float) -> Iterator[float]:
        """How long it worked of late for others who are there."""
        with self._lock:
            newest = [each for each, _ in zip(reversed(self._present), range(_LOOKED_AT), strict=False)]
        for each in newest:
            if each != who and now - self._present.get(each, 0.0) < PRESENT_S:
                yield self._of_late(each, now)

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._worked.clear()
            self._present.clear()
            self._rests.clear()

    def _of_late(self, who: Hashable, now: float) -> float:
        of_late, at = self._worked.get(who, (0.0, now))
        return of_late * exp(at - now)
