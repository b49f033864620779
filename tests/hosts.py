"""Jetstream hosts for tests: the real player in this process, and hosts that do whatever a test writes down."""

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from queue import SimpleQueue
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import zstandard

from delivery.sources.jetstream.frames_v2 import PREFIX
from delivery.sources.jetstream.player import server
from delivery.sources.jetstream.player.log import FileLog
from subscriptions.validation import V1_PATH, V2_PATH
from tests.builders import DID, POST

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextlib.contextmanager
def playing(lines: Sequence[bytes], rate: float | None = None) -> Iterator[str]:
    """The player, serving these lines; gives its URL."""
    started: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = SimpleQueue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with server.playing(FileLog(lines), rate=rate) as port:
            started.put((asyncio.get_running_loop(), stop, port))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    loop, stop, port = started.get(timeout=20)
    try:
        yield f"ws://127.0.0.1:{port}/subscribe"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class Visit:
    """One client's connection, on the bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        while b"\r\n\r\n" not in self.head:
            more = sock.recv(65_536)
            if not more:
                raise ConnectionError("the client left before it had asked for anything")
            self.head += more
        target = urlsplit(self.head.split(b" ")[1].decode())
        self.path = target.path
        self.query = parse_qs(target.query)

    def accept(self) -> None:
        """Complete the WebSocket handshake."""
        (key,) = [line.split(b":", 1)[1].strip() for line in self.head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")]
        answer = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
        self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + answer + b"\r\n\r\n")

    def send(self, payload: bytes = b"", opcode: int = TEXT, *, fin: bool = True, rsv1: bool = False) -> None:
        self.announce(len(payload), opcode, fin=fin, rsv1=rsv1)
        self.sock.sendall(payload)

    def announce(self, size: int, opcode: int = TEXT, *, fin: bool = True, rsv1: bool = False) -> None:
        """The head of a frame whose payload follows by other means, or never."""
        first = opcode | fin << 7 | rsv1 << 6
        if size < 126:
            self.sock.sendall(bytes([first, size]))
        elif size < 65_536:
            self.sock.sendall(struct.pack("!BBH", first, 126, size))
        else:
            self.sock.sendall(struct.pack("!BBQ", first, 127, size))

    def pour(self, size: int, piece: bytes = b"x" * 65_536) -> None:
        """So many bytes of no meaning."""
        for start in range(0, size, len(piece)):
            self.sock.sendall(piece[: size - start])

    def close(self, code: int, reason: str = "") -> None:
        self.send(struct.pack("!H", code) + reason.encode(), CLOSE)

    def read(self) -> tuple[int, bytes]:
        """The next frame from the client: opcode and payload."""
        first, second = self._exactly(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        mask, payload = self._exactly(4), self._exactly(size)
        return first & 15, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))

    def wait_until_gone(self) -> None:
        """Until the client has closed its side, or the test is over."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65_536):
                pass

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.sock.recv(size - len(found))
            if not more:
                raise ConnectionError("the client is gone")
            found += more
        return found


Script = Callable[[Visit], None]


class Host:
    """Follows one script for each connection, in turn, the last one for all that come later.

    `http` serves the requests that are for no WebSocket, whenever they come; they are counted apart.
    """

    def __init__(self, *scripts: Script, http: Script | None = None) -> None:
        self._scripts = scripts
        self._http = http
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self._visited = threading.Condition()
        self._errors: list[Exception] = []
        self.visits: list[Visit] = []
        self.requests: list[Visit] = []

    @property
    def url(self) -> str:
        """Its v1 wire."""
        return self._url(V1_PATH)

    @property
    def v2_url(self) -> str:
        return self._url(V2_PATH)

    def _url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}{path}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in [self._listener, *self._sockets]:
            each.close()
        if self._errors:
            raise self._errors[0]

    def wait_for_visits(self, count: int, timeout_s: float = 20) -> list[Visit]:
        with self._visited:
            assert self._visited.wait_for(lambda: len(self.visits) >= count, timeout_s), f"{len(self.visits)} visits"
            return list(self.visits)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=[sock])
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            visit = Visit(sock)
            if self._http is not None and b"\r\nupgrade: websocket\r\n" not in visit.head.lower():
                self.requests.append(visit)
                self._http(visit)
                return
            with self._visited:
                script = self._scripts[min(len(self.visits), len(self._scripts) - 1)]
                self.visits.append(visit)
                self._visited.notify_all()
            script(visit)
        except OSError:
            pass  # the client went away, which is what some tests are about
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it
            self._errors.append(error)


def refusing(status: str, body: bytes = b"", headers: str = "") -> Script:
    """Answers the handshake with this status and goes."""

    def script(visit: Visit) -> None:
        visit.sock.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        visit.sock.shutdown(socket.SHUT_RDWR)

    return script


def sending(*messages: bytes) -> Script:
    """Sends these as text frames and stays until the client leaves."""

    def script(visit: Visit) -> None:
        visit.accept()
        for message in messages:
            visit.send(message)
        visit.wait_until_gone()

    return script


def sends_and_leaves(*messages: bytes) -> Script:
    """Sends these as text frames and closes."""

    def script(visit: Visit) -> None:
        visit.accept()
        for message in messages:
            visit.send(message)
        visit.close(1001)
        visit.wait_until_gone()

    return script


def frame_v2(number: int, seq: int, time_us: int | None = None, **over: Any) -> bytes:
    """What `builders.frame` with this number and cursor is on the v2 wire."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1_780_000_000_000_000 + number if time_us is None else time_us)
    commit = {"rev": f"3l{number:011d}", "operation": "create", "collection": POST, "rkey": f"3k{number:011d}", "record": {"text": f"post {number}"}}
    fields = {"$type": PREFIX + "commit", "did": DID, "seq": seq, "time": f"{at:%FT%T}.{at.microsecond:06d}Z"} | commit | over
    return message_v2(dict(sorted(fields.items())))


def message_v2(payload: dict[str, Any]) -> bytes:
    return json.dumps({"$type": "message", "payload": payload}, separators=(",", ":"), ensure_ascii=False).encode()


def info_v2(name: str) -> bytes:
    return message_v2({"$type": PREFIX + "info", "message": "about the cursor", "name": name})


@cache
def trained(id: int) -> bytes:
    """A small zstd dictionary with this id."""
    samples: list[bytes | bytearray | memoryview] = [frame_v2(number, number, rev=hashlib.sha256(b"%d" % number).hexdigest()) for number in range(500)]
    return zstandard.train_dictionary(4_096, samples, k=200, d=8, dict_id=id).as_bytes()


def compressed(text: bytes, dictionary: bytes) -> bytes:
    return zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(dictionary)).compress(text)


def error_v2(name: str) -> bytes:
    """The body of a refusal on the v2 wire."""
    return json.dumps({"error": name, "message": "not so"}).encode()
