"""Receivers that write down what they accept, and that can be told to misbehave. All of them live on one thread."""

import asyncio
import contextlib
import enum
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import time

from tests.crash.stream import digest

BACKLOG = 1024
_PATIENCE_S = 30
# Of a flaky receiver: how often it answers 503, and how often it takes its time, and how long at most.
_FAILS, _DAWDLES, _DAWDLE_S = 0.05, 0.05, 0.3


class Mood(enum.Enum):
    WELL = "well"
    FAILING = "answers 500"
    RESETTING = "reads the request and resets the connection"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that was read whole. `status` is what it was answered with, 0 for a reset; `at` is Unix time."""

    webhook_id: str
    digest: bytes
    at: float
    status: int

    @property
    def accepted(self) -> bool:
        return self.status == 200


class Receiver:
    """One endpoint. Its methods may be called from any thread."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, *, flaky: bool, seed: int) -> None:
        self.name = name
        self.mood = Mood.WELL
        self.arrivals: list[Arrival] = []
        self.connections: set[_Connection] = set()
        # Held while it is deaf: two who come for that take turns.
        self.deafness = threading.Lock()
        self._loop = loop
        self._flaky = flaky
        self._random = random.Random(seed)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(BACKLOG)
        self._socket.setblocking(False)
        self._arriving: set[asyncio.Task[object]] = set()
        loop.call_soon_threadsafe(loop.add_reader, self._socket, self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"

    def turn_deaf(self) -> None:
        """Accept nobody, with room for one in the queue; those that are connected are seen off."""
        self._call(self._turn_deaf)

    def listen(self) -> None:
        """Accept again: first those that have waited in the queue, with whatever they have sent meanwhile."""
        self._call(self._listen)

    def answer(self, webhook_id: str, body: bytes) -> tuple[int, float]:
        """Write the request down. Returns the status to answer it with, 0 for a reset, and after how long, in seconds."""
        status, wait_s = {Mood.WELL: 200, Mood.FAILING: 500, Mood.RESETTING: 0}[self.mood], 0.0
        if self._flaky and status == 200:
            chance = self._random.random()
            status = 503 if chance < _FAILS else 200
            wait_s = self._random.uniform(0, _DAWDLE_S) if chance > 1 - _DAWDLES else 0.0
        self.arrivals.append(Arrival(webhook_id, digest(body), time(), status))
        return status, wait_s

    def _call(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def do() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(do)
        if not done.wait(_PATIENCE_S):
            raise TimeoutError(f"the receiver {self.name} does not answer its own program")

    def _turn_deaf(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.listen(1)
        for connection in list(self.connections):
            connection.leave()

    def _listen(self) -> None:
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                connection, _ = self._socket.accept()
                task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: _Connection(self), connection))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for connection in list(self.connections):
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as our own sender speaks it: POST, a Content-Length, one request at a time."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._waiting = bytearray()
        self._busy = self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._receiver.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            return
        fields = (line.partition(b":") for line in bytes(self._waiting[:end]).split(b"\r\n")[1:])
        headers = {name.lower(): value.strip() for name, _, value in fields}
        size = end + 4 + int(headers[b"content-length"])
        if len(self._waiting) < size:
            return
        body = bytes(self._waiting[end + 4 : size])
        del self._waiting[:size]
        status, wait_s = self._receiver.answer(headers[b"webhook-id"].decode(), body)
        if not status:
            self._reset()
        elif wait_s:
            self._busy = True
            asyncio.get_running_loop().call_later(wait_s, self._reply, status)
        else:
            self._reply(status)

    def leave(self) -> None:
        """Close, after the answer where one is owed."""
        self._leaving = True
        if not self._busy:
            self.transport.close()

    def _reply(self, status: int) -> None:
        self._busy = False
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %d status\r\nContent-Length: 0\r\n\r\n" % status)
            if self._leaving:
                self.transport.close()

    def _reset(self) -> None:
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.transport.abort()


@contextlib.contextmanager
def receiving(names: Sequence[tuple[str, bool]], seed: int) -> Iterator[dict[str, Receiver]]:
    """Running receivers by name; each comes with whether it is flaky."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="receivers", daemon=True)
    thread.start()
    receivers = {name: Receiver(name, loop, flaky=flaky, seed=seed) for name, flaky in names}
    try:
        yield receivers
    finally:
        for receiver in receivers.values():
            loop.call_soon_threadsafe(receiver.close)
        # What the closing has set in motion is done in the turn after it.
        loop.call_soon_threadsafe(lambda: loop.call_later(0.1, loop.stop))
        thread.join(_PATIENCE_S)
        loop.close()
