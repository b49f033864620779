"""Reads one host on a thread of its own: connects, parses, reconnects, and keeps a bounded buffer for whoever stores.

When the buffer is full the reader stops reading, and the host's own buffer holds what comes next.
"""

import logging
import random
import threading
from collections import deque
from datetime import UTC, datetime
from time import monotonic, time_ns

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream.connection import Connection, Disconnected
from delivery.sources.jetstream.frames import InvalidFrame, parse
from delivery.sources.jetstream.position import Position
from subscriptions.matching import Wanted

logger = logging.getLogger(__name__)

# The buffer: events, and bytes of their bodies.
MAX_BUFFERED = 10_000
MAX_BUFFERED_BYTES = 64 * 1024 * 1024
# Of a host that sends garbage, one frame in so many seconds stands in the log.
COMPLAIN_EVERY_S = 5.0
# Seconds between connection attempts: doubling from the first to the last, less up to half by chance.
_FIRST_WAIT_S = 0.5
_LAST_WAIT_S = 30.0
NOTHING_WANTED = "no active subscription wants anything from this stream"


class Reader:
    """One host. `start`, `want`, `take` and `stop` belong to the thread that stores."""

    def __init__(self, url: str, cursor: int | None, user_agent: str) -> None:
        self.url = url
        self.user_agent = user_agent
        # Of what has been read, which is ahead of what has been stored.
        self.position = Position(cursor)
        self.connected_since: datetime | None = None
        self.problem = "not connected yet"
        self._wanted: Wanted | None = None
        self._connection: Connection | None = None
        self._events: deque[Incoming] = deque()
        self._bytes_in = self._bytes_out = 0
        self._rejected_in = self._rejected_out = self._complained = 0
        self._complain_at = 0.0
        self._some = threading.Event()
        self._enough = threading.Event()
        self._room = threading.Event()
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._batch = 1
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    # --- for the thread that stores ----------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def want(self, wanted: Wanted | None) -> None:
        """Change what the stream is asked for, on the running connection where there is one."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        connection = self._connection
        if connection and wanted is None:
            connection.close()
        elif connection and wanted is not None:
            try:
                connection.update(wanted)
            except Disconnected:
                # Half of the message may be out: the reading thread connects again, with the new filter.
                connection.close()
        self._changed.set()

    def take(self, most: int, wait_s: float, idle_s: float) -> tuple[list[Incoming], int]:
        """Up to `most` events, and how many frames were rejected since the last call.

        Waits up to `idle_s` for the first event, then up to `wait_s` for the rest of a full batch.
        """
        self._batch = most
        if self._some.wait(idle_s) and len(self._events) < most and not self._stopping.is_set():
            self._enough.clear()
            if len(self._events) < most:
                self._enough.wait(wait_s)
        self._some.clear()
        events = [self._events.popleft() for _ in range(min(most, len(self._events)))]
        if self._events:
            self._some.set()
        self._bytes_out += sum(len(event.body) for event in events)
        self._room.set()
        counted = self._rejected_in
        rejected, self._rejected_out = counted - self._rejected_out, counted
        return events, rejected

    def stop(self) -> None:
        """Stop reading. What is buffered can still be taken."""
        self._stopping.set()
        for event in (self._changed, self._room, self._some, self._enough):
            event.set()
        if connection := self._connection:
            connection.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    # --- the reading thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._stopping.is_set():
            wanted = self._wanted
            if wanted is None:
                self.problem = NOTHING_WANTED
                self._wait(None)
                continue
            started = monotonic()
            self.problem = self._read_until_it_ends(wanted)
            self.connected_since, self._connection = None, None
            if self._stopping.is_set() or self._wanted is None:
                continue
            if monotonic() - started > _LAST_WAIT_S:
                wait_s = _FIRST_WAIT_S
            pause_s = wait_s * random.uniform(0.5, 1)
            logger.warning("%s: %s. Next attempt in %.1f s.", self.url, self.problem, pause_s)
            self._wait(pause_s)
            wait_s = min(wait_s * 2, _LAST_WAIT_S)

    def _read_until_it_ends(self, wanted: Wanted) -> str:
        """Returns why it ended. A fault of our own must not end the thread: the stream would stand still unseen."""
        try:
            self._read(wanted)
        except Disconnected as error:
            return str(error)
        except Exception as error:
            logger.exception("%s: the reader failed.", self.url)
            return f"unexpected: {error!r}"
        return "stopped"

    def _wait(self, pause_s: float | None) -> None:
        self._changed.wait(pause_s)
        self._changed.clear()

    def _read(self, wanted: Wanted) -> None:
        connection = Connection(self.url, wanted, self.position.resume_at(), self.user_agent)
        self._connection = connection
        try:
            newer = self._wanted
            if newer is not None and newer != wanted:
                connection.update(newer)
            self.connected_since, self.problem = datetime.now(UTC), ""
            logger.info("%s: connected%s.", self.url, f", from cursor {self.position.resume_at()}" if self.position.cursor else "")
            while not self._stopping.is_set() and self._wanted is not None:
                self._accept(connection.receive())
        finally:
            connection.close()

    def _complain(self, error: InvalidFrame, body: bytes) -> None:
        """Log the rejection, but not each of thousands: the tallies count them all."""
        if monotonic() >= self._complain_at:
            unsaid = self._rejected_in - self._complained - 1
            self._complain_at, self._complained = monotonic() + COMPLAIN_EVERY_S, self._rejected_in
            more = f" ({unsaid} more since the last line)" if unsaid else ""
            logger.warning("%s: rejected a frame: %s: %.200r%s", self.url, error, body[:200], more)

    def _accept(self, body: bytes) -> None:
        try:
            event = parse(body)
        except InvalidFrame as error:
            self._rejected_in += 1
            self._complain(error, body)
            self._some.set()
            return
        self.position.advance(event, time_ns() // 1000)
        while len(self._events) >= MAX_BUFFERED or self._bytes_in - self._bytes_out > MAX_BUFFERED_BYTES:
            if self._stopping.is_set():
                return
            self._room.clear()
            if len(self._events) >= MAX_BUFFERED or self._bytes_in - self._bytes_out > MAX_BUFFERED_BYTES:
                self._room.wait(1)
        self._bytes_in += len(body)
        self._events.append(event)
        if not self._some.is_set():
            self._some.set()
        if len(self._events) >= self._batch and not self._enough.is_set():
            self._enough.set()
