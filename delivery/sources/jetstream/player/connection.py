"""One connection as the WebSocket library keeps it, with the manners that a host may lack: its handshake and its pongs."""

import asyncio
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.server import ServerProtocol

from delivery.sources.jetstream.player.host import Admission, Host
from delivery.sources.jetstream.player.options import Filter

_PONG = b"\x8a"  # the first byte of a whole pong
_ANSWER = b"HTTP/1.1 "


class HostConnection(ServerConnection):
    """Belongs to its host from the first byte to the last. The library makes connections from a class: each host has its own."""

    host: Host

    def __init__(self, protocol: ServerProtocol, server: Server, **library_options: Any) -> None:
        super().__init__(protocol, server, **library_options)
        self.admission: Admission | None = None
        # What its client wants now.
        self.filter: Filter | None = None
        self.handshake_byte_every_s: float | None = None
        self._trickle = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.host.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.host.open.discard(self)
        super().connection_lost(exc)

    async def handshake(self, *arguments: Any, **options: Any) -> None:
        await super().handshake(*arguments, **options)
        for start in range(len(self._trickle)):
            self.transport.write(self._trickle[start : start + 1])
            await asyncio.sleep(self.handshake_byte_every_s or 0)

    def send_data(self) -> None:
        """Write what the library has to say, without what the host does not say, or does not say yet."""
        wrong, kept = self.host.misbehaviour, []
        for data in self.protocol.writes:
            if data.startswith(_PONG) and wrong.no_pongs:
                continue
            if data.startswith(_PONG) and wrong.pong_after_s:
                self.loop.call_later(wrong.pong_after_s, self._write, data)
            elif self.handshake_byte_every_s is not None and data.startswith(_ANSWER):
                self._trickle = data
            else:
                kept.append(data)
        self.protocol.writes = kept
        super().send_data()

    async def flush(self) -> None:
        """Until the system has taken all that was written."""
        self.transport.set_write_buffer_limits(0)
        await self.drain()

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
