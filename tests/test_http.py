"""The sender, against real sockets that answer well, badly, or not at all."""

import asyncio
import gzip
import ipaddress
import os
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from delivery.destinations import http as destination
from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Error, Gate, Inbox
from delivery.destinations.http import Sender
from delivery.destinations.transfer import MAX_KEPT_BODY, MAX_KEPT_HEADERS, MAX_READ_BODY
from tests.receiver import Receiver
from tests.threads import eventually
from tests.wire import LOOPBACK, OK, Crowd, Wire, collect, hang, keep_alive, post, read_request, repeating, request, reset, saying


@pytest.fixture
def sender() -> Iterator[Sender]:
    running = Sender(LOOPBACK)
    yield running
    running.stop()


# --- answers -------------------------------------------------------------------------------------------------------


def test_it_brings_back_the_status_the_headers_and_the_body(sender: Sender, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(200, b"thanks", {"X-Thing": "yes"})
    result = post(sender, receiver.url, tag="the tag")
    assert (result.tag, result.status, result.error, result.error_detail, result.response_body) == ("the tag", 200, None, "", b"thanks")
    assert result.response_headers.startswith("HTTP/1.1 200 OK\r\n")
    assert "X-Thing: yes\r\n" in result.response_headers


def test_it_brings_back_a_500_as_a_status_and_not_an_error(sender: Sender, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(500, b"sorry")
    result = post(sender, receiver.url)
    assert (result.status, result.error, result.response_body) == (500, None, b"sorry")


def test_it_times_every_phase(sender: Sender, receiver: Receiver) -> None:
    timings = post(sender, receiver.url).timings
    assert 0 <= timings.dns_ms <= timings.connect_ms <= timings.first_byte_ms <= timings.total_ms < 10_000
    assert timings.connect_ms > 0
    assert timings.tls_ms == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_it_does_not_follow_a_redirect(status: int, sender: Sender, receiver: Receiver) -> None:
    with Wire(saying(OK)) as target:
        receiver.answer = lambda handler, _: handler.reply(status, b"", {"Location": target.url})
        assert post(sender, receiver.url).status == status
        # Asking once more gives a hidden second request the time to show.
        assert post(sender, receiver.url).status == status
        assert target.connections == 0
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [(429, "7", 7), (503, "120", 120), (503, "soon", 0), (429, "-5", 0), (500, "7", 0), (200, "7", 0)],
)
def test_it_tells_how_long_a_busy_receiver_wants_to_rest(status: int, value: str, seconds: int, sender: Sender, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(status, b"", {"Retry-After": value})
    assert post(sender, receiver.url).retry_after_s == seconds


def test_it_forgets_the_retry_after_of_the_request_before(sender: Sender, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(503, b"", {"Retry-After": "9"})
    assert post(sender, receiver.url).retry_after_s == 9
    receiver.answer = lambda handler, _: handler.reply(503)
    assert post(sender, receiver.url).retry_after_s == 0


def test_it_forgets_the_response_of_the_request_before(sender: Sender, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(200, b"a long answer", {"X-First": "1"})
    post(sender, receiver.url)
    receiver.answer = lambda handler, _: handler.reply(200, b"")
    second = post(sender, receiver.url)
    assert second.response_body == b""
    assert "X-First" not in second.response_headers


# --- what is sent --------------------------------------------------------------------------------------------------


def test_it_sends_headers_as_given_and_the_body_byte_for_byte(sender: Sender) -> None:
    requests: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(OK)
        await writer.drain()

    body = bytes(range(256)) * 3
    headers = ["X-Zulu: 1", "webhook-id: evt_1", "Content-Type: application/json", "x-ALPHA: a,  b", "Expect:"]
    with Wire(keep) as wire:
        assert post(sender, wire.url + "?a=b%20c", headers=headers, body=body).status == 200
    head, _, sent = requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert sent == body
    assert lines[0] == "POST /hook?a=b%20c HTTP/1.1"
    assert f"Host: 127.0.0.1:{wire.port}" in lines
    assert f"Content-Length: {len(body)}" in lines
    assert [line for line in lines if line in headers] == headers[:-1]
    assert not [line for line in lines if line.lower().startswith(("expect", "accept-encoding", "cookie", "authorization"))]


def test_it_sends_an_empty_body(sender: Sender, receiver: Receiver) -> None:
    assert post(sender, receiver.url, body=b"").status == 200
    assert receiver.requests[0].body == b""
    assert receiver.requests[0].headers["content-length"] == "0"


def test_it_sends_a_large_body(sender: Sender, receiver: Receiver) -> None:
    body = os.urandom(2_000_000)
    assert post(sender, receiver.url, body=body).status == 200
    assert receiver.requests[0].body == body


def test_it_keeps_no_cookies(sender: Sender, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(200, b"", {"Set-Cookie": "session=1"})
    post(sender, receiver.url)
    post(sender, receiver.url)
    assert "cookie" not in receiver.requests[1].headers


def test_it_sends_no_password_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    running = Sender(LOOPBACK)
    try:
        assert post(running, receiver.url).status == 200
    finally:
        running.stop()
    assert "authorization" not in receiver.requests[0].headers


def test_it_reuses_a_connection(sender: Sender) -> None:
    with Wire(keep_alive) as wire:
        assert [post(sender, wire.url).status for _ in range(5)] == [200] * 5
        assert wire.connections == 1


def test_it_reuses_a_connection_while_more_requests_hang_than_it_keeps_connections() -> None:
    running, inbox = Sender(LOOPBACK, most_idle=2), Inbox()
    try:
        with Wire(hang) as hanging, Wire(keep_alive) as wire:
            running.submit(request(hanging.url, inbox) for _ in range(10))
            eventually(lambda: hanging.connections == 10)
            assert [post(running, wire.url).status for _ in range(5)] == [200] * 5
            assert wire.connections == 1
    finally:
        running.stop()


# --- receivers that misbehave --------------------------------------------------------------------------------------


def test_it_gives_up_on_a_hanging_receiver_while_others_are_served(sender: Sender, receiver: Receiver) -> None:
    slow, quick = Inbox(), Inbox()
    with Wire(hang) as hanging:
        started = monotonic()
        sender.submit(request(hanging.url, slow, timeout_ms=2500) for _ in range(20))
        sender.submit(request(receiver.url, quick) for _ in range(50))
        assert {result.status for result in collect(quick, 50, 2.4)} == {200}
        assert slow.take(0) == []
        results = collect(slow, 20, 5)
        assert 2.4 < monotonic() - started < 6
    assert {(result.status, result.error) for result in results} == {(None, Error.TIMEOUT)}


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", id="header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", id="body"),
    ],
)
def test_it_gives_up_on_an_answer_that_drips(start: bytes, sender: Sender) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)
        for byte in b"HTTP/1.1 200 OK" if not start else b"X" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    with Wire(drip) as wire:
        result = post(sender, wire.url, timeout_ms=400)
    assert (result.status, result.error) == (None, Error.TIMEOUT)
    assert 350 < result.timings.total_ms < 3000


def test_it_names_a_reset(sender: Sender) -> None:
    with Wire(reset) as wire:
        result = post(sender, wire.url)
    assert result.status is None
    assert result.error in (Error.RESET, Error.EMPTY_RESPONSE)
    assert result.error_detail


def test_it_names_a_connection_that_closes_without_an_answer(sender: Sender) -> None:
    with Wire(saying(b"")) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (None, Error.EMPTY_RESPONSE)


def test_it_names_a_refused_connection(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    result = post(sender, f"http://127.0.0.1:{port}/")
    assert (result.status, result.error) == (None, Error.CONNECT)


def test_it_names_an_unknown_host(sender: Sender) -> None:
    result = post(sender, "http://nowhere.invalid/")
    assert (result.status, result.error) == (None, Error.DNS)
    assert "nowhere.invalid" in result.error_detail


def test_it_takes_the_status_of_an_endless_body_and_keeps_a_little_of_it(sender: Sender) -> None:
    with Wire(repeating(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536)) as wire:
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = post(sender, wire.url)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
        assert wire.ended.wait(10)
    assert (result.status, result.error) == (200, None)
    assert result.response_body == b"x" * MAX_KEPT_BODY
    assert result.timings.total_ms < 5000
    assert grown_kb < 50_000


def test_it_takes_the_status_of_an_endless_chunked_body(sender: Sender) -> None:
    with Wire(repeating(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"y" * 4096 + b"\r\n")) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error, len(result.response_body)) == (503, None, MAX_KEPT_BODY)


def test_it_names_endless_headers(sender: Sender) -> None:
    with Wire(repeating(b"HTTP/1.1 200 OK\r\n", b"X-Padding: " + b"p" * 1000 + b"\r\n")) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)
    assert len(result.response_headers) <= MAX_KEPT_HEADERS


def test_it_names_one_endless_header_line(sender: Sender) -> None:
    with Wire(repeating(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"p" * 1000)) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)


def test_it_survives_a_flood_of_interim_answers(sender: Sender) -> None:
    with Wire(repeating(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)) as wire:
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = post(sender, wire.url, timeout_ms=2000)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert result.status is None
    assert result.error in (Error.TIMEOUT, Error.BAD_RESPONSE)
    assert result.timings.total_ms < 5000
    assert grown_kb < 50_000


def test_it_takes_the_final_answer_after_interim_ones(sender: Sender) -> None:
    with Wire(saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error, result.response_body) == (200, None, b"ok")


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh"),
        pytest.param(os.urandom(5000), id="noise"),
        pytest.param(b"\0" * 5000, id="nul"),
        pytest.param(b"<html>hello</html>", id="HTTP/0.9"),
        pytest.param(b"HTTP/9.9 200 OK\r\n\r\n", id="version"),
        pytest.param(b"HTTP/1.1 banana\r\n\r\n", id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: banana\r\n\r\n", id="length"),
        pytest.param(b"HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n", id="zero"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", id="chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\n\r\n", id="nul in a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\xff\xfe\r\n\r\n", id="no header"),
    ],
)
def test_it_names_garbage_instead_of_http(garbage: bytes, sender: Sender) -> None:
    with Wire(saying(garbage)) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)
    assert result.error_detail


def test_it_names_a_body_that_ends_too_soon(sender: Sender) -> None:
    with Wire(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (None, Error.BAD_RESPONSE)


def test_it_takes_a_body_that_goes_on_too_long_up_to_its_length(sender: Sender) -> None:
    with Wire(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more")) as wire:
        result = post(sender, wire.url)
        assert (result.status, result.error, result.response_body) == (200, None, b"ok")
        # What was left over is not taken for the answer to the next request.
        assert post(sender, wire.url).response_body == b"ok"


def test_it_does_not_unpack_a_compressed_bomb(sender: Sender) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    assert len(bomb) < MAX_READ_BODY
    with Wire(saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)) as wire:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (200, None)
    assert result.response_body == bomb[:MAX_KEPT_BODY]


def test_it_trusts_no_self_signed_certificate(sender: Sender, tmp_path: Path) -> None:
    crowd = Crowd()
    with Wire(crowd.behave, tls=self_signed(tmp_path)) as wire:
        result = post(sender, wire.url)
        assert wire.ended.wait(10)
    assert (result.status, result.error) == (None, Error.TLS)
    assert crowd.order == []


def test_it_names_a_receiver_that_does_not_speak_tls(sender: Sender, receiver: Receiver) -> None:
    result = post(sender, receiver.url.replace("http://", "https://"))
    assert (result.status, result.error) == (None, Error.TLS)
    assert receiver.requests == []


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server context for 127.0.0.1 that no authority vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


# --- the door ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "localhost",
        "LOCALHOST.",
        "%31%32%37.0.0.1",
    ],
)
def test_it_refuses_every_spelling_of_an_inner_address(host: str, receiver: Receiver) -> None:
    running = Sender(Door())
    try:
        result = post(running, f"http://{host}:{receiver.port}/")
    finally:
        running.stop()
    assert (result.status, result.error) == (None, Error.REFUSED_ADDRESS)
    assert "is not a public address" in result.error_detail
    assert receiver.requests == []


def test_it_reaches_an_allowed_address_behind_a_name(receiver: Receiver) -> None:
    running = Sender(Door(allowed=(ipaddress.ip_network("127.0.0.0/8"),)))
    try:
        assert post(running, f"http://localhost:{receiver.port}/").status == 200
    finally:
        running.stop()


def test_it_lets_the_operators_own_url_pass(receiver: Receiver) -> None:
    running = Sender(Door(everything=True))
    try:
        assert post(running, receiver.url).status == 200
    finally:
        running.stop()


def test_it_never_gives_one_door_a_connection_of_another() -> None:
    operators, everybodys = Sender(Door(everything=True)), Sender(Door())
    try:
        with Wire(keep_alive) as wire:
            assert post(operators, wire.url).status == 200
            assert post(everybodys, wire.url).error is Error.REFUSED_ADDRESS
            assert post(operators, wire.url).status == 200
            assert wire.connections == 1
    finally:
        operators.stop()
        everybodys.stop()


def test_it_has_one_sender_for_each_door() -> None:
    assert destination.sender() is destination.sender()
    assert destination.sender(operators=True) is destination.sender(operators=True)
    assert destination.sender() is not destination.sender(operators=True)


def test_it_takes_no_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    with Wire(saying(OK)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        running = Sender(LOOPBACK)
        try:
            assert post(running, receiver.url).status == 200
            assert post(running, receiver.url.replace("http:", "https:")).error is Error.TLS
        finally:
            running.stop()
        assert proxy.connections == 0
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "dict://127.0.0.1:11211/stats",
        "smtp://127.0.0.1/",
        "scheme://example.com/",
        "http://",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "",
        "http://127.0.0.1/\0",
        "http://exämple.com/",
        "http://127.0.0.1/ x\r\nX-Injected: 1",
    ],
)
def test_it_names_a_url_it_will_not_send_to(url: str, sender: Sender, receiver: Receiver) -> None:
    result = post(sender, url)
    assert (result.status, result.error) == (None, Error.BAD_URL)
    assert result.error_detail
    # The sender goes on.
    assert post(sender, receiver.url).status == 200


@pytest.mark.parametrize("url", ["http://%ff.invalid/", "http://%C3%A4.invalid/", "http://" + "a" * 300 + ".invalid/", "http://a..b.invalid/"])
def test_it_survives_a_host_that_is_no_name(url: str, sender: Sender, receiver: Receiver) -> None:
    result = post(sender, url)
    assert result.error in (Error.DNS, Error.BAD_URL)
    assert result.error_detail.encode()
    assert post(sender, receiver.url).status == 200


@pytest.mark.parametrize("header", ["X-Name: ä", "X-Nul: a\0b"])
def test_it_survives_a_header_that_cannot_be_sent(header: str, sender: Sender, receiver: Receiver) -> None:
    post(sender, receiver.url, headers=[header])
    assert post(sender, receiver.url).status == 200


# --- many at once --------------------------------------------------------------------------------------------------


def test_it_answers_many_requests_at_once(sender: Sender) -> None:
    count = 500
    arrived: list[bytes] = []
    everyone_is_here = asyncio.Event()

    async def together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await read_request(reader))
        if len(arrived) == count:
            everyone_is_here.set()
        await everyone_is_here.wait()
        writer.write(OK)
        await writer.drain()

    inbox = Inbox()
    with Wire(together) as wire:
        sender.submit(request(wire.url, inbox, tag=number, timeout_ms=60_000) for number in range(count))
        results = collect(inbox, count, 60)
    assert {result.status for result in results} == {200}
    assert sorted(result.tag for result in results) == list(range(count))


def test_it_takes_requests_from_several_threads(sender: Sender, receiver: Receiver) -> None:
    inboxes = [Inbox() for _ in range(4)]

    def submit(inbox: Inbox, name: int) -> None:
        for number in range(50):
            sender.submit([request(receiver.url, inbox, tag=(name, number))])

    threads = [threading.Thread(target=submit, args=(inbox, name)) for name, inbox in enumerate(inboxes)]
    for thread in threads:
        thread.start()
    for name, inbox in enumerate(inboxes):
        results = collect(inbox, 50)
        assert {result.status for result in results} == {200}
        assert sorted(result.tag for result in results) == [(name, number) for number in range(50)]
    for thread in threads:
        thread.join()


def test_it_ends_its_thread_when_stopped() -> None:
    running = Sender(LOOPBACK)
    inbox = Inbox()
    with Wire(hang) as hanging:
        running.submit([request(hanging.url, inbox)])
        running.stop()
    assert not running._thread.is_alive()
    assert inbox.take(0) == []


# --- the inbox -----------------------------------------------------------------------------------------------------


def test_it_tells_a_poke_from_results() -> None:
    inbox = Inbox()
    inbox.poke()
    assert inbox.take(5) == []
    assert inbox.was_poked()
    started = monotonic()
    assert inbox.take(0.05) == []
    assert monotonic() - started >= 0.04
    assert not inbox.was_poked()


def test_it_gives_results_and_says_that_it_was_poked(sender: Sender, receiver: Receiver) -> None:
    result = post(sender, receiver.url)
    inbox = Inbox()
    inbox.put(result)
    inbox.poke()
    assert inbox.take(0) == [result]
    assert inbox.was_poked()
    assert not inbox.was_poked()


def test_it_wakes_a_waiting_lane_for_enough_results(sender: Sender, receiver: Receiver) -> None:
    inbox = Inbox(enough=3)
    sender.submit(request(receiver.url, inbox) for _ in range(3))
    started = monotonic()
    assert len(inbox.take(30)) == 3
    assert monotonic() - started < 20


def test_it_gives_fewer_results_than_enough_when_the_time_is_up(sender: Sender, receiver: Receiver) -> None:
    inbox = Inbox(enough=3)
    inbox.put(post(sender, receiver.url))
    assert len(inbox.take(0.05)) == 1


# --- the gate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_it_opens_no_more_requests_than_the_gate_lets(limit: int, sender: Sender) -> None:
    gate, inbox, crowd = Gate(limit), Inbox(), Crowd()
    with Wire(crowd.behave) as wire:
        sender.submit_to(gate, [request(wire.url, inbox, gate=gate) for _ in range(60)])
        results = collect(inbox, 60)
    assert {result.status for result in results} == {200}
    assert crowd.most == limit
    assert (gate.open, list(gate.waiting)) == (0, [])


def test_it_keeps_the_order_at_a_gate_of_one(sender: Sender) -> None:
    gate, inbox, crowd = Gate(1), Inbox(), Crowd()
    with Wire(crowd.behave) as wire:
        for start in (0, 10):
            sender.submit_to(gate, [request(wire.url, inbox, gate=gate, body=b"%d" % number) for number in range(start, start + 10)])
        collect(inbox, 20)
    assert crowd.order == [b"%d" % number for number in range(20)]


def test_it_frees_the_place_of_a_request_that_could_not_start(sender: Sender, receiver: Receiver) -> None:
    gate, inbox = Gate(1), Inbox()
    urls = ["http://exämple.com/", receiver.url, "ftp://127.0.0.1/", receiver.url]
    sender.submit_to(gate, [request(url, inbox, gate=gate) for url in urls])
    assert [result.status for result in collect(inbox, 4)] == [None, 200, None, 200]
    assert gate.open == 0


def test_it_gives_back_what_still_waits_at_a_gate(sender: Sender) -> None:
    gate, inbox = Gate(2), Inbox()
    with Wire(hang) as hanging:
        sender.submit_to(gate, [request(hanging.url, inbox, gate=gate, tag=number, timeout_ms=300) for number in range(5)])
        while gate.open < 2:
            assert inbox.take(0.01) == []
        withdrawn = gate.withdraw()
        assert sorted(result.tag for result in collect(inbox, 2)) == [0, 1]
    assert [request.tag for request in withdrawn] == [2, 3, 4]
    assert (inbox.take(0), gate.open) == ([], 0)


def test_it_starts_nothing_at_a_gate_whose_time_is_over(sender: Sender, receiver: Receiver) -> None:
    gate, inbox = Gate(10), Inbox()
    gate.open_until = monotonic() - 1
    sender.submit_to(gate, [request(receiver.url, inbox, gate=gate) for _ in range(3)])
    # Another request, submitted later, has come and gone before anything of these has started.
    assert post(sender, receiver.url).status == 200
    assert (len(gate.waiting), len(receiver.requests)) == (3, 1)
    gate.open_until = monotonic() + 60
    sender.submit_to(gate, ())
    assert {result.status for result in collect(inbox, 3)} == {200}


def test_it_makes_headers_when_the_request_starts(sender: Sender) -> None:
    gate, inbox, crowd, made = Gate(1), Inbox(), Crowd(), []

    def headers(now: float, _body: bytes) -> list[str]:
        made.append((len(crowd.order), now))
        return [f"X-Made: {len(made)}"]

    with Wire(crowd.behave) as wire:
        sender.submit_to(gate, [request(wire.url, inbox, gate=gate, headers=headers) for _ in range(3)])
        results = collect(inbox, 3)
    # The time in the headers is the one that is kept with the attempt.
    assert made == list(enumerate(result.started_at for result in results))
