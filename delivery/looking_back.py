"""Where to look below the place that claims have come to, and how often. Pure.

Claims go on where the last one ended, because what lies below may cost a lot to pass: a session that is idle in a transaction keeps every
row that was settled since it began from being cleaned up, and their entries stay in the index, a thousand a second and more.

But something may be due down there: a commit that came late, a replay, a row by a clock that is behind. So all of it is looked through again
and again: in one go while that costs little, else slice by slice, from now backwards, each as wide as takes a moment, and with rests.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

# Before everything.
DAWN = datetime.min.replace(tzinfo=UTC)
# How often all is looked through, while that costs little.
EVERY_S = 1.0
# What a look may take at about, and for how many times as long it rests after a slice.
SLICE_S = 0.05
REST_FACTOR = 20
# Most of what comes late comes so late: this is looked through every second, whatever the rest costs.
RECENT = timedelta(seconds=5)
# On a machine that is busy with other things every look takes long: narrower slices would never come down to the first.
_FIRST_WIDTH, _LEAST_WIDTH, _MOST_WIDTH = timedelta(minutes=10), timedelta(seconds=30), timedelta(days=3650)


class Slice(NamedTuple):
    """What is due from one moment to another."""

    since: datetime
    until: datetime


@dataclass
class LookingBack:
    # None: everything at once.
    width: timedelta | None = None
    # Down to where this round has come; None: it begins at the present.
    top: datetime | None = None
    next_at: float = float("-inf")
    recent_at: float = float("-inf")
    slice: Slice | None = None

    @property
    def is_cheap(self) -> bool:
        """Whether all that is there can be looked through at once."""
        return self.width is None

    def next(self, now: datetime, at_s: float) -> Slice | None:
        """What to look through now, if anything; `took` is to be told. `at_s` is on the monotonic clock."""
        if at_s >= self.next_at:
            top = self.top or now
            self.slice = Slice(_before(top, self.width), top)
        elif self.top and at_s - self.recent_at >= EVERY_S:
            self.recent_at = at_s
            return Slice(now - RECENT, now)
        else:
            return None
        return self.slice

    def took(self, looked: Slice, seconds: float, at_s: float) -> None:
        """How long it took to look through the last slice."""
        if looked is not self.slice:
            return
        over = looked.since == DAWN
        self.top = None if over else looked.since
        if seconds > SLICE_S:
            self.width = max((self.width or 2 * _FIRST_WIDTH) / 2, _LEAST_WIDTH)
        elif self.width and seconds < SLICE_S / 4:
            self.width = self.width * 2 if self.width < _MOST_WIDTH else None
        self.next_at = at_s + max(seconds * REST_FACTOR, EVERY_S if over else 0.0)


def _before(moment: datetime, width: timedelta | None) -> datetime:
    return moment - width if width and moment - DAWN > width else DAWN
