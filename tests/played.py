"""The player in a thread of this process, for tests that do not speak asyncio: hosts that one test steers while they run."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from delivery.sources.jetstream.player import tid
from delivery.sources.jetstream.player.dictionaries import Dictionaries
from delivery.sources.jetstream.player.host import Host
from delivery.sources.jetstream.player.log import FileLog, Log
from delivery.sources.jetstream.player.misbehaviour import HostOptions, Misbehaviour
from delivery.sources.jetstream.player.server import hosting
from delivery.sources.jetstream.player.wires import NAMESPACE

PATIENCE_S = 20


class PlayedHost:
    """One host, seen from the test's thread."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self.v1 = host.v1
        self.v2 = host.v2
        self.port = host.port

    @property
    def handshakes(self) -> int:
        """How many requests to subscribe there have been, refused ones too."""
        return self._host.handshakes

    @property
    def connections(self) -> int:
        """How many of them were let in."""
        return self._host.connections

    @property
    def open_connections(self) -> int:
        """How many TCP connections there are now."""
        return len(self._host.open)

    @property
    def wanted_collections(self) -> set[str]:
        """What every client that is connected now has asked for."""
        filters = [connection.filter for connection in list(self._host.open) if connection.filter is not None]
        return set.intersection(*(set(each.collections) for each in filters)) if filters else set()

    def wait_for_connections(self, count: int) -> None:
        """Until so many have been let in since the beginning."""
        self._wait(lambda: self._host.connections >= count)

    def wait_for_handshakes(self, count: int) -> None:
        self._wait(lambda: self._host.handshakes >= count)

    def close_all(self) -> None:
        """Drop all current connections, with no close frame."""
        self._call(self._host.abort_all)

    @property
    def misbehaviour(self) -> Misbehaviour:
        return self._host.misbehaviour

    @misbehaviour.setter
    def misbehaviour(self, misbehaviour: Misbehaviour) -> None:
        """Returns when it is in force."""
        self._call(lambda: setattr(self._host, "misbehaviour", misbehaviour))

    def _call(self, do: Callable[[], None]) -> None:
        async def call() -> None:
            do()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE_S)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        async def wait() -> None:
            while True:
                changed = self._host.bell.next
                if is_so():
                    return
                await changed.wait()

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(wait(), PATIENCE_S), self._loop).result()


@contextlib.contextmanager
def played(
    log_or_lines: Log | Sequence[bytes],
    hosts: Sequence[HostOptions] = (HostOptions(),),
    rate: float | None = None,
    dictionaries: Callable[[Log], Dictionaries] = Dictionaries,
) -> Iterator[list[PlayedHost]]:
    """Hosts that serve this log, or these lines; a LiveLog may go on growing."""
    log = FileLog(log_or_lines) if isinstance(log_or_lines, Sequence) else log_or_lines
    started: SimpleQueue[list[PlayedHost] | BaseException] = SimpleQueue()
    ended: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with hosting(log, hosts, rate=rate, dictionaries=dictionaries(log)) as serving:
            ended.put((loop, stop))
            started.put([PlayedHost(host, loop) for host in serving])
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=run, name="played hosts")
    thread.start()
    found = started.get(timeout=PATIENCE_S)
    if isinstance(found, BaseException):
        thread.join()
        raise found
    try:
        yield found
    finally:
        loop, stop = ended.get(timeout=PATIENCE_S)
        loop.call_soon_threadsafe(stop.set)
        thread.join()


# --- A plain client --------------------------------------------------------------------------------------------------


def client(url: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] = (), **parameters: Any) -> ClientConnection:
    """A connection that takes whatever it is sent. Use it in a with statement."""
    return connect(
        f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, doseq=True)}",
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        max_size=None,
        max_queue=None,
        compression=None,
        ping_interval=None,
        close_timeout=1,
    )


def read(socket: ClientConnection, count: int) -> list[bytes]:
    """The next messages, byte for byte."""
    return [socket.recv(PATIENCE_S, decode=False) for _ in range(count)]


def read_all(socket: ClientConnection) -> list[bytes]:
    """Every message that the server can send without anything else happening.

    Each answered ping is a turn of the server's loop, and a connection with something to send sends some in every turn
    but its first few.
    """
    got: list[bytes] = []
    quiet = 0
    while quiet < 10:
        assert socket.ping().wait(PATIENCE_S)
        quiet += 1
        with contextlib.suppress(TimeoutError):
            while True:
                got.append(socket.recv(0, decode=False))
                quiet = 0
    return got


def read_until_closed(socket: ClientConnection) -> tuple[list[bytes], Any]:
    """Every message to the end, and the server's close frame with its code and reason; None where it left without one."""
    got: list[bytes] = []
    try:
        while True:
            got += read(socket, 1)
    except ConnectionClosed as closed:
        return got, closed.rcvd


def refusal(url: str, **how: Any) -> Response:
    """The answer to a handshake that is not let in."""
    try:
        with client(url, **how):
            raise AssertionError("it was let in")
    except InvalidStatus as refused:
        return refused.response


# --- Events ----------------------------------------------------------------------------------------------------------

START_US = 1_780_000_000_000_000
ANNA, BERT = "did:plc:" + "a" * 24, "did:plc:" + "b" * 24
POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"


def commit(number: int, did: str = ANNA, collection: str = POST, **over: object) -> bytes:
    """The number-th v1 line of a made-up log, one microsecond after the one before."""
    time_us = START_US + number
    body = {"rev": tid.encode(time_us, 0), "operation": "create", "collection": collection, "rkey": str(number), "record": {"text": "né"}, "cid": "bafy"}
    return json.dumps({"did": did, "time_us": time_us, **over, "kind": "commit", "commit": body}, ensure_ascii=False, separators=(",", ":")).encode()


def commits(count: int) -> list[bytes]:
    return [commit(number) for number in range(count)]


def identity(number: int, did: str = ANNA) -> bytes:
    body = {"did": did, "seq": 1, "time": "2026-05-28T20:26:40.123Z"}
    return json.dumps({"did": did, "time_us": START_US + number, "kind": "identity", "identity": body}, separators=(",", ":")).encode()


def sync_frame(seq: int, did: str = ANNA) -> bytes:
    """A v2 frame of a kind that v1 does not have."""
    payload = {"$type": f"{NAMESPACE}#sync", "did": did, "seq": seq, "sync": {"did": did, "rev": "3ke6kg3wrlz22"}, "time": "2026-05-28T20:26:40.000007Z"}
    return json.dumps({"$type": "message", "payload": payload}, separators=(",", ":")).encode()


def payloads(frames: Sequence[bytes]) -> list[dict[str, Any]]:
    """Of v2 frames."""
    return [json.loads(frame)["payload"] for frame in frames]


def seqs(frames: Sequence[bytes]) -> list[int]:
    return [payload["seq"] for payload in payloads(frames)]
