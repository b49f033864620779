"""The server: one Listener per connection, which reads the log and writes what its client wants.

Frames go to the transport in chunks, past the WebSocket library, which would cost several µs an event; the
library keeps the handshake, the pings, the client's messages and the close. A chunk holds whole frames only, so its
control frames always fall between two events.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response as HttpResponse
from websockets.protocol import State

from delivery.sources.jetstream.player import options
from delivery.sources.jetstream.player.log import Log
from delivery.sources.jetstream.player.playhead import Playhead

PATH = "/subscribe"
CHUNK_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 10_000_000  # an options_update, as on the real hosts
PING_INTERVAL_S = 30
CLOSE_TIMEOUT_S = 2

# Close codes (RFC 6455, 7.4.1)
INVALID_DATA = 1007
POLICY_VIOLATION = 1008

# A probe of the port that never speaks is no error worth a traceback.
logger = logging.getLogger("delivery.sources.jetstream.player.websockets")
logger.setLevel(logging.WARNING)
logger.addFilter(lambda record: record.msg != "opening handshake failed")


class Listener:
    """One client: what it wants, and how far it has come."""

    def __init__(self, connection: ServerConnection, log: Log, playhead: Playhead, request: options.Request) -> None:
        self._connection = connection
        self._log = log
        self._playhead = playhead
        self._filter = request.filter
        self._position = playhead.join(request.cursor)
        self._hello = asyncio.Event()
        if not request.require_hello:
            self._hello.set()

    async def run(self) -> None:
        """Serve until the connection closes, whoever closes it."""
        tasks = asyncio.create_task(self._send()), asyncio.create_task(self._receive())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, ConnectionClosed | ConnectionError):
                    raise result

    async def _receive(self) -> None:
        """Take options_update messages. Bad JSON closes 1007, bad options close 1008."""
        with suppress(ConnectionClosed):
            async for message in self._connection:
                try:
                    wanted = options.read_message(message)
                except msgspec.MsgspecError:
                    return await self._connection.close(INVALID_DATA, "the message is not a JSON object of a known shape")
                except options.BadOption as error:
                    return await self._connection.close(POLICY_VIOLATION, _close_reason(str(error)))
                if wanted is not None:
                    self._filter = wanted
                    self._hello.set()

    async def _send(self) -> None:
        await self._hello.wait()
        while self._connection.state is State.OPEN:
            limit = self._playhead.limit()
            if self._position < self._log.oldest:
                return await self._connection.close(POLICY_VIOLATION, "consumer too slow: its next event is no longer kept")
            if self._position < limit:
                await self._send_chunk(limit)
            else:
                await self._wait()

    async def _send_chunk(self, limit: int) -> None:
        stretch, first = self._log.at(self._position)
        last = min(stretch.chunk_end(first, CHUNK_BYTES), first + limit - self._position, len(stretch))
        if data := stretch.frames(first, last, self._filter):
            self._connection.transport.write(data)
        self._position += last - first
        self._playhead.passed(self._position)
        await self._connection.drain()
        # drain() returns at once while the client keeps up: let the others have their turn.
        await asyncio.sleep(0)

    async def _wait(self) -> None:
        wait_s = self._playhead.wait_s(self._position)
        if wait_s is None:
            await self._connection.wait_closed()
        else:
            await asyncio.sleep(wait_s)


class Player:
    """Answers requests for one log: 404 for another path, 400 for bad parameters, else a Listener."""

    def __init__(self, log: Log, rate: float | None = None) -> None:
        self._log = log
        self._playhead = Playhead(log, rate)

    def check(self, connection: ServerConnection, http: HttpRequest) -> HttpResponse | None:
        """The refusal of this request as plain text; None lets it in."""
        url = urlsplit(http.path)
        if url.path != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"There is nothing at {url.path}: subscribe at {PATH}.\n")
        if "zstd" in http.headers.get("Socket-Encoding", ""):
            return connection.respond(HTTPStatus.BAD_REQUEST, "Socket-Encoding: this server sends uncompressed frames only\n")
        try:
            options.read_query(url.query)
        except options.BadOption as error:
            return connection.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
        return None

    async def serve(self, connection: ServerConnection) -> None:
        http = connection.request
        assert http is not None  # it has been through check()
        request = options.read_query(urlsplit(http.path).query)
        await Listener(connection, self._log, self._playhead, request).run()


@asynccontextmanager
async def playing(log: Log, *, rate: float | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve the log while the context lasts; yields the port. Clients are closed with 1001 at the end. Raises OSError."""
    player = Player(log, rate)
    server = await serve(
        player.serve,
        host,
        port,
        process_request=player.check,
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
        ping_interval=PING_INTERVAL_S,
        ping_timeout=None,  # a reader that lags behind its backlog is what trials are for: TCP holds it back, no clock ends it
        close_timeout=CLOSE_TIMEOUT_S,
        logger=logger,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await _close(server)


async def _close(server: Server) -> None:
    """Close with 1001, and without ceremony where a client does not read any more."""
    connections = list(server.connections)
    server.close()
    try:
        await asyncio.wait_for(asyncio.shield(server.wait_closed()), CLOSE_TIMEOUT_S)
    except TimeoutError:
        for connection in connections:
            connection.transport.abort()
        await server.wait_closed()


def _close_reason(text: str) -> str:
    """At most the 123 bytes that a close frame has room for."""
    return text.encode()[:123].decode(errors="ignore")
