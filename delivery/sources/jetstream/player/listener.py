"""One client: a task that reads the log and writes what the client wants, and one that reads what the client says.

Frames go to the transport in chunks, past the WebSocket library, which would cost several µs an event; the
library keeps the handshake, the pings, the client's messages and the close. A chunk holds whole frames only, so its
control frames always fall between two events.
"""

import asyncio
from contextlib import suppress

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from delivery.sources.jetstream.player import options
from delivery.sources.jetstream.player.conduct import Conduct
from delivery.sources.jetstream.player.connection import HostConnection
from delivery.sources.jetstream.player.host import Admission, Host
from delivery.sources.jetstream.player.misbehaviour import Misbehaviour
from delivery.sources.jetstream.player.stretch import BINARY, TEXT, frame
from delivery.sources.jetstream.player.wires import error_frame

CHUNK_BYTES = 256 * 1024

# Close codes (RFC 6455, 7.4.1)
NORMAL = 1000
INVALID_DATA = 1007
POLICY_VIOLATION = 1008


class Listener:
    """One client: what it wants, and how far it has come."""

    def __init__(self, connection: HostConnection, host: Host, admission: Admission) -> None:
        self._connection = connection
        self._host = host
        self._admission = admission
        self._filter = connection.filter = admission.request.filter
        self._position = admission.position
        self._conduct = Conduct(host, admission)
        self._hello = asyncio.Event()
        if not admission.request.require_hello:
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
        """Take options_update messages on v1: bad JSON closes 1007, bad options close 1008. On v2 any message closes 1008."""
        with suppress(ConnectionClosed):
            async for message in self._connection:
                if self._admission.wire == 2:
                    return await self._connection.close(POLICY_VIOLATION, "this stream takes no messages: connect anew to change the filter")
                try:
                    wanted = options.read_message(message)
                except msgspec.MsgspecError:
                    return await self._connection.close(INVALID_DATA, "the message is not a JSON object of a known shape")
                except options.BadOption as error:
                    return await self._connection.close(POLICY_VIOLATION, _close_reason(str(error)))
                if wanted is not None:
                    self._filter = self._connection.filter = wanted
                    self._hello.set()

    async def _send(self) -> None:
        await self._hello.wait()
        if self._admission.notice is not None:
            self._write_text(self._admission.notice)
        while self._connection.state is State.OPEN:
            changed = self._host.bell.next
            wrong = self._host.misbehaviour
            if wrong.touches_events and self._conduct.leaves(wrong):
                return await self._leave(wrong)
            if wrong.touches_events and self._conduct.falls_silent(wrong):
                await self._be_silent(wrong)
                continue
            limit = self._host.playhead.limit()
            if self._position < self._host.log.oldest:
                return await self._give_up()
            if self._position < limit:
                await self._send_chunk(limit, wrong)
            else:
                await self._wait(changed)

    async def _send_chunk(self, limit: int, wrong: Misbehaviour) -> None:
        stretch, first = self._admission.frames.at(self._position)
        last = min(stretch.chunk_end(first, CHUNK_BYTES), first + limit - self._position, len(stretch))
        without = self._host.withheld(self._admission.number)
        if self._conduct.is_careful(wrong, self._position):
            last = min(last, first + self._conduct.next_edge(self._position) - self._position)
            data, last = self._conduct.mangle(wrong, stretch.chosen(first, last, self._filter, without), self._position - first, last)
        else:
            data = stretch.frames(first, last, self._filter, without)
        if data:
            self._connection.transport.write(data)
        self._position += last - first
        self._host.playhead.passed(self._position)
        await self._connection.drain()
        # drain() returns at once while the client keeps up: let the others have their turn.
        await asyncio.sleep(0)

    async def _wait(self, changed: asyncio.Event) -> None:
        """Until the next event is due, or anything has changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._host.playhead.wait_s(self._position)):
                await changed.wait()

    async def _be_silent(self, wrong: Misbehaviour) -> None:
        """For as long as it says, or until it is told to behave otherwise."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wrong.silence_for_s):
                while self._host.misbehaviour is wrong:
                    await self._host.bell.next.wait()

    async def _leave(self, wrong: Misbehaviour) -> None:
        if self._conduct.aborts(wrong):
            await self._connection.flush()
            self._connection.transport.abort()
            return
        if wrong.close_error is not None and self._admission.wire == 2:
            self._write_text(error_frame(wrong.close_error, "the host was told to say so"))
        await self._connection.close(NORMAL if wrong.close_code is None else wrong.close_code, wrong.close_reason or "")

    async def _give_up(self) -> None:
        message = "consumer too slow: its next event is no longer kept"
        if self._admission.wire == 2:
            self._write_text(error_frame("ConsumerTooSlow", message))
        await self._connection.close(POLICY_VIOLATION, message)

    def _write_text(self, text: bytes) -> None:
        self._connection.transport.write(frame(self._admission.encode(text), BINARY if self._admission.dictionary else TEXT))


def _close_reason(text: str) -> str:
    """At most the 123 bytes that a close frame has room for."""
    return text.encode()[:123].decode(errors="ignore")
