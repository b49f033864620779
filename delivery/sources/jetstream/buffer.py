"""Between the threads that read hosts and the thread that stores: bounded buffers, and one bell for all of them.

When a buffer is full its reader stops reading, and the host's own buffer holds what comes next.
"""

import threading
from collections import deque

from delivery.sources.incoming import Incoming

# Of each host: events, and bytes of their bodies.
MAX_BUFFERED = 10_000
MAX_BUFFERED_BYTES = 64 * 1024 * 1024


class Bell:
    """Wakes the storing thread: `some` rings for the first event, `enough` for a full batch."""

    def __init__(self) -> None:
        self.batch = 1
        self.some = threading.Event()
        self.enough = threading.Event()

    def ring(self, waiting: int) -> None:
        if not self.some.is_set():
            self.some.set()
        if waiting >= self.batch and not self.enough.is_set():
            self.enough.set()

    def wait(self, batch: int, wait_s: float, idle_s: float) -> None:
        """Wait up to `idle_s` for the first event, then up to `wait_s` for the rest of a batch."""
        self.batch = batch
        if self.some.wait(idle_s):
            self.enough.wait(wait_s)
        # Cleared before the buffers are emptied: what comes meanwhile rings again.
        self.some.clear()
        self.enough.clear()


class Buffer:
    """The events of one host. Any thread puts, one takes."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._events: deque[Incoming] = deque()
        self._bytes_in = self._bytes_out = 0
        self._putting = threading.Lock()
        self._room = threading.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        return len(self._events) >= MAX_BUFFERED or self._bytes_in - self._bytes_out > MAX_BUFFERED_BYTES

    def put(self, event: Incoming) -> bool:
        """Wait for room and add the event. False when the buffer was closed instead."""
        if self.full and not self.wait_for_room():
            return False
        with self._putting:
            self._bytes_in += len(event.body)
            self._events.append(event)
        self._bell.ring(len(self._events))
        return True

    def wait_for_room(self) -> bool:
        """False when the buffer was closed."""
        while self.full and not self._closed:
            self._room.clear()
            if self.full:
                self._room.wait(1)
        return not self._closed

    def take(self, most: int) -> list[Incoming]:
        events = [self._events.popleft() for _ in range(min(most, len(self._events)))]
        self._bytes_out += sum(len(event.body) for event in events)
        self._room.set()
        if self._events:
            self._bell.ring(len(self._events))
        return events

    def close(self) -> None:
        """Let go of whoever waits for room. What is in it can still be taken."""
        self._closed = True
        self._room.set()
        self._bell.some.set()
        self._bell.enough.set()
