"""A log as one host serves it on one wire: with its own clock, its own numbers, compressed or not.

The plain case costs nothing: v1 lines with nothing to change are the frames that the log holds already. Everything
else is made a stretch at a time when a client first reads it, and kept for the clients that come next.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol
from zlib import crc32

from delivery.sources.jetstream.player.dictionaries import Dictionary
from delivery.sources.jetstream.player.log import Log
from delivery.sources.jetstream.player.stretch import BINARY, Facts, Stretch, frame
from delivery.sources.jetstream.player.wires import Event, NoEvent, parse, to_v1, to_v2

_STRETCHES_KEPT = 64  # about 40 MB


class Terms(NamedTuple):
    """What a host makes of a log. Two connections with the same terms share their frames."""

    wire: int = 1
    first_seq: int | None = None
    number: bool = False
    skew_us: int = 0
    jitter_us: int = 0
    odd_time_every: int = 0
    odd_time_by_us: int = 0

    @property
    def changes_nothing(self) -> bool:
        """Whether a v1 line is served as it stands."""
        return self._replace(odd_time_by_us=0) == Terms()

    def seq(self, position: int, own: int | None) -> int:
        """The number of the event at this position, when the line itself carries `own`."""
        if self.first_seq is not None:
            return self.first_seq + position
        return position + 1 if own is None else own

    def seq_at(self, log: Log, position: int) -> int:
        return log.seq_at(position) if self.first_seq is None else self.first_seq + position

    def find_seq(self, log: Log, seq: int) -> int:
        return log.find_seq(seq) if self.first_seq is None else max(0, seq - self.first_seq)

    def time_us(self, event: Event, position: int) -> int:
        time_us = event.time_us + self.skew_us
        if self.jitter_us:
            # By the DID: a subject's own events keep their distances.
            time_us -= crc32(bytes(event.members["did"])) % (self.jitter_us + 1)
        if self.odd_time_every and (position + 1) % self.odd_time_every == 0:
            time_us += self.odd_time_by_us
        return time_us

    def render(self, line: bytes, position: int) -> bytes | None:
        """The line on this wire; None for what it does not have. What is no event stays as it is."""
        event = parse(line)
        if isinstance(event, NoEvent):
            return None if self.wire == 1 and event is NoEvent.FOR_V2 else line
        seq, time_us = self.seq(position, event.seq), self.time_us(event, position)
        shows_number = self.wire == 2 or self.number or event.seq is not None
        if event.wire == self.wire and time_us == event.time_us and (seq == event.seq or not shows_number):
            return line
        try:
            return to_v1(event, time_us, seq if shows_number else None) if self.wire == 1 else to_v2(event, time_us, seq)
        except OverflowError:
            return line  # there is no such year


class Readable(Protocol):
    """Where a connection reads its frames."""

    def at(self, position: int) -> tuple[Stretch, int]:
        """The stretch that holds this position, and the index in it."""


class _Made:
    """Stretches made from those of a source, one for one; what has grown at the source grows here."""

    def __init__(self, source: Readable, add: Callable[[Stretch, Stretch, int, int], None]) -> None:
        self._source = source
        self._add = add
        self._kept: OrderedDict[int, Stretch] = OrderedDict()

    def at(self, position: int) -> tuple[Stretch, int]:
        source, index = self._source.at(position)
        start = position - index
        made = self._kept.get(start)
        if made is None:
            made = self._kept[start] = Stretch()
            if len(self._kept) > _STRETCHES_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(start)
        for number in range(len(made), len(source)):
            self._add(made, source, number, start + number)
        return made, index


class Edition:
    """The log on one wire, as text frames."""

    def __init__(self, log: Log, terms: Terms) -> None:
        self._log = log
        self._terms = terms
        self._made = _Made(log, self._add)

    def at(self, position: int) -> tuple[Stretch, int]:
        if self._terms.changes_nothing:
            source, index = self._log.at(position)
            if source.is_v1:
                return source, index
        return self._made.at(position)

    def _add(self, made: Stretch, source: Stretch, index: int, position: int) -> None:
        facts, line = source.facts(index), self._terms.render(source.line(index), position)
        if line is None:
            made.append_frame(b"", 0, Facts())
        else:
            made.append(line, facts)


class Compressed:
    """An edition as binary frames, each one zstd frame of the text. Sizes are still those of the text."""

    def __init__(self, edition: Edition, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._made = _Made(edition, self._add)

    def at(self, position: int) -> tuple[Stretch, int]:
        return self._made.at(position)

    def _add(self, made: Stretch, source: Stretch, index: int, position: int) -> None:
        line = source.line(index)
        made.append_frame(frame(self._dictionary.compress(line), BINARY) if line else b"", len(line), source.facts(index))
