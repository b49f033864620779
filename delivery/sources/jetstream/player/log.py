"""Logs: events by position, 0, 1, 2 …, in the order in which they are served.

A log promises that `find(cursor)` lies at or before every event that a client had not seen when the highest time_us
it had seen was `cursor`, and `find_seq` the same for numbers; tips.py says how.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from delivery.sources.jetstream.player.copies import fresh_copy
from delivery.sources.jetstream.player.stretch import LENGTH, Stretch, facts_of
from delivery.sources.jetstream.player.tips import Tips

DEMO_HISTORY = 100_000  # events that a demo client's cursor can go back to
_COPIES_KEPT = 64  # stretches of later rounds kept for the clients that come next: about 40 MB
_MAX_ROUND_US = 24 * 3600 * 1_000_000  # one imported record from years ago must not move a round on by years
_PAUSE_US = 1_000_000  # between the last event of a round and the first of the next


class Log(Protocol):
    oldest: int  # the first position still there
    live: bool  # whether a client without a cursor starts at the end, though there is no rate

    @property
    def end(self) -> int | None:
        """The position after the last event; None when there is always another."""

    @property
    def numbered(self) -> bool:
        """Whether any line carries a number of its own."""

    def extend(self, upto: int) -> None:
        """Make the events before this position, if they are not there yet."""

    def find(self, cursor: int) -> int:
        """Where a client with this cursor in Unix µs starts, see above; the end when the cursor is beyond all events."""

    def find_seq(self, seq: int) -> int:
        """The same for a number: those that the lines carry, else 1, 2, 3 …"""

    def seq_at(self, position: int) -> int:
        """The number of the event at this position; at the end, the next to be assigned."""

    def time_at(self, position: int) -> int:
        """The highest time_us up to and including the event at this position, which must be there."""

    def at(self, position: int) -> tuple[Stretch, int]:
        """The stretch that holds this position, and the index in it."""

    def first_lines(self, count: int) -> list[bytes]:
        """So many of the first events that are there, or all of them."""

    def watch(self, grown: Callable[[], None]) -> Callable[[], None]:
        """Call this, in any thread, whenever the log has grown by itself. Returns what ends it."""


class FileLog:
    """The lines of some files; with loop, followed by round after round of fresh copies of them.

    Every round is a pure function of its number, so any cursor of any round can be replayed. Lines are kept byte for
    byte without their newline; empty lines are no events. A line may be of the v1 or of the v2 wire.
    """

    oldest = 0
    live = False

    def __init__(self, lines: Iterable[bytes] = (), loop: bool = False) -> None:
        self._loop = loop
        self._stretches: list[Stretch] = []
        self._tips = Tips()
        for line in lines:
            self._append(line)
        self._round_us = self._duration_us()
        self._copies = lru_cache(_COPIES_KEPT)(self._copy)

    @classmethod
    def read(cls, paths: Iterable[Path], loop: bool = False) -> "FileLog":
        """The log of these NDJSON files, one after the other. Raises OSError."""
        return cls((line for path in paths for line in _lines(path)), loop)

    def __len__(self) -> int:
        return len(self._tips)

    @property
    def end(self) -> int | None:
        return None if self._loop else len(self)

    @property
    def numbered(self) -> bool:
        return self._tips.numbered

    def extend(self, upto: int) -> None:
        pass

    def find(self, cursor: int) -> int:
        rounds = max(0, -((self._tips.time(-1) - cursor) // self._round_us)) if self._loop else 0
        return rounds * len(self) + self._tips.find_time(cursor - rounds * self._round_us)

    def find_seq(self, seq: int) -> int:
        span = self._tips.seq_span if self._loop else 0
        rounds = max(0, (seq - self._tips.seq(0)) // span) if self._loop else 0
        return rounds * len(self) + self._tips.find_seq(seq - rounds * span)

    def seq_at(self, position: int) -> int:
        if not self._loop:
            return self._tips.seq(position)
        rounds, within = divmod(position, len(self))
        return self._tips.seq(within) + rounds * self._tips.seq_span

    def time_at(self, position: int) -> int:
        rounds, within = divmod(position, len(self))
        return self._tips.time(within) + rounds * self._round_us

    def at(self, position: int) -> tuple[Stretch, int]:
        round_, within = divmod(position, len(self))
        number, index = divmod(within, LENGTH)
        return (self._copies(round_, number) if round_ else self._stretches[number]), index

    def first_lines(self, count: int) -> list[bytes]:
        return [self._stretches[position // LENGTH].line(position % LENGTH) for position in range(min(count, len(self)))]

    def watch(self, grown: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def _append(self, line: bytes) -> None:
        facts = facts_of(line)
        if len(self) % LENGTH == 0:
            self._stretches.append(Stretch())
        self._stretches[-1].append(line, facts)
        # Last, because it is what makes the event visible.
        self._tips.append(facts)

    def _duration_us(self) -> int:
        if self._tips.lowest_us is None:
            return _PAUSE_US
        return min(self._tips.time(-1) - self._tips.lowest_us, _MAX_ROUND_US) + _PAUSE_US

    def _copy(self, round_: int, number: int) -> Stretch:
        copy = Stretch()
        for line in self._stretches[number].lines():
            line = fresh_copy(line, round_ * self._round_us, round_ * self._tips.seq_span)
            copy.append(line, facts_of(line))
        return copy


class DemoLog:
    """Made-up events without end, `rate` a second from the first `extend` on. The last `history` are kept.

    Event k is due (k + 1) / rate seconds after the beginning and bears that instant as its time_us, whenever it is
    made: times are unique and rise, and a client that was away finds the events of its absence where they belong.
    """

    end = None
    live = False
    numbered = False

    def __init__(self, make: Callable[[int], bytes], rate: float, history: int = DEMO_HISTORY) -> None:
        self.oldest = 0
        self._make = make
        self._rate = rate
        self._history = history
        self._began_us: int | None = None
        self._made = 0
        self._stretches: deque[Stretch] = deque()

    def extend(self, upto: int) -> None:
        if self._began_us is None:
            self._began_us = time.time_ns() // 1_000
        if upto - self._made > self._history:
            # Nobody has listened for longer than the history goes back: the events in between never happened.
            self._stretches.clear()
            self.oldest = self._made = upto - self._history
        for position in range(self._made, upto):
            self._append(self._make(self.time_at(position)))
        while self._made - self.oldest >= self._history + LENGTH:
            self._stretches.popleft()
            self.oldest += LENGTH

    def find(self, cursor: int) -> int:
        kept = range(self.oldest, self._made)
        return self.oldest + bisect_left(kept, cursor, key=self.time_at)

    def find_seq(self, seq: int) -> int:
        return max(self.oldest, min(seq - 1, self._made))

    def seq_at(self, position: int) -> int:
        return position + 1

    def time_at(self, position: int) -> int:
        return (self._began_us or 0) + int((position + 1) * 1_000_000 / self._rate)

    def at(self, position: int) -> tuple[Stretch, int]:
        number, index = divmod(position - self.oldest, LENGTH)
        return self._stretches[number], index

    def first_lines(self, count: int) -> list[bytes]:
        return [line for stretch in self._stretches for line in stretch.lines()][:count]

    def watch(self, grown: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def _append(self, line: bytes) -> None:
        if (self._made - self.oldest) % LENGTH == 0:
            self._stretches.append(Stretch())
        self._stretches[-1].append(line, facts_of(line))
        self._made += 1


def _lines(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line := line.removesuffix(b"\n"):
                yield line
