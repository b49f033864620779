"""Where lines go: a stream that may be slow, full or gone, which is no reason to stop delivering.

A line is written whole or not at all, as far as the system can promise it: up to 4,096 bytes go into a pipe in one piece
(PIPE_BUF of pipe(7)), also where several processes share it.
"""

import logging
import os
import select
from time import monotonic

from jetrelay.logs.repeats import Repeats

PIECE = 4_096
# How long a reader that has stopped reading is waited for; after that lines are left out until it reads again.
PATIENCE_S = 1.0


class Handler(logging.StreamHandler):  # type: ignore[type-arg] # whatever stderr is
    """Writes to stderr as it was when this was made."""

    def __init__(self) -> None:
        super().__init__()
        self._stalled = False
        self._torn = False
        # Lines that were left out because nobody read; and those of them of which the log does not say so yet.
        self.left_out = 0
        self._unsaid = 0
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            passed = list(self._repeats.passed(record, monotonic()))
        except Exception:  # noqa: BLE001 - what a stranger's object does when it is compared must not cost the line
            passed = [record]
        for each in passed:
            self._emit(each)

    def _emit(self, record: logging.LogRecord) -> None:
        try:
            rendered = self.format(record) + self.terminator
            notice = self._notice() if self._unsaid else ""
        except Exception:  # noqa: BLE001 - a line less
            return
        lines = rendered.count("\n")
        try:
            left = self._write(notice + rendered)
        except (OSError, ValueError):
            # Gone (`up | head`) or closed: there is nobody to tell.
            left = lines + 1
        if left <= lines:
            # The notice has been written.
            self._unsaid = 0
        self.left_out += min(left, lines)
        self._unsaid += min(left, lines)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: logging's own prints the arguments as they are."""

    def _notice(self) -> str:
        words = "%d lines are left out here: nobody was reading."
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (self._unsaid,), None)) + self.terminator

    def _write(self, rendered: str) -> int:
        """How many lines could not be written."""
        try:
            descriptor = self.stream.fileno()
        except (OSError, AttributeError, ValueError):
            self.stream.write(rendered)
            self.flush()
            return 0
        self.flush()
        data = rendered.encode(errors="backslashreplace")
        if self._torn:
            data = b"\n" + data
        poll = select.poll()
        # POLLERR and POLLHUP count too: writing then says what is wrong.
        poll.register(descriptor, select.POLLOUT)
        until = monotonic() + (0.0 if self._stalled else PATIENCE_S)
        while data:
            written = _write_piece(poll, descriptor, data[: _end_of_piece(data)], until)
            if not written:
                self._stalled = True
                return data.count(b"\n")
            self._torn = data[written - 1 : written] != b"\n"
            data = data[written:]
        self._stalled = False
        return 0


def _write_piece(poll: select.poll, descriptor: int, piece: bytes, until: float) -> int:
    """How many bytes the stream took; 0 if it takes none until then (on the monotonic clock)."""
    while poll.poll(max(0.0, until - monotonic()) * 1_000):
        try:
            return os.write(descriptor, piece)
        except BlockingIOError:
            # Somebody who shares the stream has made it so, and was quicker.
            if monotonic() >= until:
                break
    return 0


def _end_of_piece(data: bytes) -> int:
    """As many whole lines as fit into a piece; of a line that does not fit, a part."""
    return len(data) if len(data) <= PIECE else (data.rfind(b"\n", 0, PIECE) + 1 or PIECE)
