"""From where a host is asked to go on, and whether it did. Pure.

Hosts keep a day or two. Whoever asks for more is refused (v2, by number), told so (v2, by time) or not told at all
(v1), and goes on after a gap. A host whose archive was replaced counts its events anew: then a saved number means
nothing, and time takes its place.
"""

from dataclasses import dataclass

from delivery.sources.incoming import Incoming, moment
from delivery.sources.jetstream.frames_v2 import Info
from delivery.sources.jetstream.position import FIRST_TIME_US, OVERLAP_US, STEP_US, Position

# The least that hosts keep is 24 h. Younger than this, a narrow filter's silence is no gap.
_KEPT_US = 23 * 3_600_000_000
# Events further back than this, or ahead, are imported records: they say nothing about the stream.
_BACK_US = 3_600_000_000
_AHEAD_US = 300_000_000

# On a broad filter the first event lies before the last one that was read, give or take the disorder of a seam.
_BROAD_LEAP_US = 2 * OVERLAP_US

TOO_OLD = "the host no longer had what was asked for"
LEAPT = "the host went on later than it was asked to"


class Renumbered(Exception):
    """The saved number is of another archive than the host's."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of one host's stream that may be missing. In Unix µs of its clock."""

    from_us: int
    to_us: int
    reason: str

    def words(self) -> str:
        return f"{moment(self.from_us):%F %T} to {moment(self.to_us):%F %T} UTC"


class Resumption:
    """Judges what comes first on each connection."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._asked: int | None = None
        self._from_us: int | None = None
        self._furthest_us = 0
        self._key: bytes | None = None
        self._too_old = False
        self.judged = True

    def ask(self, no_later_us: int | None) -> int | None:
        """The cursor for the next connection, at most this time where it is one."""
        if no_later_us is not None and not self._position.numbered:
            self._position.go_back(no_later_us)
        self._asked = self._position.resume_at()
        self._from_us, self._furthest_us, self._key = self._position.reached_us, self._position.furthest_us, self._position.key
        self.judged = self._asked is None or self._from_us is None
        if self.judged:
            # Not known since when: there is nothing to hold against a later connection.
            self._too_old = False
        return self._asked

    def refused(self) -> None:
        """`CursorTooOld`: ask by time instead, which a host answers with the oldest it has."""
        self._too_old = True
        self._position.forget_number()

    def told(self, info: Info) -> None:
        """Raises Renumbered."""
        if info.name == "FutureCursor" and self._position.numbered:
            raise Renumbered
        if info.name == "OutdatedCursor":
            self._too_old = True

    def judge(self, event: Incoming, now_us: int, *, broad: bool) -> Gap | None:
        """Look at one of the first events. `broad`: a living host always has something to send. Raises Renumbered."""
        asked, from_us = self._asked, self._from_us
        if asked is None or from_us is None:
            self.judged = True
            return None
        # What was asked for, not what the position is by now: the first event may have made a number of it.
        if event.cursor is not None and asked < FIRST_TIME_US:
            # The number asked for belongs to the last event that was read, and comes back with it. Where it does not,
            # it is another archive's, or that event is no longer wanted or kept: a time leads there in any case.
            if event.cursor != asked or not self._is_the_same(event):
                raise Renumbered
            self.judged, self._too_old = True, False
            return None
        if not from_us - _BACK_US <= event.time_us <= max(now_us, from_us) + _AHEAD_US:
            return None
        return self._conclude(event.time_us, broad=broad, aged=now_us - from_us > _KEPT_US)

    def _is_the_same(self, event: Incoming) -> bool:
        return event.dedup_key == self._key if self._key else event.time_us <= self._furthest_us + STEP_US

    def nothing_came(self, until_us: int, now_us: int) -> Gap | None:
        """The host has nothing to send up to this time, or no longer has it."""
        if self.judged or self._from_us is None:
            return None
        return self._conclude(until_us, broad=False, aged=now_us - self._from_us > _KEPT_US)

    def _conclude(self, to_us: int, *, broad: bool, aged: bool) -> Gap | None:
        from_us, too_old = self._from_us, self._too_old
        self.judged, self._too_old = True, False
        if from_us is None or to_us <= from_us:
            return None
        if too_old:
            return Gap(from_us, to_us, TOO_OLD)
        # What was read last comes again, if it is kept. A narrow filter may have changed since, or have had nothing for long.
        leapt = to_us > from_us + (_BROAD_LEAP_US if broad else STEP_US)
        return Gap(from_us, to_us, LEAPT) if leapt and (broad or aged) else None
