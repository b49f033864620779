"""Where replay meets live: legacy hosts drop and reorder events there (jetstream.md), so the stretch is read twice.

Once a connection that started from a time has come to the present, a second one reads from a little before that point
to a little after it, while the first goes on. Until it has, the saved cursor stays behind the seam.
"""

import logging
import threading
from collections.abc import Callable
from time import monotonic

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream.buffer import Buffer
from delivery.sources.jetstream.connection import Connection, Disconnected
from delivery.sources.jetstream.frames import InvalidFrame
from delivery.sources.jetstream.position import FIRST_TIME_US, STEP_US, Position
from delivery.sources.jetstream.wires import Asked, Wire
from subscriptions.matching import Wanted

logger = logging.getLogger(__name__)

# How far before the present the seam may lie when it is noticed. In µs.
BEFORE_US = 15_000_000
# The second reading begins so long after the present was reached, and reads on as far.
DELAY_S = 3.0
_AFTER_US = 2_000_000
# It ends after so long without a frame, and in any case after so long.
_QUIET_S = 5.0
_LONGEST_S = 60.0


class Seam:
    """The seam of one connection after the other. `watch`, `cursor` and `stop` belong to the storing thread."""

    def __init__(self, wire: Wire, position: Position, buffer: Buffer, user_agent: str, brought: Callable[[], int]) -> None:
        """`brought`: how many events the first connection has brought since it was made."""
        self._brought = brought
        self._wire = wire
        self._position = position
        self._buffer = buffer
        self._user_agent = user_agent
        # Whether there is a seam that was not read again yet.
        self.open = False
        self._from_us: int | None = None
        self._start_at = 0.0
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._stopped = False

    def begin(self, cursor: int | None) -> None:
        """A connection starts from this cursor. One that starts from now, or by number, has no seam."""
        self._from_us = None
        self.open = self._wire.updates and cursor is not None and not self._position.numbered

    def close(self) -> None:
        """This host numbers its events: it is of the newer kind, without the fault."""
        self.open = False

    def resume_us(self) -> int | None:
        """From where to read again when the connection ends before its seam was mended."""
        return self._from_us if self.open else None

    def cursor(self, stored: Position) -> int | None:
        """The cursor that may be saved with everything up to `stored`."""
        if not self.open or stored.cursor is None or stored.numbered:
            return stored.cursor
        # Read once: the reading thread may begin another connection meanwhile.
        from_us = self._from_us
        return min(stored.cursor, _before(stored) if from_us is None else from_us)

    def watch(self, live: bool, wanted: Wanted | None) -> None:
        """Once a second."""
        if not self.open or not live or wanted is None or self._thread is not None:
            return
        from_us = self._from_us
        if from_us is None:
            self._from_us = _before(self._position)
            self._start_at = monotonic() + DELAY_S
        elif monotonic() >= self._start_at:
            self._thread = threading.Thread(target=self._run, args=[wanted, from_us], name="seam", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        if connection := self._connection:
            connection.close()

    def _run(self, wanted: Wanted, from_us: int) -> None:
        try:
            self._mend(wanted, from_us)
            if self._from_us == from_us:
                self.open = False
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again, and the cursor waits
            logger.info("%s: reading again where replay met live failed: %s. It will be tried again.", self._wire.url, error)
            self._start_at = monotonic() + DELAY_S
        finally:
            self._thread = self._connection = None

    def _mend(self, wanted: Wanted, from_us: int) -> None:
        """Raises Disconnected when it could not be read to its end."""
        connection = Connection(self._wire, Asked(wanted, from_us), self._user_agent)
        self._connection = connection
        try:
            connection.open(silence_s=_QUIET_S)
            mark_us, heard = (self._position.reached_us or 0) + _AFTER_US, monotonic()
            deadline, brought = heard + _LONGEST_S, 0
            while monotonic() < deadline and not self._stopped:
                frame = connection.receive()
                if frame is None:
                    if monotonic() - heard >= _QUIET_S:
                        # Silence is the end only where the first connection is silent too, and has been as long as this one.
                        if self._brought() == brought:
                            return
                        raise Disconnected("the host sends nothing, although it has something")
                    continue
                heard, brought, event = monotonic(), self._brought(), self._parse(frame)
                if event is None:
                    continue
                if not self._buffer.put(event):
                    break
                if event.cursor is not None or mark_us < event.time_us < mark_us + STEP_US:
                    return
        finally:
            connection.close()
        raise Disconnected("stopped before its end")

    def _parse(self, frame: bytes) -> Incoming | None:
        """What is rejected here was rejected, and counted, on the first connection."""
        try:
            event = self._wire.parse(frame)
        except InvalidFrame:
            return None
        return event if isinstance(event, Incoming) else None


def _before(position: Position) -> int:
    return max((position.reached_us or 0) - BEFORE_US, FIRST_TIME_US)
