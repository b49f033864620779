"""Reads one host on a thread of its own: connects, parses, notices what is wrong, and connects again where it was.

What reading again cannot put right becomes a `Gap`, for the storing thread to write down.
"""

import logging
import math
import random
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, time_ns

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream.buffer import Bell, Buffer
from delivery.sources.jetstream.compression import Compression, Dictionaries, Dictionary, Undecodable
from delivery.sources.jetstream.connection import Connection, Disconnected, Refused
from delivery.sources.jetstream.frames import InvalidFrame
from delivery.sources.jetstream.frames_v2 import HostError, Info
from delivery.sources.jetstream.liveness import Liveness
from delivery.sources.jetstream.position import Position
from delivery.sources.jetstream.rejects import Rejects
from delivery.sources.jetstream.resuming import Gap, Renumbered, Resumption
from delivery.sources.jetstream.seam import Seam
from delivery.sources.jetstream.wires import Asked, wire_of
from subscriptions.matching import Wanted

logger = logging.getLogger(__name__)

# Seconds between connection attempts: doubling from the first to the last, less up to half by chance.
_FIRST_WAIT_S = 0.5
_LAST_WAIT_S = 30.0
# No event for so long although everything was asked for: the host stands still. Twice as long each time connecting again did not help.
STALL_S = 30.0
_LAST_STALL_S = 600.0
# A narrow filter may be quiet for long; connecting again now and then shows that it really was.
QUIET_S = 600.0
# A connection with a narrow filter that follows on another and has brought nothing for so long has nothing more to replay.
# After an absence silence proves less, and has to last for QUIET_S.
SETTLED_S = 5.0
# And so much longer for what the host has to look through: at least so many seconds of its archive in one.
_SEARCHED = 100
# How far before its connection a quiet host's cursor is put, because clocks differ. In µs.
_QUIET_MARGIN_US = 60_000_000
# So often in a row a host's objection is met at once by asking for something else.
_MAX_RETRIES = 5
# Of what a host says about the stream, so many things go into the log.
_MAX_TOLD = 5
NOTHING_WANTED = "no active subscription wants anything from this stream"


@dataclass(frozen=True)
class Kit:
    """What the readers of one listener share. Without dictionaries, frames come uncompressed."""

    user_agent: str
    bell: Bell = field(default_factory=Bell)
    v1_dictionary: bytes | None = None
    v2_dictionaries: Dictionaries | None = None

    def compression(self, url: str, *, v1: bool) -> Compression:
        if v1:
            return Compression(url, Dictionary(self.v1_dictionary) if self.v1_dictionary else None)
        return Compression(url, self.v2_dictionaries)


class Reader:
    """One host. `start`, `want`, `take`, `watch`, `reconnect` and `stop` belong to the thread that stores."""

    def __init__(self, url: str, position: Position, kit: Kit) -> None:
        self.url = url
        self.wire = wire_of(url)
        # Of what has been read, which is ahead of what has been stored.
        self.position = position
        self.buffer = Buffer(kit.bell)
        self.rejects = Rejects(url)
        self.liveness = Liveness()
        self.seam = Seam(self.wire, position, self.buffer, kit.user_agent, lambda: self.events_in - self._events_before)
        self.gaps: deque[Gap] = deque()
        self.connected_since: datetime | None = None
        self.problem = "not connected yet"
        self.compressed = False
        # Since the start.
        self.connections = self.events_in = self.bytes_in = 0
        # Up to where a quiet host has nothing. In µs.
        self.settled_us: int | None = None
        self._user_agent = kit.user_agent
        self._bell = kit.bell
        self._compression = kit.compression(url, v1=self.wire.updates)
        self._resumption = Resumption(position)
        self._wanted: Wanted | None = None
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._connected_us = 0
        self._settled_at = -math.inf
        # Whether the connection began at the present, and has brought nothing yet.
        self._fresh = False
        # Up to where events were read before this connection, and how many.
        self._known_us = self._events_before = 0
        # Whether the connection before this one was followed to its end: silence then, and in the replay now, say the same.
        self._followed = self._established = False
        self._asked = Asked(Wanted())
        self._stall_s = STALL_S
        self._again = ""
        self._retries = 0
        self._pause_s = 0.0
        self._without_dids = False
        # What the host has said about the stream on this connection.
        self._told: set[str] = set()
        self._changed = threading.Event()
        self._stopping = threading.Event()
        # Held to move the position, which both threads do.
        self._moving = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    # --- for the thread that stores ----------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def want(self, wanted: Wanted | None) -> None:
        """Change what the stream is asked for: on the running connection where the wire allows it, else by another one."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._without_dids = False
        connection = self._connection
        if connection is not None and wanted is not None and self.wire.updates:
            # One that is still being made is told by the reading thread, as soon as it can be.
            if connection.established:
                # Not on this thread: a host that reads nothing would hold it.
                threading.Thread(target=self._tell, args=[connection], name="filter", daemon=True).start()
        else:
            self.reconnect("what is wanted has changed")

    def reconnect(self, why: str) -> None:
        """Connect again without waiting, from where it was."""
        self._again = why
        self._changed.set()
        if connection := self._connection:
            connection.close()

    def take(self, most: int) -> list[Incoming]:
        """Up to `most` events, in order."""
        return self.buffer.take(most)

    def watch(self) -> None:
        """Look once a second after what no event announces: silence, the present, and the seam before it."""
        now_s, wanted = monotonic(), self._wanted
        self.liveness.look(now_s, self._searched_s())
        self.seam.watch(self.liveness.live, wanted)
        silent_s = self.liveness.silent_s(now_s)
        if silent_s is None or wanted is None:
            return
        if self.liveness.lag_us is not None and silent_s < STALL_S:
            self._stall_s = STALL_S
        if wanted.broad:
            if silent_s >= self._stall_s:
                self._stall_s = min(self._stall_s * 2, _LAST_STALL_S)
                self.reconnect(f"no event for {silent_s:.0f} s, although everything is asked for")
            return
        self._settle(now_s)
        if min(silent_s, now_s - self._settled_at) >= QUIET_S:
            self.reconnect(f"no event for {silent_s:.0f} s; a replay shows whether there was none")

    def stop(self) -> None:
        """Ask it to stop reading. What is buffered can still be taken."""
        self._stopping.set()
        self._changed.set()
        self.buffer.close()
        self.seam.stop()
        if connection := self._connection:
            connection.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, after `stop`. One that is still looking up a name, or connecting, ends a little later."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _settle(self, now_s: float) -> None:
        """When nothing more comes, the replay has ended: what was asked for holds nothing else up to the connection."""
        with self._moving:
            silent_s, until_us = self.liveness.silent_s(now_s), self._quiet_until_us()
            known_us = 0 if self._fresh else self.position.reached_us or 0
            if silent_s is None or until_us <= known_us or silent_s < self._searched_s():
                return
            self._fresh = False
            if gap := self._resumption.nothing_came(until_us, time_ns() // 1000):
                self.gaps.append(gap)
            self.position.settle(until_us)
            self.settled_us, self._settled_at = until_us, now_s

    def _quiet_until_us(self) -> int:
        """Just before the connection, on the host's clock as far as its last event showed how late that runs."""
        return self._connected_us - _QUIET_MARGIN_US - max(self.liveness.last_lag_us or 0, 0)

    def _searched_s(self) -> float:
        """How long a host may look through what it was asked for, in silence. What is asked for from now on needs no looking."""
        reached_us, wanted = self.position.reached_us, self._wanted
        if reached_us is None or self._fresh:
            return SETTLED_S
        if wanted is None or wanted.broad:
            # There is always something to send: silence is a fault.
            return math.inf
        if not self._followed and self.liveness.lag_us is None:
            return QUIET_S
        return min(SETTLED_S + max(self._quiet_until_us() - reached_us, 0) / 1_000_000 / _SEARCHED, QUIET_S)

    def _tell(self, connection: Connection) -> None:
        try:
            connection.update(lambda: self._wanted)
        except Disconnected:
            # Half of the message may be out: the reading thread connects again, with the new filter.
            connection.close()

    # --- the reading thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            # Cleared before looking at what has changed: what changes from here on sets it again.
            self._changed.clear()
            if self._stopping.is_set():
                return
            self._again, self._pause_s = "", 0.0
            wanted = self._wanted
            if wanted is None:
                self.problem = NOTHING_WANTED
                self._changed.wait()
                continue
            if not self.buffer.wait_for_room():
                return
            if self.problem == NOTHING_WANTED:
                self.problem = "connecting"
            started, events, self._established = monotonic(), self.events_in, False
            self.problem = self._read_until_it_ends(wanted)
            self.connected_since, self._connection = None, None
            self.liveness.end()
            if self.events_in > events and monotonic() - started > _FIRST_WAIT_S:
                self._retries = 0
            self._followed = bool(self._again) and self._established
            if self._stopping.is_set() or self._wanted is None:
                continue
            if self._again and not self._pause_s:
                logger.info("%s: connecting again: %s.", self.url, self._again)
                continue
            if self.events_in > events and monotonic() - started > _LAST_WAIT_S:
                wait_s = _FIRST_WAIT_S
            pause_s = max(wait_s * random.uniform(0.5, 1), self._pause_s)
            logger.warning("%s: %s. Next attempt in %.1f s.", self.url, self.problem, pause_s)
            self._changed.wait(pause_s)
            wait_s = min(wait_s * 2, _LAST_WAIT_S)

    def _read_until_it_ends(self, wanted: Wanted) -> str:
        """Returns why it ended. A fault of our own must not end the thread: the stream would stand still unseen."""
        try:
            self._read(wanted)
        except Refused as refused:
            self._mind(refused)
            return str(refused)
        except Renumbered:
            self.position.forget_number()
            self._retry("the host numbers its events anew, so it is asked by time")
            return "the host numbers its events anew"
        except Undecodable as error:
            # What it was is read again, from the cursor, in plain text.
            self._compression.give_up()
            self._reject(error.frame, str(error))
            self._retry("a frame did not decompress, so it is asked for plain text")
            return str(error)
        except (Disconnected, HostError) as error:
            return self._again or str(error)
        except Exception as error:
            logger.exception("%s: the reader failed.", self.url)
            return f"unexpected: {error!r}"
        return self._again or "the connection ended"

    def _mind(self, refused: Refused) -> None:
        """Some refusals say what to ask for instead."""
        asked = self._asked
        if refused.error == "CursorTooOld":
            self._resumption.refused()
            self._retry("the host no longer has what was asked for, so it is asked for the oldest it has")
        elif refused.status == 400 and asked.dictionary is not None:
            if refused.error == "UnknownZstdDictionary":
                self._compression.refuse(asked.dictionary)
            else:
                self._compression.give_up()
            self._retry("the host refused the compression asked for")
        elif refused.status in (414, 431) and asked.wanted.dids:
            self._without_dids = True
            self._retry("the list of accounts is too long for the host, so it is asked for all")
        elif refused.status == 400 and not refused.error and self.position.numbered:
            # Without a name it may be anything, a number that is too old as well. A time is refused by nobody.
            self.position.forget_number()
            self._retry("the host refused a request by number, so it is asked by time")
        self._pause_s = min(refused.retry_after_s or 0.0, _LAST_WAIT_S)

    def _retry(self, why: str) -> None:
        """Connect again at once and ask for something else, unless that has been tried without success."""
        self._retries += 1
        if self._retries <= _MAX_RETRIES:
            self._again = why

    def _read(self, wanted: Wanted) -> None:
        before, broad = self.bytes_in, wanted.broad
        connection = self._connect(wanted)
        try:
            newer = self._wanted
            if newer is not None and newer != wanted:
                if not self.wire.updates:
                    self._again = self._again or "what is wanted has changed"
                    return
                connection.update(lambda: self._wanted)
            while not self._stopping.is_set() and self._wanted is not None and not self._again:
                frame = connection.receive()
                if frame is not None:
                    self._accept(frame, broad=broad)
                    self.bytes_in = before + connection.bytes_in
        finally:
            connection.close()

    def _connect(self, wanted: Wanted) -> Connection:
        dictionary = self._compression.dictionary()
        cursor = self._resumption.ask(self.seam.resume_us())
        self._known_us, self._events_before = self.position.known_us, self.events_in
        if self._without_dids:
            wanted = Wanted(wanted.collections, (), wanted.kinds)
        self._asked = Asked(wanted, cursor, dictionary.id if dictionary else None)
        connection = Connection(self.wire, self._asked, self._user_agent, dictionary)
        self._connection = connection
        connection.open()
        self._established = True
        self.seam.begin(cursor)
        self._connected_at, self._connected_us = monotonic(), time_ns() // 1000
        # From now on, where nothing was asked for: a connection that follows before the first event must not begin later.
        self._fresh = cursor is None
        if self._fresh:
            with self._moving:
                self.position.settle(self._quiet_until_us())
        self.connections += 1
        self._told = set()
        self.compressed = dictionary is not None
        self.liveness.begin(self._connected_at)
        self.connected_since, self.problem = datetime.now(UTC), ""
        logger.info("%s: connected%s%s.", self.url, "" if cursor is None else f", from cursor {cursor}", ", compressed" if dictionary else "")
        return connection

    def _accept(self, frame: bytes, *, broad: bool) -> None:
        try:
            event = self.wire.parse(frame)
        except InvalidFrame as error:
            self._reject(frame, str(error))
            return
        if isinstance(event, Info):
            if len(self._told) < _MAX_TOLD and event.name not in self._told:
                self._told.add(event.name)
                logger.info("%s: %s: %s", self.url, event.name, event.message)
            self._resumption.told(event)
            return
        now_us = time_ns() // 1000
        if event.cursor is not None and self.seam.open:
            self.seam.close()
        with self._moving:
            if not self._resumption.judged and (gap := self._resumption.judge(event, now_us, broad=broad)):
                self.gaps.append(gap)
            self.liveness.hear(monotonic(), now_us - event.time_us if event.time_us > self._known_us else None)
            self.position.advance(event, now_us)
            self.settled_us, self._fresh = None, False
        self.events_in += 1
        self.buffer.put(event)

    def _reject(self, frame: bytes, reason: str) -> None:
        self.rejects.add(frame, reason)
        self._bell.some.set()
