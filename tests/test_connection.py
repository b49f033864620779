"""One connection to a Jetstream, against the player and against hosts that misbehave on the wire."""

import json
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from delivery.sources.jetstream import connection as module
from delivery.sources.jetstream.compression import V1_DICTIONARY, Dictionary, Undecodable
from delivery.sources.jetstream.connection import SILENCE_S, Connection, Disconnected, Refused
from delivery.sources.jetstream.frames import MAX_FRAME, InvalidFrame, parse
from delivery.sources.jetstream.wires import Asked, wire_of
from subscriptions.matching import Wanted
from tests.builders import DID, POST, frame
from tests.hosts import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Host, Visit, compressed, error_v2, frame_v2, playing, refusing, sending, trained

EVERYTHING = Wanted()
LIKE = "app.bsky.feed.like"
BOB = "did:plc:" + "b" * 24
# What a connection may hold while a host sends it hundreds of megabytes.
BOUND = 12 * 1024 * 1024


def connect(url: str, wanted: Wanted = EVERYTHING, cursor: int | None = None, **over: Any) -> "closing[Connection]":
    return closing(opened(url, wanted, cursor, **over))


def opened(url: str, wanted: Wanted = EVERYTHING, cursor: int | None = None, silence_s: float = SILENCE_S, id: int | None = None) -> Connection:
    dictionary = Dictionary(trained(id)) if id is not None else None
    connection = Connection(wire_of(url), Asked(wanted, cursor, id), "Jetrelay/test", dictionary)
    connection.open(silence_s)
    return connection


def receive_one(connection: Connection) -> bytes:
    """The next message, whatever signs of life come before it."""
    while (body := connection.receive()) is None:
        pass
    return body


def receive(connection: Connection, messages: int) -> list[bytes]:
    return [receive_one(connection) for _ in range(messages)]


def open_and_close(url: str) -> None:
    with connect(url):
        pass


def assert_refused(body: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(body)


@pytest.fixture
def peak() -> Iterator[None]:
    """The test keeps within BOUND, whatever the host sends."""
    tracemalloc.start()
    try:
        yield
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert highest < BOUND


# --- A host that behaves -----------------------------------------------------------------------------------------------


def test_it_receives_every_message_byte_for_byte() -> None:
    lines = [frame(1), b" [garbage\xff", frame(2, commit={"record": {"text": "x" * 700_000}}), b'{ "odd" : 1 }\r', frame(3)]
    with playing(lines) as url, connect(url) as connection:
        assert receive(connection, len(lines)) == lines


def test_it_asks_for_what_is_wanted() -> None:
    lines = [frame(1, commit={"collection": LIKE}), frame(2, did=BOB), frame(3), frame(4, commit={"collection": "app.bsky.graph.follow"}), frame(5)]
    with playing(lines) as url, connect(url, Wanted((POST, "app.bsky.graph.*"), (DID,))) as connection:
        assert receive(connection, 3) == [lines[2], lines[3], lines[4]]


def test_it_starts_at_the_cursor() -> None:
    lines = [frame(number) for number in range(10)]
    with playing(lines) as url, connect(url, cursor=1_780_000_000_000_007) as connection:
        assert receive(connection, 3) == lines[7:]


def test_it_names_itself_and_asks_for_nothing_that_drops_events() -> None:
    with Host(sending(frame(1))) as host, connect(host.url, Wanted((POST,), (DID,)), 5) as connection:
        receive_one(connection)
        (visit,) = host.visits
        assert visit.query == {"wantedCollections": [POST], "wantedDids": [DID], "cursor": ["5"]}
        assert b"\r\nUser-Agent: Jetrelay/test\r\n" in visit.head
        assert b"extensions" not in visit.head.lower()


def test_it_sends_a_long_filter_after_the_handshake() -> None:
    wanted = Wanted((POST,), (*(f"did:plc:{number:024d}" for number in range(9_999)), DID))
    lines = [frame(1, did=BOB), frame(2, commit={"collection": LIKE}), frame(3)]
    with playing(lines) as url, connect(url, wanted) as connection:
        assert receive_one(connection) == lines[2]


def test_it_says_hello_with_a_long_filter_and_keeps_the_cursor() -> None:
    dids = tuple(f"did:plc:{number:024d}" for number in range(500))
    told: list[bytes] = []

    def script(visit: Visit) -> None:
        visit.accept()
        told.append(visit.read()[1])
        visit.send(frame(1))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url, Wanted((POST,), dids), 77) as connection:
        receive_one(connection)
        assert host.visits[0].query == {"cursor": ["77"], "requireHello": ["true"]}
    assert json.loads(told[0]) == {"type": "options_update", "payload": {"wantedCollections": [POST], "wantedDids": list(dids), "maxMessageSizeBytes": 0}}


def test_it_changes_the_filter_of_the_running_connection() -> None:
    lines = [frame(number, commit={"collection": POST if number % 2 else LIKE}) for number in range(4_000)]
    with playing(lines, rate=2_000) as url, connect(url, Wanted((POST,))) as connection:
        first = receive_one(connection)
        connection.update(lambda: Wanted((LIKE,)))
        kinds = [parse(first).type]
        while kinds[-1] == POST:
            kinds.append(parse(receive_one(connection)).type)
        assert kinds[0] == POST
        assert {parse(body).type for body in receive(connection, 50)} == {LIKE}


def test_it_puts_the_parts_of_a_message_together() -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        whole = frame(1)
        visit.send(whole[:10], fin=False)
        visit.send(b"", CONTINUATION, fin=False)
        visit.send(b"control frames may come in between", PING)
        visit.send(whole[10:90], CONTINUATION, fin=False)
        visit.send(whole[90:], CONTINUATION)
        visit.send(frame(2))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection:
        assert receive(connection, 2) == [frame(1), frame(2)]


def test_it_answers_pings() -> None:
    answers: list[tuple[int, bytes]] = []

    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"are you there", PING)
        answers.append(visit.read())
        visit.send(frame(1))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection:
        assert receive_one(connection) == frame(1)
    assert answers == [(PONG, b"are you there")]


# --- A host that refuses -----------------------------------------------------------------------------------------------


def test_it_says_what_the_host_had_against_it() -> None:
    with playing([]) as url, pytest.raises(Disconnected, match=r"answered 400: wantedCollections: 'app\.bsky\.fo\*' is neither"):
        connect(url, Wanted(("app.bsky.fo*",)))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        ("400 Bad Request", b"cursor: too odd\n", "the host answered 400: cursor: too odd$"),
        ("401 Unauthorized", b"", "the host answered 401$"),
        ("404 Not Found", b"\xff\xfe", "the host answered 404: "),
        ("503 Service Unavailable", b"warming up", "the host answered 503: warming up"),
        ("500 Oops", b"x" * 5_000, "the host answered 500: x{200}…$"),
        ("200 OK", b"a web page", "the host answered 200: a web page"),
        ("301 Moved Permanently", b"", "[Rr]edirect"),
    ],
)
def test_it_says_how_the_host_answered(status: str, body: bytes, words: str) -> None:
    with Host(refusing(status, body, "Location: ws://127.0.0.1:9/subscribe\r\n")) as host, pytest.raises(Disconnected, match=words):
        open_and_close(host.url)


def test_it_never_follows_a_redirect() -> None:
    with Host(sending(frame(1))) as other:
        with Host(refusing("302 Found", b"", f"Location: {other.url}\r\n")) as host, pytest.raises(Disconnected):
            open_and_close(host.url)
        assert not other.visits


def test_it_says_that_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Disconnected, match=r"cannot connect: .*refused"):
        open_and_close(f"ws://127.0.0.1:{port}/subscribe")


def test_it_says_that_the_name_is_unknown() -> None:
    with pytest.raises(Disconnected, match="cannot connect: "):
        open_and_close("ws://jetstream.invalid/subscribe")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 \xff\xff\r\n\r\n",
        b"\x16\x03\x01" + b"\0" * 50,
    ],
)
def test_it_refuses_what_is_no_handshake(answer: bytes) -> None:
    def script(visit: Visit) -> None:
        visit.sock.sendall(answer)
        visit.sock.shutdown(socket.SHUT_RDWR)

    with Host(script) as host, pytest.raises(Disconnected, match=r"cannot connect|answered"):
        open_and_close(host.url)


def test_it_gives_up_on_a_handshake_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.1)
    with Host(Visit.wait_until_gone) as host, pytest.raises(Disconnected, match="timed out"):
        open_and_close(host.url)


# --- A host that ends it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (1000, "", r"closed by the host with code 1000$"),
        (1001, "going away", r"code 1001 \(going away\)"),
        (1008, "consumer too slow", r"code 1008 \(consumer too slow\)"),
        (1011, "ü" * 61, r"code 1011 \(ü{61}\)"),
        (4000, "", "code 4000"),
    ],
)
def test_it_says_how_the_host_closed(code: int, reason: str, words: str) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.close(code, reason)
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection, pytest.raises(Disconnected, match=words):
        receive_one(connection)


def test_it_says_that_the_host_closed_without_a_code() -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"", CLOSE)
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection, pytest.raises(Disconnected, match="code 1005"):
        receive_one(connection)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "halfway", [b"", b"\x81", b"\x81\x7e\xff", b"\x81\x7e\xff\xff" + b"x" * 1000, b"\x81\x7f" + struct.pack("!Q", MAX_FRAME * 2) + b"x" * 1000]
)
def test_it_notices_an_end_without_a_word(halfway: bytes, reset: bool) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.sock.sendall(halfway)
        if reset:
            visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            visit.sock.close()
        else:
            visit.sock.shutdown(socket.SHUT_RDWR)

    with Host(script) as host, pytest.raises(Disconnected), connect(host.url) as connection:
        receive_one(connection)


def test_it_ends_when_the_player_shuts_down() -> None:
    with playing([frame(1)]) as url:
        connection = opened(url)
        assert receive_one(connection) == frame(1)
    with closing(connection), pytest.raises(Disconnected, match="code 1001"):
        receive_one(connection)


def test_it_can_be_closed_under_whoever_waits() -> None:
    with Host(sending()) as host, ThreadPoolExecutor() as threads:
        connection = opened(host.url)
        waiting = threads.submit(receive_one, connection)
        connection.close()
        connection.close()
        with pytest.raises(Disconnected):
            waiting.result(10)
        with pytest.raises(Disconnected):
            connection.update(lambda: EVERYTHING)
        with pytest.raises(Disconnected):
            receive_one(connection)


def test_it_may_be_closed_from_several_threads_at_once() -> None:
    start = threading.Barrier(3)

    def close(connection: Connection) -> None:
        start.wait(10)
        connection.close()

    with Host(sending()) as host, ThreadPoolExecutor(3) as threads:
        for _ in range(50):
            connection = opened(host.url)
            for done in [threads.submit(close, connection) for _ in range(3)]:
                done.result(10)


# --- A host that falls silent ------------------------------------------------------------------------------------------


def test_it_pings_a_silent_host_and_gives_up_when_no_word_comes() -> None:
    heard: list[int] = []

    def script(visit: Visit) -> None:
        visit.accept()
        heard.append(visit.read()[0])
        visit.wait_until_gone()

    with Host(script) as host:
        with connect(host.url, silence_s=0.1) as connection, pytest.raises(Disconnected, match="no word from the host"):
            receive_one(connection)
        assert heard == [PING]


def test_it_stays_while_a_silent_host_answers_pings() -> None:

    def script(visit: Visit) -> None:
        visit.accept()
        for _ in range(4):
            assert visit.read()[0] == PING
            visit.send(b"", PONG)
        visit.send(frame(1))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url, silence_s=0.1) as connection:
        assert receive_one(connection) == frame(1)


def test_it_goes_on_where_silence_cut_a_frame_in_two() -> None:

    def script(visit: Visit) -> None:
        visit.accept()
        for size in (1_000, 3 * MAX_FRAME):
            visit.announce(size)
            visit.pour(size - 500)
            assert visit.read()[0] == PING
            visit.pour(500)
        visit.send(frame(1))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url, silence_s=0.1) as connection:
        assert receive_one(connection) == b"x" * 1_000
        assert_refused(receive_one(connection))
        assert receive_one(connection) == frame(1)


# --- A host that sends too much ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [MAX_FRAME + 1, MAX_FRAME + 2, MAX_FRAME + 65_537, 60 * 1024 * 1024])
def test_it_drops_a_huge_frame_and_goes_on(size: int, opcode: int) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        visit.announce(size, opcode)
        visit.pour(size)
        visit.send(frame(2))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection:
        assert receive_one(connection) == frame(1)
        assert_refused(receive_one(connection))
        assert receive_one(connection) == frame(2)


@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("size", [65 * 1024 * 1024, 2**40, 2**63 - 1])
def test_it_leaves_a_host_that_announces_an_absurd_frame(size: int) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.announce(size)
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection, pytest.raises(Disconnected, match=f"claims to have {size:,} bytes"):
        receive_one(connection)


@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("part", [1_000, 65_536, MAX_FRAME + 5])
def test_it_drops_a_huge_message_in_parts_and_goes_on(part: int) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"{", fin=False)
        for _ in range(3 * MAX_FRAME // part + 1):
            visit.announce(part, CONTINUATION, fin=False)
            visit.pour(part)
        visit.send(b"}", CONTINUATION)
        visit.send(frame(2))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection:
        assert_refused(receive_one(connection))
        assert receive_one(connection) == frame(2)


@pytest.mark.usefixtures("peak")
def test_it_leaves_a_host_whose_message_never_ends() -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"{", fin=False)
        for _ in count():
            visit.send(b"x" * 65_536, CONTINUATION, fin=False)

    with Host(script) as host, connect(host.url) as connection, pytest.raises(Disconnected, match="a message in parts"):
        receive_one(connection)


def test_it_leaves_a_host_whose_empty_parts_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SKIPPED", 1_000)

    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"{", fin=False)
        for _ in count():
            visit.send(b"", CONTINUATION, fin=False)

    with Host(script) as host, connect(host.url) as connection, pytest.raises(Disconnected, match="a message in parts"):
        receive_one(connection)


# --- A host that does not speak the protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b"\xc1\x05hello",  # compressed, which nobody asked for
        b"\x83\x00",  # an opcode that does not exist
        b"\x80\x01x",  # the continuation of nothing
        b"\x89\x7e\x00\x80" + b"x" * 128,  # a ping that is too long
        b"\x88\x01x",  # half a close code
        b"\x88\x02\x00\x01",  # a close code that does not exist
        b"\x01\x01{\x81\x01}",  # a message inside another
        b"\x09\x01x",  # a ping in parts
    ],
)
def test_it_leaves_a_host_that_breaks_the_protocol(bad: bytes) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.sock.sendall(bad)
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection, pytest.raises(Disconnected) as caught:
        receive_one(connection)
    assert str(caught.value)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("body", [b"\x28\xb5\x2f\xfd\x00\x00", b"\xff\xfe", b""])
def test_it_hands_on_messages_that_are_no_events(body: bytes, opcode: int) -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(body, opcode)
        visit.send(frame(1))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection:
        garbage, event = receive(connection, 2)
    assert garbage == body
    assert_refused(garbage)
    assert event == frame(1)


# --- The v2 wire -------------------------------------------------------------------------------------------------------


def test_it_speaks_the_v2_wire() -> None:
    with Host(sending(frame_v2(1, 7))) as host, connect(host.v2_url, Wanted((POST,), (DID,), ("commit",)), 7) as connection:
        assert receive_one(connection) == frame_v2(1, 7)
        (visit,) = host.visits
    assert visit.path == "/xrpc/network.bsky.jetstream.subscribeEvents"
    assert visit.query == {"kinds": ["commit"], "collections": [POST], "dids": [DID], "cursor": ["7"]}


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "after"),
    [
        ("400 Bad Request", error_v2("CursorTooOld"), "", "CursorTooOld", None),
        ("400 Bad Request", error_v2("UnknownZstdDictionary"), "", "UnknownZstdDictionary", None),
        ("400 Bad Request", b"cursor: too odd", "", "", None),
        ("400 Bad Request", b'["CursorTooOld"]', "", "", None),
        ("400 Bad Request", b'{"message":"x"}', "", "", None),
        ("503 Service Unavailable", b"", "Retry-After: 7\r\n", "", 7.0),
        ("503 Service Unavailable", b"", "retry-after: 0\r\n", "", 0.0),
        ("429 Too Many Requests", b"", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", "", None),
        ("429 Too Many Requests", b"", "Retry-After: -5\r\n", "", None),
        ("429 Too Many Requests", b"", "Retry-After: \r\n", "", None),
    ],
)
def test_it_says_what_a_refusal_means(status: str, body: bytes, headers: str, error: str, after: float | None) -> None:
    with Host(refusing(status, body, headers)) as host, pytest.raises(Refused) as caught:
        open_and_close(host.v2_url)
    assert (caught.value.status, caught.value.error, caught.value.retry_after_s) == (int(status[:3]), error, after)


# --- Compressed frames -------------------------------------------------------------------------------------------------


def test_it_reads_compressed_frames_and_text_frames_alike() -> None:
    packed = compressed(frame(1), trained(V1_DICTIONARY))

    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(packed, BINARY)
        visit.send(frame(2))
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url, id=V1_DICTIONARY) as connection:
        assert receive(connection, 2) == [frame(1), frame(2)]
        assert host.visits[0].query == {"compress": ["true"]}
        # What came over the wire, not what it became.
        assert connection.bytes_in == len(packed) + len(frame(2))


def test_it_hands_out_the_frame_that_does_not_decompress() -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"garbage", BINARY)
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url, id=V1_DICTIONARY) as connection, pytest.raises(Undecodable) as caught:
        receive_one(connection)
    assert caught.value.frame == b"garbage"


# --- Signs of life, and ends at every moment ---------------------------------------------------------------------------


def test_a_sign_of_life_is_no_message() -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(b"", PING)
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection:
        assert connection.receive() is None


def test_a_handshake_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_S", 0.3)
    gone = threading.Event()

    def script(visit: Visit) -> None:
        try:
            # A byte at a time, each soon enough after the one before.
            while not gone.wait(0.02):
                visit.sock.sendall(b"x")
        finally:
            gone.set()

    with Host(script) as host, pytest.raises(Disconnected, match="the handshake was cut off"):
        open_and_close(host.url)
    assert gone.is_set()


def test_it_can_be_closed_while_it_is_being_made() -> None:
    with Host(Visit.wait_until_gone) as host, ThreadPoolExecutor() as threads:
        connection = Connection(wire_of(host.url), Asked(EVERYTHING), "Jetrelay/test")
        opening = threads.submit(connection.open)
        host.wait_for_visits(1)
        assert not connection.established
        connection.close()
        with pytest.raises(Disconnected, match="the handshake was cut off"):
            opening.result(10)


def test_it_is_not_made_after_it_was_closed() -> None:
    with Host(sending()) as host:
        connection = Connection(wire_of(host.url), Asked(EVERYTHING), "Jetrelay/test")
        connection.close()
        with pytest.raises(Disconnected, match="the handshake was cut off"):
            connection.open()
        assert not connection.established


def test_of_two_changes_the_later_one_is_told_last() -> None:
    told: list[list[str]] = []
    both = threading.Event()

    def script(visit: Visit) -> None:
        visit.accept()
        while len(told) < 2:
            told.append(json.loads(visit.read()[1])["payload"]["wantedCollections"])
        both.set()
        visit.wait_until_gone()

    with Host(script) as host, connect(host.url) as connection, ThreadPoolExecutor() as threads:
        changes = iter([Wanted((POST,)), Wanted((LIKE,))])
        for done in [threads.submit(connection.update, lambda: next(changes)) for _ in range(2)]:
            done.result(10)
        assert both.wait(10)
    assert told == [[POST], [LIKE]]
