"""Where one host's stream has been read up to. Pure.

A host's clock runs backwards across accounts, so the position is the highest time seen, not the last; and a record
with a time in the future must not carry it past the tip, from where a host would go on live and skip what lies
between. Hosts that number their events (`cursor` in the frame) are resumed by that number, exactly.
"""

from delivery.sources.incoming import Incoming

# A cursor below this is a host's sequence number, not a time (jetstream.md).
_FIRST_TIME_US = 10**15
# How far a resumed stream overlaps what was read before: events near each other in time may come in any order.
OVERLAP_US = 5_000_000


class Position:
    """The position of a reader; `None` until it has read something."""

    def __init__(self, cursor: int | None = None) -> None:
        self.cursor = cursor

    def advance(self, event: Incoming, now_us: int) -> None:
        if event.cursor is not None and event.cursor < _FIRST_TIME_US:
            numbered = self.cursor is not None and self.cursor < _FIRST_TIME_US
            self.cursor = max(self.cursor or 0, event.cursor) if numbered else event.cursor
        else:
            self.cursor = max(self.cursor or 0, min(event.time_us, now_us))

    def resume_at(self) -> int | None:
        """The cursor to ask the host for. None: from now on."""
        if self.cursor is None or self.cursor < _FIRST_TIME_US:
            return self.cursor
        return self.cursor - OVERLAP_US
