"""Where one host's stream has been read up to. Pure.

Hosts that number their events are resumed by that number, exactly. The others are resumed by time, and their clock
runs backwards across accounts, so the position is the highest time seen, not the last. A record may also bear a time
far ahead of the stream (jetstream.md): taken at its word, it would carry the cursor past a backlog that is still to
come. So a leap counts only once the stream itself has moved there.
"""

from delivery.sources.incoming import Incoming

# A cursor below this is a host's sequence number, not a time (jetstream.md).
FIRST_TIME_US = 10**15
# How far a resumed stream overlaps what was read before: events near each other in time may come in any order.
OVERLAP_US = 5_000_000
# A step forward up to this is taken at once; a longer one is a leap.
STEP_US = 60_000_000
# Events that lie further back than this (imported records) say nothing about where the stream is.
_BACK_US = 3_600_000_000
# A leap is believed after so many accounts in a row, or when nothing else has come for so long.
_LEAPERS = 3
_LEAP_US = 30_000_000


class Position:
    """The position of a reader; `None` until it has read something.

    `cursor` is what a connection resumes from: a sequence number, or Unix µs. `reached_us` is how far the stream's own
    clock has come.
    """

    def __init__(self, cursor: int | None = None, reached_us: int | None = None, key: bytes | None = None) -> None:
        self.cursor = cursor
        # The dedup key of the event with the number `cursor`: what comes under that number again has to be the same.
        self.key = key
        self.reached_us = cursor if reached_us is None and cursor is not None and cursor >= FIRST_TIME_US else reached_us
        # Set by `settle`: that there was nothing in between, an event from there disproves.
        self._settled_from_us: int | None = None
        self._leaps: list[tuple[int, str]] = []
        self._leaping_since_us = 0

    @property
    def numbered(self) -> bool:
        return self.cursor is not None and self.cursor < FIRST_TIME_US

    @property
    def known_us(self) -> int:
        """The highest time of an event that was read; what was settled beyond it was not."""
        return (self.reached_us if self._settled_from_us is None else self._settled_from_us) or 0

    @property
    def furthest_us(self) -> int:
        """The highest time read, leaps included."""
        return max(self.reached_us or 0, *(time_us for time_us, _ in self._leaps), 0)

    def advance(self, event: Incoming, now_us: int) -> None:
        """`now_us` is this machine's clock: no cursor lies beyond it, or a host would go on live and skip what lies between."""
        time_us, reached_us = event.time_us, self.reached_us
        if reached_us is None:
            self.reached_us = min(time_us, now_us)
        elif self._settled_from_us is not None and self._settled_from_us <= time_us:
            # The first event after silence, wherever it lies.
            self.reached_us, self._settled_from_us = min(time_us, max(now_us, reached_us)), None
        elif time_us <= reached_us + STEP_US:
            if time_us > reached_us:
                self.reached_us, self._settled_from_us = time_us, None
            if self._leaps and time_us > reached_us - _BACK_US:
                self._leaps.clear()
        else:
            self._leap(event, now_us)
        if event.cursor is not None and event.cursor < FIRST_TIME_US:
            # The last, not the highest: a host that counts anew starts low, and a lower number is always safe.
            self.cursor, self.key = event.cursor, event.dedup_key
        else:
            self.cursor = max(min(self.reached_us or 0, now_us), FIRST_TIME_US)

    def settle(self, time_us: int) -> None:
        """A quiet host has nothing before this time: go on from there."""
        if self.reached_us is None or time_us > self.reached_us:
            self._settled_from_us = self.reached_us or 0
            self.cursor = self.reached_us = time_us
            self._leaps.clear()

    def go_back(self, time_us: int) -> None:
        """Read again from this time, if that is before where it is."""
        if self.reached_us is not None and time_us < self.reached_us:
            self.cursor = self.reached_us = max(time_us, FIRST_TIME_US)
            self._settled_from_us = None
            self._leaps.clear()

    def forget_number(self) -> None:
        """The host's numbers are no longer those that were saved: resume by time."""
        if self.numbered:
            self.cursor = self.reached_us

    def resume_at(self) -> int | None:
        """The cursor to ask the host for. None: from now on."""
        if self.cursor is None or self.numbered:
            return self.cursor
        return max(self.cursor - OVERLAP_US, FIRST_TIME_US)

    def copy(self) -> "Position":
        return Position(self.cursor, self.reached_us, self.key)

    def _leap(self, event: Incoming, now_us: int) -> None:
        if not self._leaps:
            self._leaping_since_us = now_us
        # The same event read once more says nothing new.
        leap = event.time_us, event.subject
        self._leaps = [*(each for each in self._leaps[-15:] if each != leap), leap]
        while self._believes(now_us):
            self._leaps.sort()
            self.reached_us = reached_us = self._leaps[0][0]
            # What still lies far ahead of that has to show that it belongs together once more.
            self._leaps = [leap for leap in self._leaps if leap[0] > reached_us + STEP_US]

    def _believes(self, now_us: int) -> bool:
        accounts = len({subject for _, subject in self._leaps})
        return accounts >= _LEAPERS or (len(self._leaps) > 1 and now_us - self._leaping_since_us >= _LEAP_US)
