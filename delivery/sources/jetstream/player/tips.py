"""Where a cursor lies in a log: by position, the highest time and the highest number so far.

With values that go back and forth, the first position whose tip reaches a cursor lies at or before every event that
a client had not seen when the highest value it had seen was that cursor:

    position  0   1   2   3        a client that has read 0-2 saves the cursor 30;
    time_us   10  30  20  40       find(30) is 1: it sees 1 and 2 again, and 3
"""

from bisect import bisect_left

from delivery.sources.jetstream.player.stretch import Facts


class Tips:
    """Grows by one position at a time. It is ready to be read at a position as soon as `len` says that it is there."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._seqs: list[int] | None = None  # None as long as no line carries a number
        self.lowest_us: int | None = None

    def __len__(self) -> int:
        return len(self._times)

    @property
    def numbered(self) -> bool:
        return self._seqs is not None

    def append(self, facts: Facts) -> None:
        if self._seqs is not None:
            self._seqs.append(self._seqs[-1] if facts.seq is None else max(self._seqs[-1], facts.seq))
        elif facts.seq is not None:
            # Lines before the first that carries a number stand where it stands.
            self._seqs = [facts.seq] * (len(self._times) + 1)
        tip = self._times[-1] if self._times else 0
        self._times.append(tip if facts.time_us is None else max(tip, facts.time_us))
        if facts.time_us is not None:
            self.lowest_us = facts.time_us if self.lowest_us is None else min(self.lowest_us, facts.time_us)

    def find_time(self, time_us: int) -> int:
        return bisect_left(self._times, time_us)

    def find_seq(self, seq: int) -> int:
        """Lines that carry no numbers count from 1."""
        return max(0, min(seq - 1, len(self))) if self._seqs is None else bisect_left(self._seqs, seq)

    def time(self, position: int) -> int:
        """The highest time up to and including this position, in Unix µs; 0 when there was none."""
        return self._times[position]

    def seq(self, position: int) -> int:
        """The number at this position; after the last one, the next to be assigned."""
        if self._seqs is None:
            return position + 1
        return self._seqs[position] if position < len(self) else self._seqs[-1] + 1

    @property
    def seq_span(self) -> int:
        """By how much the numbers rise in one round of a loop."""
        return len(self) if self._seqs is None else self._seqs[-1] - self._seqs[0] + 1
