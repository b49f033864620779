"""Receivers written byte by byte, and the short way to send to them."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Inbox, Request, Result
from delivery.destinations.http import Sender

LOOPBACK = Door(allowed=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Wire:
    """A TCP server on a free port; every connection is handed to a coroutine, which may write whatever it likes."""

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviour, self.tls, self.host, self.port = behaviour, tls, host, port
        self.connections = 0
        # Set when a connection ended, whoever ended it.
        self.ended = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Wire":
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls, backlog=1024))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self.url_of(f"[{self.host}]" if ":" in self.host else self.host)

    def url_of(self, host: str) -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/hook"

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        for _ in range(3):
            # A connection that was accepted this instant gets its transport, or cancelling would leave its socket open.
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # All that the loop knows of, also those in a handshake, or whose task was cancelled before its first step: nothing public names them.
        transports: Mapping[int, asyncio.WriteTransport] = getattr(self._loop, "_transports", {})
        for transport in list(transports.values()):
            transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)  # an aborted transport closes its socket one turn later

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # A client that goes away, and the end of the test, are what some of these tests are about.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.behaviour(reader, writer)
        self.ended.set()
        writer.transport.abort() if writer.is_closing() else writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def saying(answer: bytes) -> Behaviour:
    """Answers one request with these bytes, then closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return behave


def repeating(start: bytes, chunk: bytes, pause_s: float = 0.0) -> Behaviour:
    """Answers one request with a beginning and then the same bytes again and again, until the client is gone."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return behave


async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()  # until the client gives up


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


class Crowd:
    """Answers when it is let; knows how many requests are open, and the most there ever were."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self.order: list[bytes] = []

    async def behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            body = (await read_request(reader)).partition(b"\r\n\r\n")[2]
            self.order.append(body)
            self.open += 1
            self.most = max(self.most, self.open)
            await asyncio.sleep(0.005)  # long enough for others to come in, if they may
            self.open -= 1
            writer.write(OK)
            await writer.drain()


def request(url: str, inbox: Inbox, **over: Any) -> Request:
    fields: dict[str, Any] = {"tag": url, "headers": ["Content-Type: application/json", "Expect:"], "body": b"{}", "timeout_ms": 10_000}
    return Request(url=url, inbox=inbox, **fields | over)


def collect(inbox: Inbox, count: int, timeout_s: float = 30) -> list[Result]:
    """This many results. Raises TimeoutError when they do not come."""
    results: list[Result] = []
    deadline = monotonic() + timeout_s
    while len(results) < count:
        if monotonic() > deadline:
            raise TimeoutError(f"{len(results)} of {count} results after {timeout_s} s")
        results += inbox.take(1)
    return results


def post(sender: Sender, url: str, **over: Any) -> Result:
    inbox = Inbox()
    sender.submit([request(url, inbox, **over)])
    (result,) = collect(inbox, 1)
    return result
