"""Receivers that mean harm: each costs a bounded time and little memory, is named, and leaves the sender as it was.

Where a request has a minute, it ends by itself: nobody here waits that long. Where it has a fraction of a second, its
own timeout ends it.
"""

import asyncio
import gzip
import os
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delivery.destinations.exchange import Error, Inbox, Result
from delivery.destinations.http import Sender
from delivery.destinations.transfer import MAX_KEPT_BODY, MAX_KEPT_HEADERS
from tests.authority import Authority
from tests.wire import LOOPBACK, OK, Behaviour, Wire, collect, hang, post, read_request, request, reset, saying

STATUS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = STATUS + b"Transfer-Encoding: chunked\r\n\r\n"
MINUTE_MS = 60_000
SHORT_MS = 300
OFFERED = 100_000_000
# What fits into the buffers of a loopback connection, and what libcurl reads before it gives up.
MAX_TAKEN = 30_000_000
MAX_GROWTH = 60_000_000


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").exists() else 0


def resident() -> int:
    """Bytes of this process in memory, receiver and all."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def sender(authority: Authority) -> Iterator[Sender]:
    """A sender that must serve a good request after whatever the test did, keep no descriptor, and not have grown much."""
    open_before, resident_before = descriptors(), resident()
    running = Sender(LOOPBACK, authorities=str(authority.file))
    try:
        yield running
        with Wire(saying(OK)) as good:
            assert post(running, good.url).status == 200
    finally:
        running.stop()
    assert descriptors() <= open_before
    assert resident() - resident_before < MAX_GROWTH


def assert_bounded(result: Result) -> None:
    assert len(result.response_headers) <= MAX_KEPT_HEADERS
    assert len(result.response_body) <= MAX_KEPT_BODY
    assert "libcurl error" not in result.error_detail
    assert (result.status is None) == (result.error is not None) == bool(result.error_detail)


class Flood:
    """Answers with a beginning and then one chunk again and again, up to 100 MB; counts what was taken."""

    def __init__(self, start: bytes, chunk: bytes) -> None:
        self.start, self.chunk = start, chunk
        self.taken = 0

    async def behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(self.start)
        block = self.chunk * max(1, 50_000 // len(self.chunk))
        while self.taken < OFFERED:
            writer.write(block)
            await writer.drain()
            self.taken += len(block)
        await reader.read()


def dripping(start: bytes, drip: bytes) -> Behaviour:
    """Answers with a beginning and then a drop every tenth of a second."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)
        while True:
            for byte in drip:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)

    return behave


# --- floods --------------------------------------------------------------------------------------------------------

TOO_MANY, TOO_LONG = "response headers", "A line of the answer's headers is too long."


@pytest.mark.parametrize(
    ("start", "chunk", "words"),
    [
        pytest.param(STATUS, b"X-Padding: " + b"p" * 1000 + b"\r\n", TOO_MANY, id="headers"),
        pytest.param(STATUS, b"a:\r\n", TOO_MANY, id="tiny headers"),
        pytest.param(STATUS, b"Set-Cookie: a=" + b"c" * 4000 + b"\r\n", TOO_MANY, id="cookies"),
        pytest.param(STATUS + b"X-Padding: ", b"p" * 1000, TOO_LONG, id="one header line"),
        pytest.param(STATUS + b"X-Folded: a\r\n", b" b\r\n", TOO_LONG, id="folded lines"),
        pytest.param(b"HTTP/1.1 200 ", b"p" * 1000, TOO_LONG, id="status line"),
        pytest.param(b"HTTP/1.1 ", b"2" * 1000, TOO_LONG, id="digits of the status"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", TOO_MANY, id="100 Continue"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", TOO_MANY, id="103 Early Hints"),
        pytest.param(b"", b"HTTP/1.1 199 Odd\r\n\r\n", TOO_MANY, id="other interim answers"),
        pytest.param(CHUNKED + b"0\r\n", b"X-Trailer: " + b"p" * 100 + b"\r\n", TOO_MANY, id="trailers"),
        pytest.param(b"", b"x" * 1000, "not HTTP", id="no HTTP at all"),
        pytest.param(b"", b"\r\n", "not HTTP", id="empty lines"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"\x81\x05hello", "status 101", id="another protocol"
        ),
    ],
)
def test_it_ends_a_flood(start: bytes, chunk: bytes, words: str, sender: Sender) -> None:
    flood = Flood(start, chunk)
    with Wire(flood.behave) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
        assert wire.ended.wait(30)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)
    assert words in result.error_detail
    assert flood.taken < MAX_TAKEN
    assert_bounded(result)


@pytest.mark.parametrize(
    ("start", "chunk"),
    [
        pytest.param(STATUS + b"\r\n", b"x" * 1000, id="until it closes"),
        pytest.param(STATUS + b"Content-Length: 9000000000000000000\r\n\r\n", b"x" * 1000, id="with a length"),
        pytest.param(CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n", id="chunked"),
        pytest.param(CHUNKED, b"1\r\nx\r\n", id="tiny chunks"),
        pytest.param(CHUNKED + b"fffffffffffffff\r\n", b"x" * 1000, id="one huge chunk"),
        pytest.param(STATUS + b"Content-Encoding: gzip\r\n\r\n", b"x" * 1000, id="compressed"),
    ],
)
def test_it_takes_the_status_of_a_flood_after_the_headers(start: bytes, chunk: bytes, sender: Sender) -> None:
    flood = Flood(start, chunk)
    with Wire(flood.behave) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
        assert wire.ended.wait(30)
    assert (result.status, result.response_body[:1], len(result.response_body)) == (200, b"x", MAX_KEPT_BODY)
    assert flood.taken < MAX_TAKEN
    assert_bounded(result)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip, gzip", "x-gzip", "identity", "banana"])
def test_it_unpacks_nothing(encoding: str, sender: Sender) -> None:
    bomb = zlib.compress(bytes(30_000_000)) if encoding == "deflate" else gzip.compress(bytes(30_000_000))
    with Wire(saying(STATUS + f"Content-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb)) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, result.response_body) == (200, bomb[:MAX_KEPT_BODY])
    assert_bounded(result)


@pytest.mark.parametrize("encoding", ["gzip", "gzip, chunked", "deflate, gzip, chunked", "br", "banana"])
def test_it_takes_no_transfer_coding_it_did_not_ask_for(encoding: str, sender: Sender) -> None:
    with Wire(saying(STATUS + f"Transfer-Encoding: {encoding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode())) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)
    assert "Transfer-Encoding" in result.error_detail
    assert_bounded(result)


# --- slowness ------------------------------------------------------------------------------------------------------


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(hang, id="no answer"),
        pytest.param(never_reads, id="no reading"),
        pytest.param(dripping(b"", b"HTTP/1.1 200 OK\r\n"), id="status line drips"),
        pytest.param(dripping(STATUS, b"X-Slow: yes\r\n"), id="headers drip"),
        pytest.param(dripping(STATUS + b"X-Slow: ", b"y"), id="a header drips"),
        pytest.param(dripping(STATUS + b"Content-Length: 1000\r\n\r\n", b"y"), id="body drips"),
        pytest.param(dripping(CHUNKED, b"1\r\nx\r\n"), id="chunks drip"),
        pytest.param(dripping(CHUNKED + b"1;", b"x"), id="a chunk's extension drips"),
        pytest.param(dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers drip"),
        pytest.param(Flood(CHUNKED + b"1;", b"x" * 1000).behave, id="flood of a chunk's extension"),
    ],
)
def test_it_waits_no_longer_than_the_request_may_take(behaviour: Behaviour, sender: Sender) -> None:
    with Wire(behaviour) as wire:
        result = post(sender, wire.url, body=b"x" * 8_000_000, timeout_ms=SHORT_MS) if behaviour is never_reads else post(sender, wire.url, timeout_ms=SHORT_MS)
        assert (result.status, result.error) == (None, Error.TIMEOUT)
        assert f"timed out after {SHORT_MS // 100}" in result.error_detail
        assert_bounded(result)


def test_it_serves_others_while_many_receivers_flood(sender: Sender) -> None:
    flooded, served = Inbox(), Inbox()
    with Wire(Flood(CHUNKED + b"1;", b"x" * 1000).behave) as flood, Wire(saying(OK)) as good:
        sender.submit(request(flood.url, flooded, timeout_ms=3000) for _ in range(20))
        sender.submit(request(good.url, served, timeout_ms=MINUTE_MS) for _ in range(20))
        assert {result.status for result in collect(served, 20)} == {200}
        assert {result.error for result in collect(flooded, 20)} == {Error.TIMEOUT}


# --- answers that are wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        *((STATUS + b"Content-Length: " + value + b"\r\n\r\nok", "Invalid Content-Length") for value in (b"-1", b"NaN", b"", b"+2", b"0x2", b"2, 3", b"2 3")),
        (STATUS + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nok", "Invalid Content-Length"),
        (STATUS + b"Content-Length: 10\r\n\r\nok", "8 bytes missing"),
        (STATUS + b"Content-Length: 9223372036854775807\r\n\r\nok", "bytes missing"),
        *((CHUNKED + garbage, "chunk") for garbage in (b"zzz\r\n", b"-1\r\nabc", b"ffffffffffffffffffff\r\nabc", b"2\r\nabXX5\r\n", b"\r\n\r\n",
        )),
        *((CHUNKED + cut, "closed") for cut in (b"", b"5", b"5\r\nab", b"2\r\nab\r\n", b"0\r\n", b"0\r\nX-Trailer: a")),
        *((garbage, "not HTTP") for garbage in (
            b"ok", b"\0\0\0\0\0\0", b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.test ESMTP\r\n", b"ICY 200 OK\r\n\r\n", b"RTSP/1.0 200 OK\r\n\r\n",

            b" HTTP/1.1 200 OK\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0", b"\x15\x03\x01\0\2\2\x46", b"+PONG\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.9 200 OK\r\n\r\n",
            b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 -20 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 0x200 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
        )),
        *((b"HTTP/1.1 " + status + b" Odd\r\nContent-Length: 0\r\n\r\n", "status") for status in (b"000", b"001", b"099", b"1000", b"2000",
        b"99999999999999999999")),
        (b"HTTP/1.1 200 OK\rContent-Length: 0\r\r", "status"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\ngarbage", "status 101"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK, "status 101"),
        (b"HTTP/1.1 102 Processing\r\n\r\n", "after an interim answer"),
        (b"HTTP/1.1 199 Odd\r\n\r\n", "after an interim answer"),
        (STATUS + b"X-Nul: a\0b\r\nContent-Length: 0\r\n\r\n", "NUL"),
        (STATUS + b"X\0Nul: a\r\nContent-Length: 0\r\n\r\n", "NUL"),
        (STATUS + b"No colon\r\nContent-Length: 0\r\n\r\n", "Header without colon"),
        (STATUS + b"  folded first\r\nContent-Length: 0\r\n\r\n", "Header without colon"),
        # Cut off in the middle of the headers.
        (STATUS, "in the middle of the answer's headers"),
        (STATUS + b"X-A: b", "in the middle of the answer's headers"),
        (STATUS + b"X-A: b\r\n", "in the middle of the answer's headers"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + STATUS + b"X-A: b\r\n", "in the middle of the answer's headers"),
    ],
)  # fmt: skip
def test_it_names_an_answer_that_is_none(answer: bytes, words: str, sender: Sender) -> None:
    with Wire(saying(answer)) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)
    assert words.lower() in result.error_detail.lower()
    assert_bounded(result)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (STATUS + b"Content-Length: 1\r\n\r\nok", 200, b"o"),
        (STATUS + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
        # Too large for any number: libcurl reads until the connection closes.
        (STATUS + b"Content-Length: 99999999999999999999999\r\n\r\nok", 200, b"ok"),
        (CHUNKED[:-2] + b"Content-Length: 7\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (STATUS + b"\r\nok", 200, b"ok"),
        (b"HTTP/1.0 200\r\n\r\n", 200, b""),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", 304, b""),
        (b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", 600, b""),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, b""),
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM, Negotiate, Digest realm=x, Basic realm=x\r\nContent-Length: 0\r\n\r\n", 401, b""),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", 407, b""),
        (b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", 417, b""),
        (b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", 426, b""),
        (STATUS + "X-Ä: ü€\r\n".encode() + b"X-Bytes: \xff\xfe\x80\x1b[2J\r\nContent-Length: 0\r\n\r\n", 200, b""),
    ],
)  # fmt: skip
def test_it_takes_an_odd_answer_for_what_it_says_and_asks_once(answer: bytes, status: int, body: bytes, sender: Sender) -> None:
    with Wire(saying(answer)) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
        assert wire.connections == 1
    assert (result.status, result.response_body) == (status, body)
    assert_bounded(result)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"-5", 0), (b"", 0), (b"soon", 0), (b"\xff\xfe", 0), (b"0x10", 0), (b"99999999999999999999", 0), (b"1e400", 1), (b"1.5", 1),
    (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
     (b"Fri, 99 Foo 2099 99:99:99 GMT", 0), (b"9" * 1000, 0)],
)  # fmt: skip
def test_it_makes_little_of_garbage_in_retry_after(value: bytes, seconds: int, sender: Sender) -> None:
    with Wire(saying(b"HTTP/1.1 503 Busy\r\nRetry-After: " + value + b"\r\nContent-Length: 0\r\n\r\n")) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, result.retry_after_s) == (503, seconds)


@pytest.mark.parametrize("value", [b"Thu, 31 Dec 2099 23:59:59 GMT", b"2147483647", b"999999999"])
def test_it_believes_no_retry_after_beyond_a_few_hours(value: bytes, sender: Sender) -> None:
    with Wire(saying(b"HTTP/1.1 429 Slow\r\nRetry-After: " + value + b"\r\nContent-Length: 0\r\n\r\n")) as wire:
        assert 0 < post(sender, wire.url, timeout_ms=MINUTE_MS).retry_after_s <= 6 * 3600


# --- connections that end ------------------------------------------------------------------------------------------


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def close_in_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n")


async def close_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def reset_in_the_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(STATUS + b"Content-Length: 10\r\n\r\nok")
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@pytest.mark.parametrize("behaviour", [close_at_once, close_in_the_head, close_in_the_body, reset, reset_in_the_answer, saying(b""), saying(b"HTTP/1.1 20")])
def test_it_names_a_connection_that_ends(behaviour: Behaviour, sender: Sender) -> None:
    with Wire(behaviour) as wire:
        result = post(sender, wire.url, body=b"x" * 100_000, timeout_ms=MINUTE_MS)
    # Which of them depends on what the kernel had passed on when the connection ended.
    assert result.error in (Error.RESET, Error.EMPTY_RESPONSE, Error.BAD_RESPONSE)
    assert_bounded(result)


@pytest.mark.parametrize("status", [200, 413])
def test_it_takes_an_answer_that_comes_before_the_request_is_read(status: int, sender: Sender) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Early\r\nContent-Length: 2\r\n\r\nok".encode())
        await writer.drain()
        await reader.read()

    with Wire(early) as wire:
        result = post(sender, wire.url, body=b"x" * 8_000_000, timeout_ms=MINUTE_MS)
    assert (result.status, result.response_body) == (status, b"ok")


EXTRA = [b"HTTP/1.1 500 Smuggled\r\nContent-Length: 8\r\n\r\nsmuggled", b"garbage", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"x" * 200_000]


@pytest.mark.parametrize("extra", EXTRA)
def test_it_takes_nothing_that_comes_with_an_answer_for_the_next(extra: bytes, sender: Sender) -> None:
    async def smuggle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + extra)
        await reader.read()

    with Wire(smuggle) as wire:
        assert post(sender, wire.url, timeout_ms=MINUTE_MS).response_body == b"ok"
        assert_served_anew(sender, wire)


@pytest.mark.parametrize("extra", EXTRA)
def test_it_takes_nothing_that_came_while_a_connection_rested_for_an_answer(extra: bytes, sender: Sender) -> None:
    written = threading.Event()

    async def smuggle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        # libcurl looks at a connection no more than once a second: within that time it can be deceived
        # (https://github.com/curl/curl/pull/22169), about the receiver's own deliveries.
        await asyncio.sleep(1.2)
        writer.write(extra)
        written.set()
        await reader.read()

    with Wire(smuggle) as wire:
        assert post(sender, wire.url, timeout_ms=MINUTE_MS).response_body == b"ok"
        assert written.wait(30)
        assert_served_anew(sender, wire)


def assert_served_anew(sender: Sender, wire: Wire) -> None:
    """The next request has a connection and an answer of its own."""
    wire.behaviour = saying(STATUS + b"Content-Length: 6\r\n\r\nsecond")
    second = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (second.status, second.response_body) == (200, b"second")
    assert wire.connections == 2


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["h2", "http/1.1"]])
def test_it_trusts_a_good_certificate(protocols: list[str], sender: Sender, authority: Authority) -> None:
    behaviour = h2(HEADERS, frame(0, 1, 1, b"ok")) if "h2" in protocols else saying(OK)
    with Wire(behaviour, tls=authority.server(protocols=protocols)) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, result.response_body) == (200, b"ok")
    assert result.timings.tls_ms > 0


Make = Callable[[Authority, Authority], ssl.SSLContext]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda own, other: other.server(), "certificate", id="another authority"),
        pytest.param(lambda own, other: own.server(days=-1), "expired", id="expired"),
        pytest.param(lambda own, other: own.server("127.0.0.2"), "127.0.0.1", id="another address"),
        pytest.param(lambda own, other: own.server("good.test"), "127.0.0.1", id="a name"),
    ],
)
def test_it_trusts_no_other_certificate(
    make: Callable[[Authority, Authority], ssl.SSLContext], words: str, sender: Sender, authority: Authority, tmp_path: Path
) -> None:
    requests: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(1))

    with Wire(listen, tls=make(authority, Authority(tmp_path))) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, result.error) == (None, Error.TLS)
    assert words in result.error_detail
    assert requests in ([], [b""])
    assert_bounded(result)


def hello(answer: bytes, *, close: bool = True) -> Behaviour:
    """Answers the first message of a TLS handshake with these bytes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()
        if not close:
            await asyncio.sleep(3600)

    return behave


# The beginning of a handshake record that announces 122 bytes.
HALF_A_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="plain text"),
        pytest.param(OK, id="a plain answer"),
        pytest.param(HALF_A_HELLO, id="half a hello"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", id="an alert"),
        pytest.param(b"\x16\x03\x03\xff\xff" + b"\xff" * 0xFFFF, id="a record too long"),
        pytest.param(b"\0" * 100_000, id="zeros"),
        pytest.param(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", id="an empty hello"),
    ],
)
def test_it_names_a_handshake_that_fails(answer: bytes, sender: Sender) -> None:
    with Wire(hello(answer)) as wire:
        result = post(sender, wire.url.replace("http:", "https:"), timeout_ms=MINUTE_MS)
    assert (result.status, result.error) == (None, Error.TLS)
    assert_bounded(result)


@pytest.mark.parametrize("answer", [b"", HALF_A_HELLO])
def test_it_gives_up_on_a_handshake_that_never_ends(answer: bytes, sender: Sender) -> None:
    with Wire(hello(answer, close=False)) as wire:
        result = post(sender, wire.url.replace("http:", "https:"), timeout_ms=SHORT_MS)
        assert (result.status, result.error) == (None, Error.TIMEOUT)
        assert_bounded(result)


# --- HTTP/2 --------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as RFC 9113, 4.1, has it."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


async def read_h2_request(reader: asyncio.StreamReader) -> None:
    """Reads the preface and frames to the end of the first stream."""
    await reader.readexactly(24)
    flags = kind = 0
    while kind not in (0, 1) or not flags & 1:
        head = await reader.readexactly(9)
        kind, flags = head[3], head[4]
        await reader.readexactly(int.from_bytes(head[:3], "big"))


def h2(*frames: bytes, forever: bytes = b"") -> Behaviour:
    """Answers a request with these frames, then with one of them for ever, or closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await read_h2_request(reader)
        writer.write(b"".join(frames))
        await writer.drain()
        block = forever * max(1, 20_000 // len(forever)) if forever else b""
        while forever and not writer.is_closing():
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(0)  # over TLS nothing else here lets the end of the connection be seen

    return behave


SETTINGS = frame(4, 0, 0)
HEADERS = frame(1, 4, 1, b"\x88")  # :status 200
FIELD = b"\x40\x01a\x01b"  # a: b


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(saying(OK), id="HTTP/1 instead"),
        pytest.param(h2(b"\xff" * 5000), id="garbage"),
        pytest.param(h2(frame(7, 0, 0, struct.pack(">II", 0, 11))), id="goaway"),
        pytest.param(h2(frame(3, 0, 1, struct.pack(">I", 2))), id="stream reset"),
        pytest.param(h2(frame(0, 0, 1, b"x" * 20_000)), id="frame too large"),
        pytest.param(h2(frame(8, 0, 1, struct.pack(">I", 0))), id="window of nothing"),
        pytest.param(h2(frame(1, 4, 3, b"\x88")), id="a stream nobody opened"),
        pytest.param(h2(frame(1, 4, 1, b"\xff" * 6)), id="headers that cannot be unpacked"),
        pytest.param(h2(frame(1, 5, 1, FIELD)), id="no status"),
        pytest.param(h2(frame(1, 5, 1, b"\x08\x03101")), id="status 101"),
        pytest.param(h2(HEADERS, HEADERS), id="headers twice"),
        pytest.param(h2(frame(1, 4, 1, b"\x88\x0f\x0d\x0210"), frame(0, 1, 1, b"ok")), id="another length"),
        pytest.param(h2(frame(1, 0, 1, b"\x88\x40\x02xa\x7f\xb9\x16" + b"v" * 3000), frame(9, 4, 1, b"\xbe" * 16_000)), id="header bomb"),
        pytest.param(h2(forever=frame(6, 0, 0, b"12345678")), id="pings"),
        pytest.param(h2(forever=SETTINGS), id="settings"),
        pytest.param(h2(HEADERS, forever=frame(0, 0, 1)), id="empty data"),
        pytest.param(h2(frame(1, 0, 1, b"\x88"), forever=frame(9, 0, 1, FIELD)), id="continuations"),
        pytest.param(h2(forever=frame(1, 4, 1, b"\x08\x03103")), id="interim answers"),
        pytest.param(h2(HEADERS, forever=frame(1, 4, 1, FIELD)), id="trailers"),
        pytest.param(h2(forever=frame(99, 0, 0, b"x" * 10_000)), id="unknown frames"),
    ],
)
def test_it_names_http2_that_is_wrong(behaviour: Behaviour, sender: Sender, authority: Authority) -> None:
    with Wire(behaviour, tls=authority.server(protocols=["h2"])) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
        assert (result.status, result.error) == (None, Error.BAD_RESPONSE)
        assert wire.connections == 1
    assert_bounded(result)


def test_it_takes_the_status_of_endless_http2(sender: Sender, authority: Authority) -> None:
    with Wire(h2(HEADERS, forever=frame(0, 0, 1, b"x" * 16_000)), tls=authority.server(protocols=["h2"])) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
    assert (result.status, len(result.response_body)) == (200, MAX_KEPT_BODY)


@pytest.mark.parametrize("frames", [frame(7, 0, 0, struct.pack(">II", 0, 0)), frame(3, 0, 1, struct.pack(">I", 7))])
def test_it_asks_a_receiver_that_did_not_begin_only_a_few_times_more(frames: bytes, sender: Sender, authority: Authority) -> None:
    """libcurl repeats what HTTP/2 says was not processed (RFC 9113, 8.7)."""
    with Wire(h2(frames), tls=authority.server(protocols=["h2"])) as wire:
        result = post(sender, wire.url, timeout_ms=MINUTE_MS)
        assert (result.status, result.error) == (None, Error.RESET)
        assert 1 < wire.connections <= 6
    assert_bounded(result)
