"""A receiver whose name leads elsewhere: requests follow it, and none of them fails for it."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pycurl
import pytest

from delivery.destinations import transfer
from delivery.destinations.exchange import Inbox, Result
from delivery.destinations.http import Sender
from delivery.destinations.names import Resolver
from tests.authority import Authority
from tests.wire import LOOPBACK, Behaviour, Wire, collect, keep_alive, post, read_request, request

AGE_S = 1
MINUTE_S = 60


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CONNECTION_AGE_S", AGE_S)


class Moving:
    """A name that leads to one address until it is told another one."""

    def __init__(self) -> None:
        self.address = "127.0.0.1"
        self.asked = 0
        self.hold: threading.Event | None = None

    def look_up(self, _: str) -> Sequence[str]:
        self.asked += 1
        if self.hold:
            self.hold.wait(MINUTE_S)
        return [self.address] if self.address else []


@contextmanager
def sending(moving: Moving, fresh_s: float = AGE_S, patience_s: float = 1.8, authorities: str | None = None) -> Iterator[Sender]:
    running = Sender(LOOPBACK, authorities=authorities, resolver=Resolver(moving.look_up, fresh_s, MINUTE_S, patience_s))
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def both(behaviour: Behaviour = keep_alive, tls: ssl.SSLContext | None = None) -> Iterator[tuple[Wire, Wire]]:
    """Two receivers at one port, on 127.0.0.1 and 127.0.0.2."""
    with Wire(behaviour, tls) as first, Wire(behaviour, tls, "127.0.0.2", first.port) as second:
        yield first, second


def _here(writer: asyncio.StreamWriter) -> bytes:
    address: str = writer.get_extra_info("sockname")[0]
    return address.encode()


async def say_where(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the address that was connected to."""
    while True:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + _here(writer))
        await writer.drain()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def say_where_by_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same, after a while, so that a connection always has a request under way."""
    writer.write(_frame(4, 0, 0))
    await reader.readexactly(24)
    answering = set[asyncio.Task[None]]()

    async def answer(stream: int) -> None:
        await asyncio.sleep(0.3)
        writer.write(_frame(1, 4, stream, b"\x88") + _frame(0, 1, stream, _here(writer)))

    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] in (0, 1) and head[4] & 1:
            answering.add(asyncio.create_task(answer(int.from_bytes(head[5:], "big"))))


def steadily(sender: Sender, url: str, until: Callable[[Result], bool]) -> list[Result]:
    """Send one request after another, four at a time, until a result is as wanted."""
    inbox, results, deadline = Inbox(), list[Result](), monotonic() + 30
    while not any(map(until, results[-4:])):
        assert monotonic() < deadline, "it did not follow"
        sender.submit(request(url, inbox) for _ in range(4))
        results += collect(inbox, 4)
        sleep(0.01)
    return results


def test_it_follows_a_name_that_moves_under_steady_traffic() -> None:
    moving = Moving()
    with both(say_where) as (first, second), sending(moving) as sender:
        url = first.url_of("moving.test")
        post(sender, url)
        moving.address = "127.0.0.2"
        began = monotonic()
        results = steadily(sender, url, lambda result: result.response_body == b"127.0.0.2")
        # A name is looked up again, and whole seconds count: a little more than both ages.
        assert monotonic() - began < 2 * AGE_S + 2
        sleep(AGE_S + 1)
        inbox = Inbox()
        sender.submit(request(url, inbox) for _ in range(20))
        after = collect(inbox, 20)
    assert {result.status for result in results + after} == {200}
    assert {result.response_body for result in after} == {b"127.0.0.2"}
    assert second.connections > 0


def test_it_follows_over_http2_though_the_connection_is_never_idle(tmp_path: Path) -> None:
    moving, authority, inbox = Moving(), Authority(tmp_path), Inbox()
    tls = authority.server("moving.test", protocols=["h2"])
    with both(say_where_by_http2, tls) as (first, second), sending(moving, authorities=str(authority.file)) as sender:
        url = first.url_of("moving.test")
        assert post(sender, url).response_body == b"127.0.0.1"
        moving.address = "127.0.0.2"
        sent, results, deadline = 0, list[Result](), monotonic() + 30
        while not results or results[-1].response_body != b"127.0.0.2":
            assert monotonic() < deadline, "it did not follow"
            sender.submit([request(url, inbox)])
            sent += 1
            sleep(0.05)
            results += inbox.take(0)
        results += collect(inbox, sent - len(results))
        # Shared by many, and not one for each.
        assert first.connections + second.connections <= 10
    assert {result.status for result in results} == {200}


def test_one_connection_serves_until_it_is_old() -> None:
    moving = Moving()
    with both() as (first, _), sending(moving) as sender:
        for _ in range(20):
            assert post(sender, first.url_of("moving.test")).status == 200
        assert first.connections == 1
        sleep(AGE_S + 1.1)
        assert post(sender, first.url_of("moving.test")).status == 200
        assert first.connections == 2


def test_a_request_after_a_rest_goes_where_the_name_leads_by_then() -> None:
    """And the old host may be gone."""
    moving = Moving()
    with both(say_where) as (first, _), sending(moving) as sender:
        assert post(sender, first.url_of("moving.test")).response_body == b"127.0.0.1"
        moving.address = "127.0.0.2"
        sleep(AGE_S + 1.1)
        assert post(sender, first.url_of("moving.test")).response_body == b"127.0.0.2"


def test_what_was_known_serves_where_the_name_is_not_found_again() -> None:
    moving = Moving()
    with both() as (first, _), sending(moving, fresh_s=0.05) as sender:
        assert post(sender, first.url_of("moving.test")).status == 200
        moving.address = ""
        sleep(AGE_S + 1.1)
        assert [post(sender, first.url_of("moving.test")).status for _ in range(3)] == [200] * 3


def test_what_was_known_serves_where_looking_it_up_takes_long() -> None:
    moving = Moving()
    with both() as (first, _), sending(moving, fresh_s=0.05, patience_s=0.2) as sender:
        assert post(sender, first.url_of("moving.test")).status == 200
        moving.hold = threading.Event()
        sleep(0.1)
        assert post(sender, first.url_of("moving.test")).status == 200
        # Only the first one has to wait.
        began = monotonic()
        assert [post(sender, first.url_of("moving.test")).status for _ in range(5)] == [200] * 5
        assert monotonic() - began < 0.2
        moving.hold.set()


def test_libcurl_is_told_again_of_what_it_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgets the addresses that it was told of, and would look them up itself."""
    monkeypatch.setattr(transfer, "TOLD_AGAIN_S", 0.2)
    monkeypatch.setattr(transfer, "_OPTIONS", (*transfer._OPTIONS, (pycurl.DNS_CACHE_TIMEOUT, 1)))
    moving = Moving()
    with both() as (first, _), sending(moving, fresh_s=MINUTE_S) as sender:
        assert post(sender, first.url_of("moving.test")).status == 200
        sleep(2.2)
        assert post(sender, first.url_of("moving.test")).status == 200
        assert (first.connections, moving.asked) == (2, 1)
