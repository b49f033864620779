"""One host: its clock, numbers and misbehaviour, its connections so far, and where a client's cursor lies on it."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delivery.sources.jetstream.player.dictionaries import Dictionaries, Dictionary
from delivery.sources.jetstream.player.edition import Compressed, Edition, Readable, Terms
from delivery.sources.jetstream.player.log import Log
from delivery.sources.jetstream.player.misbehaviour import SEQ_LIMIT, HostOptions, Misbehaviour
from delivery.sources.jetstream.player.options import Request
from delivery.sources.jetstream.player.playhead import Playhead
from delivery.sources.jetstream.player.subscription import XrpcError
from delivery.sources.jetstream.player.wires import info_frame

if TYPE_CHECKING:
    from delivery.sources.jetstream.player.connection import HostConnection

V1_PATH = "/subscribe"
V2_PATH = "/xrpc/network.bsky.jetstream.subscribeEvents"
DICTIONARY_PATH = "/xrpc/network.bsky.jetstream.getZstdDictionary"


class Bell:
    """Wakes those who wait for anything to change. To miss nothing, take `next` before looking at what may change."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def ring(self) -> None:
        rung, self.next = self.next, asyncio.Event()
        rung.set()


@dataclass(frozen=True)
class Admission:
    """A request that was let in: where it starts, and what its frames are made like. `number` counts from 1."""

    request: Request
    wire: int
    number: int
    position: int
    frames: Readable
    dictionary: Dictionary | None = None
    notice: bytes | None = None  # a text frame to go before all others
    caught_up_at: int | None = None  # where a replay meets the live tip; None without a replay

    def encode(self, text: bytes) -> bytes:
        """The payload of a message that is not in the log."""
        return self.dictionary.compress(text) if self.dictionary else text


class Host:
    """`handshakes` counts all requests to subscribe so far, `connections` those that were let in."""

    def __init__(self, log: Log, playhead: Playhead, dictionaries: Dictionaries, options: HostOptions) -> None:
        self.log = log
        self.playhead = playhead
        self.dictionaries = dictionaries
        self.options = options
        self.address = "127.0.0.1"
        self.port = 0
        self.handshakes = 0
        self.connections = 0
        self.open: set[HostConnection] = set()
        self.bell = Bell()
        self._since_s = time.monotonic()
        self._misbehaviour = options.misbehaviour
        self._editions: dict[tuple[Terms, int | None], Readable] = {}

    @property
    def v1(self) -> str:
        """The URL of the v1 wire."""
        return f"ws://{self._authority}{V1_PATH}"

    @property
    def v2(self) -> str:
        return f"ws://{self._authority}{V2_PATH}"

    @property
    def misbehaviour(self) -> Misbehaviour:
        return self._misbehaviour

    @misbehaviour.setter
    def misbehaviour(self, misbehaviour: Misbehaviour) -> None:
        """In the server's thread. What counts events holds for open connections at once, what changes them for new ones."""
        self._misbehaviour = misbehaviour
        self._since_s = time.monotonic()
        self.bell.ring()

    def has_lasted(self, seconds: float) -> bool:
        """Whether it has misbehaved in this way for so long."""
        return time.monotonic() - self._since_s >= seconds

    def count_handshake(self) -> int:
        """The number of the handshake that begins now, from 1 on."""
        self.handshakes += 1
        self.bell.ring()
        return self.handshakes

    def refuses(self, handshake: int) -> bool:
        wrong = self._misbehaviour
        first = wrong.refuse_connections is not None and handshake <= wrong.refuse_connections
        return first or (wrong.refuse_for_s is not None and not self.has_lasted(wrong.refuse_for_s))

    def withheld(self, connection: int) -> str | None:
        """The collection that this connection does not get now."""
        wrong = self._misbehaviour
        if connection < (wrong.withhold_from or 1) or (wrong.withhold_for_s is not None and self.has_lasted(wrong.withhold_for_s)):
            return None
        return wrong.withhold

    def abort_all(self) -> None:
        """End all connections without a close frame, the half-made ones too."""
        for connection in list(self.open):
            connection.transport.abort()

    def admit(self, request: Request, wire: int, dictionary: Dictionary | None) -> Admission:
        """Let a client in, as the next connection. Raises XrpcError (CursorTooOld) on v2."""
        first = self.playhead.begin()
        terms = self._terms(wire, self.connections + 1)
        notice, wanted, oldest = None, None, self._oldest()
        if request.cursor is not None:
            wanted = self._find(request.cursor, wire, terms)
            if wire == 2:
                notice = self._notice(request.cursor, terms, oldest)
        # Some events may have happened since it came, a moment ago: the first client has them too.
        position = oldest if first and wanted is None else self.playhead.start(wanted, oldest)
        tip = self.playhead.tip()
        replays = request.cursor is not None and self.playhead.has_live_tip and position < tip
        self.connections += 1
        self.bell.ring()
        return Admission(request, wire, self.connections, position, self._frames(terms, dictionary), dictionary, notice, tip if replays else None)

    @property
    def _authority(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def _terms(self, wire: int, connection: int) -> Terms:
        options, wrong = self.options, self._misbehaviour
        first_seq = options.first_seq
        if wrong.reset_after is not None and connection > wrong.reset_after:
            first_seq = 1 if wrong.reset_seq is None else wrong.reset_seq
        return Terms(
            wire,
            first_seq,
            options.number,
            self._skew_us,
            int((wrong.jitter_s or 0) * 1_000_000),
            wrong.odd_time_every or 0,
            wrong.odd_time_by_us if wrong.odd_time_every else 0,
        )

    def _frames(self, terms: Terms, dictionary: Dictionary | None) -> Readable:
        # On v2 the number is always there: whether v1 shows it makes no difference.
        key = (terms if terms.wire == 1 else terms._replace(number=False), dictionary.id if dictionary else None)
        if key not in self._editions:
            edition = Edition(self.log, terms)
            self._editions[key] = Compressed(edition, dictionary) if dictionary else edition
        return self._editions[key]

    @property
    def _skew_us(self) -> int:
        return round(self.options.skew_s * 1_000_000)

    def _is_seq(self, cursor: int, wire: int) -> bool:
        return cursor < SEQ_LIMIT and (wire == 2 or self.options.number or self.log.numbered)

    def _find(self, cursor: int, wire: int, terms: Terms) -> int:
        return terms.find_seq(self.log, cursor) if self._is_seq(cursor, wire) else self.log.find(cursor - self._skew_us)

    def _oldest(self) -> int:
        """The oldest position that this host has kept."""
        wrong, oldest, tip = self._misbehaviour, self.log.oldest, self.playhead.tip()
        if wrong.keep_events is not None:
            oldest = max(oldest, tip - wrong.keep_events)
        if wrong.keep_for_s is not None and tip > oldest:
            oldest = max(oldest, min(tip, self.log.find(self.log.time_at(tip - 1) - int(wrong.keep_for_s * 1_000_000))))
        return oldest

    def _notice(self, cursor: int, terms: Terms, oldest: int) -> bytes | None:
        """What v2 tells a client first whose cursor cannot be met. Raises XrpcError where it refuses the cursor instead."""
        tip = self.playhead.tip()
        oldest_seq, next_seq = terms.seq_at(self.log, oldest), terms.seq_at(self.log, tip)
        if self._is_seq(cursor, 2):
            # There was never an event before 1.
            if max(cursor, 1) < oldest_seq and oldest <= tip:
                raise XrpcError("CursorTooOld", f"seq {cursor} is older than what is kept: the oldest is {oldest_seq}")
            if cursor > next_seq:
                return info_frame("FutureCursor", f"seq {cursor} is beyond the next one, {next_seq}: starting at the live tip")
        elif oldest < tip and cursor - self._skew_us < self.log.time_at(oldest):
            return info_frame("OutdatedCursor", f"events before seq {oldest_seq} are not kept: starting there")
        return None
