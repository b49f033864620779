"""What one connection does to its events, when its host was told to misbehave: event by event, by count.

garbage and duplicates   every Nth event of the connection
the seam                 the N events of the log around the point where a replay meets the live tip:

    position   … 96 97 98 99 | 100 101 102 …      the tip was at 100 when the client came with a cursor;
    drop 2     … 96 97 98          101 102 …      reorder 4 sends 98-101 as 101 100 99 98
"""

from delivery.sources.jetstream.player.garbage import damaged, malformed
from delivery.sources.jetstream.player.host import Admission, Host
from delivery.sources.jetstream.player.misbehaviour import Misbehaviour

_NOWHERE = range(0)


class Conduct:
    """Counts what a connection has been sent as long as it matters."""

    def __init__(self, host: Host, admission: Admission) -> None:
        self._admission = admission
        self._sent = 0
        self._silenced_by: Misbehaviour | None = None
        self._dropped = self._around(host.misbehaviour.seam_drop)
        self._reordered = self._around(host.misbehaviour.seam_reorder)
        self._held: list[bytes] = []

    def is_careful(self, wrong: Misbehaviour, position: int) -> bool:
        """Whether events go through `mangle` one by one. Otherwise they need not be counted."""
        return wrong.touches_events or position < self._reordered.stop or position < self._dropped.stop

    def next_edge(self, position: int) -> int:
        """Where the reordered part begins or ends next: a chunk must not go across."""
        later = [edge for edge in (self._reordered.start, self._reordered.stop) if edge > position]
        return later[0] if later else position + 1_000_000

    def falls_silent(self, wrong: Misbehaviour) -> bool:
        """Whether it is time for a silence. Says so once for each."""
        if self._silenced_by is wrong or not self._due(wrong.silence_after, wrong.silence_connections):
            return False
        self._silenced_by = wrong
        return True

    def leaves(self, wrong: Misbehaviour) -> bool:
        return self.aborts(wrong) or self._due(wrong.close_after, wrong.close_connections)

    def aborts(self, wrong: Misbehaviour) -> bool:
        return self._due(wrong.abort_after, wrong.abort_connections)

    def mangle(self, wrong: Misbehaviour, chosen: list[tuple[int, bytes]], offset: int, last: int) -> tuple[bytes, int]:
        """The bytes to send for these frames, given with their indices; `offset` makes an index a position.

        Returns them with the index to go on at: `last`, or an earlier one when it is time to be silent or to leave.
        """
        data: list[bytes] = []
        for index, frame in chosen:
            position = index + offset
            if position in self._dropped:
                continue
            if position in self._reordered:
                self._held.append(frame)
                continue
            data += self._event(wrong, frame)
            if self._pauses(wrong):
                return b"".join(data), index + 1
        if last + offset >= self._reordered.stop:
            while self._held:
                data += self._event(wrong, self._held.pop())
        return b"".join(data), last

    def _event(self, wrong: Misbehaviour, frame: bytes) -> list[bytes]:
        self._sent += 1
        compress = self._admission.dictionary.compress if self._admission.dictionary else None
        pieces = []
        if _is_nth(self._sent, wrong.garbage_every):
            pieces.append(malformed(self._sent // (wrong.garbage_every or 1) - 1, self._admission.wire, compress))
        if compress and _is_nth(self._sent, wrong.damage_every):
            frame = damaged(frame, self._sent // (wrong.damage_every or 1) - 1)
        pieces += [frame] * (2 if _is_nth(self._sent, wrong.duplicate_every) else 1)
        return pieces

    def _pauses(self, wrong: Misbehaviour) -> bool:
        silent = self._silenced_by is not wrong and self._due(wrong.silence_after, wrong.silence_connections)
        return silent or self.leaves(wrong)

    def _due(self, after: int | None, connections: int | None) -> bool:
        return after is not None and self._sent >= after and (connections is None or self._admission.number <= connections)

    def _around(self, count: int | None) -> range:
        """So many positions around the one where this connection's replay meets the live tip."""
        tip = self._admission.caught_up_at
        if not count or tip is None:
            return _NOWHERE
        return range(max(tip - (count + 1) // 2, self._admission.position), tip + count // 2)


def _is_nth(number: int, every: int | None) -> bool:
    return every is not None and number % every == 0
