"""The reader of one host: it connects again, holds what it may hold, and loses nothing."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream import reader as module
from delivery.sources.jetstream.frames import parse
from delivery.sources.jetstream.position import OVERLAP_US
from delivery.sources.jetstream.reader import NOTHING_WANTED, Reader
from subscriptions.matching import Wanted
from tests.builders import POST, frame
from tests.hosts import PING, Host, Script, Visit, playing, refusing, sending

EVERYTHING = Wanted()
LIKE = "app.bsky.feed.like"
PATIENCE_S = 20


@contextmanager
def reading(url: str, cursor: int | None = None, wanted: Wanted | None = EVERYTHING) -> Iterator[Reader]:
    reader = Reader(url, cursor, "Jetrelay/test")
    reader.want(wanted)
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()


def take_all(reader: Reader, count: int, most: int = 1000) -> tuple[list[Incoming], int]:
    """Take until there are this many events and rejected frames together."""
    events: list[Incoming] = []
    rejected, deadline = 0, monotonic() + PATIENCE_S
    while len(events) + rejected < count:
        assert monotonic() < deadline, f"{len(events)} events, {rejected} rejected"
        some, bad = reader.take(most, 0.05, 1)
        events += some
        rejected += bad
    return events, rejected


def bodies(events: list[Incoming]) -> list[bytes]:
    return [event.body for event in events]


def sends_and_leaves(*messages: bytes) -> Script:
    def script(visit: Visit) -> None:
        visit.accept()
        for message in messages:
            visit.send(message)
        visit.close(1001)
        visit.wait_until_gone()

    return script


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "_LAST_WAIT_S", 0.04)


# --- Taking ------------------------------------------------------------------------------------------------------------


def test_it_hands_over_what_the_host_sent_in_order() -> None:
    lines = [frame(number) for number in range(5_000)]
    with playing(lines) as url, reading(url) as reader:
        events, rejected = take_all(reader, len(lines))
    assert bodies(events) == lines
    assert rejected == 0


def test_it_does_not_wait_for_a_batch_to_fill() -> None:
    with Host(sending(frame(1))) as host, reading(host.url) as reader:
        assert bodies(reader.take(1000, 0.05, PATIENCE_S)[0]) == [frame(1)]


def test_it_does_not_wait_once_a_batch_is_full() -> None:
    lines = [frame(number) for number in range(30)]
    started = monotonic()
    with Host(sending(*lines)) as host, reading(host.url) as reader:
        batches = [bodies(reader.take(10, 60, PATIENCE_S)[0]) for _ in range(3)]
    assert batches == [lines[:10], lines[10:20], lines[20:]]
    assert monotonic() - started < PATIENCE_S


def test_it_returns_empty_handed_when_nothing_comes() -> None:
    with Host(sending()) as host, reading(host.url) as reader:
        host.wait_for_visits(1)
        assert reader.take(10, 0.05, 0.05) == ([], 0)


def test_it_counts_rejected_frames_and_goes_on() -> None:
    lines = [frame(1), b"garbage", frame(2), b"[]", b"\xff", b"{}", frame(3)]
    with playing(lines) as url, reading(url) as reader:
        events, rejected = take_all(reader, len(lines))
        assert reader.take(10, 0.01, 0.01) == ([], 0)
    assert bodies(events) == [frame(1), frame(2), frame(3)]
    assert rejected == 4


def test_it_hands_over_rejections_without_an_event() -> None:
    with Host(sending(b"garbage")) as host, reading(host.url) as reader:
        assert reader.take(10, 0.05, PATIENCE_S) == ([], 1)


def test_it_can_be_emptied_after_it_was_stopped() -> None:
    lines, read = [frame(number) for number in range(30)], threading.Event()

    def script(visit: Visit) -> None:
        visit.accept()
        for line in lines:
            visit.send(line)
        visit.send(b"", PING)
        visit.read()  # the pong: everything before it has been read
        read.set()
        visit.wait_until_gone()

    with Host(script) as host, reading(host.url) as reader:
        assert read.wait(PATIENCE_S)
        reader.stop()
        assert bodies(take_all(reader, 30, most=20)[0]) == lines
        assert reader.take(10, 60, 0.01) == ([], 0)


# --- Connecting again --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
def test_it_connects_again_a_little_before_where_it_was() -> None:
    newest = frame(9)
    with Host(sends_and_leaves(frame(1), newest, frame(4)), sending(frame(5))) as host, reading(host.url) as reader:
        events, _ = take_all(reader, 4)
        queries = [visit.query for visit in host.visits]
    assert bodies(events) == [frame(1), newest, frame(4), frame(5)]
    assert queries == [{}, {"cursor": [str(1_780_000_000_000_009 - OVERLAP_US)]}]


@pytest.mark.usefixtures("_impatient")
def test_it_connects_again_at_the_number_of_a_host_that_counts() -> None:
    with Host(sends_and_leaves(frame(1, cursor=41), frame(2, cursor=42)), sending(frame(3, cursor=43))) as host, reading(host.url, cursor=40) as reader:
        take_all(reader, 3)
        assert [visit.query for visit in host.visits] == [{"cursor": ["40"]}, {"cursor": ["42"]}]


@pytest.mark.usefixtures("_impatient")
def test_it_stays_where_it_was_when_a_connection_brought_nothing() -> None:
    with Host(sends_and_leaves(), refusing("503 Service Unavailable"), sends_and_leaves(b"garbage"), sending()) as host, reading(host.url, 10**15 + OVERLAP_US):
        visits = host.wait_for_visits(4)
    assert [visit.query for visit in visits] == [{"cursor": [str(10**15)]}] * 4


@pytest.mark.usefixtures("_impatient")
def test_it_misses_nothing_of_a_host_that_hangs_up_all_the_time() -> None:
    lines = [frame(number * 1_000_000) for number in range(60)]  # a second apart

    def script(visit: Visit) -> None:
        visit.accept()
        cursor = int(visit.query.get("cursor", ["0"])[0])
        for line in [line for line in lines if parse(line).time_us >= cursor][:10]:
            visit.send(line)
        visit.sock.shutdown(socket.SHUT_RDWR)

    seen: list[bytes] = []
    with Host(script) as host, reading(host.url) as reader:
        while lines[-1] not in seen:
            seen += bodies(take_all(reader, 1)[0])
    assert list(dict.fromkeys(seen)) == lines


@pytest.mark.usefixtures("_impatient")
def test_it_waits_longer_after_every_failure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, module.__name__), Host(refusing("503 Service Unavailable", b"warming up")) as host, reading(host.url) as reader:
        host.wait_for_visits(6)
        assert reader.problem == "the host answered 503: warming up"
        assert reader.connected_since is None
    pauses = [record.args[-1] for record in caplog.records if isinstance(record.args, tuple)]
    for pause, most in zip(pauses, [0.01, 0.02, 0.04, 0.04, 0.04], strict=False):
        assert isinstance(pause, float)
        assert most / 2 <= pause <= most
    assert len(pauses) >= 5


@pytest.mark.usefixtures("_impatient")
def test_it_is_quick_again_after_a_connection_that_lasted(caplog: pytest.LogCaptureFixture) -> None:
    def lasts(visit: Visit) -> None:
        visit.accept()
        threading.Event().wait(0.1)  # longer than the longest pause between attempts
        visit.close(1001)
        visit.wait_until_gone()

    refuses = refusing("503 Service Unavailable")
    with caplog.at_level(logging.WARNING, module.__name__), Host(refuses, refuses, refuses, lasts, sending()) as host, reading(host.url):
        host.wait_for_visits(5)
    pauses = [record.args[-1] for record in caplog.records if isinstance(record.args, tuple)]
    assert len(pauses) == 4
    assert isinstance(pauses[3], float)
    assert pauses[3] <= 0.01


def test_it_says_since_when_it_is_connected() -> None:
    with Host(sending(frame(1))) as host, reading(host.url) as reader:
        reader.take(1, 0.05, PATIENCE_S)
        assert reader.connected_since is not None
        assert reader.problem == ""


# --- What is wanted ----------------------------------------------------------------------------------------------------


def test_it_stays_away_while_nothing_is_wanted() -> None:
    with Host(sending(frame(1))) as host, reading(host.url, wanted=None) as reader:
        assert reader.take(1, 0.05, 0.1) == ([], 0)
        assert not host.visits
        assert reader.problem == NOTHING_WANTED
        reader.want(Wanted((POST,)))
        assert bodies(reader.take(1, 0.05, PATIENCE_S)[0]) == [frame(1)]
        assert host.visits[0].query == {"wantedCollections": [POST]}


def test_it_leaves_when_nothing_is_wanted_any_more() -> None:
    left = threading.Event()

    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        visit.wait_until_gone()
        left.set()

    with Host(script) as host, reading(host.url) as reader:
        reader.take(1, 0.05, PATIENCE_S)
        reader.want(None)
        assert left.wait(PATIENCE_S)
        reader.want(EVERYTHING)
        host.wait_for_visits(2)


def test_it_tells_the_running_connection_what_is_wanted_now() -> None:
    lines = [frame(number, commit={"collection": LIKE if number % 2 else POST}) for number in range(20_000)]
    with playing(lines, rate=2_000) as url, reading(url, wanted=Wanted((POST,))) as reader:
        events, _ = take_all(reader, 1)
        assert {event.type for event in events} == {POST}
        since = reader.connected_since
        reader.want(Wanted((LIKE,)))
        types = {POST}
        while types != {LIKE}:
            types = {event.type for event in take_all(reader, 10)[0]}
        assert reader.connected_since == since


@pytest.mark.usefixtures("_impatient")
def test_it_connects_with_what_is_wanted_by_then() -> None:
    told = threading.Event()

    def leaves_once_told(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        assert told.wait(PATIENCE_S)
        visit.close(1001)
        visit.wait_until_gone()

    with Host(leaves_once_told, sending()) as host, reading(host.url, wanted=Wanted((POST,))) as reader:
        reader.take(1, 0.05, PATIENCE_S)
        reader.want(Wanted((LIKE,)))
        told.set()
        visits = host.wait_for_visits(2)
    assert visits[1].query["wantedCollections"] == [LIKE]


# --- Bounds ------------------------------------------------------------------------------------------------------------


def test_it_holds_no_more_events_than_it_may_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED", 10)
    lines = [frame(number) for number in range(300)]
    taken: list[bytes] = []
    with playing(lines) as url, reading(url) as reader:
        while len(taken) < len(lines):
            events, _ = reader.take(1000, 0.02, PATIENCE_S)
            assert 0 < len(events) <= 10
            taken += bodies(events)
    assert taken == lines


def test_it_holds_no_more_bytes_than_it_may_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED_BYTES", 50_000)
    lines = [frame(number, commit={"record": {"text": "x" * 20_000}}) for number in range(100)]
    taken: list[bytes] = []
    with playing(lines) as url, reading(url) as reader:
        while len(taken) < len(lines):
            events, _ = reader.take(1000, 0.02, PATIENCE_S)
            # One more than fits: it was read before its size was known.
            assert 0 < len(events) <= 3
            taken += bodies(events)
    assert taken == lines


def test_it_takes_an_event_that_is_larger_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED_BYTES", 100)
    lines = [frame(number) for number in range(5)]
    with playing(lines) as url, reading(url) as reader:
        assert bodies(take_all(reader, 5)[0]) == lines


def test_it_holds_the_host_back_while_its_buffer_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED", 10)
    sent, count = [], 600
    done = threading.Event()

    def script(visit: Visit) -> None:
        visit.accept()
        for number in range(count):
            visit.send(frame(number, commit={"record": {"text": "x" * 100_000}}))
            sent.append(number)
        done.set()
        visit.wait_until_gone()

    with Host(script) as host, reading(host.url) as reader:
        # 60 MB fit into no socket's buffer: only a reader that goes on reading would let the host finish.
        assert not done.wait(1)
        assert len(sent) < count
        assert len(take_all(reader, count)[0]) == count
        assert done.wait(PATIENCE_S)


# --- Stopping ----------------------------------------------------------------------------------------------------------


def assert_stops_promptly(reader: Reader) -> None:
    started = monotonic()
    reader.stop()
    assert not reader._thread.is_alive()
    assert monotonic() - started < 4


def test_it_stops_while_the_host_says_nothing() -> None:
    with Host(sending(frame(1))) as host, reading(host.url) as reader:
        reader.take(1, 0.05, PATIENCE_S)
        assert_stops_promptly(reader)


def test_it_stops_while_its_buffer_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED", 10)
    with playing([frame(number) for number in range(1_000)]) as url, reading(url) as reader:
        reader.take(5, PATIENCE_S, PATIENCE_S)
        assert_stops_promptly(reader)


def test_it_stops_between_two_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 60.0)
    with Host(refusing("503 Service Unavailable")) as host, reading(host.url) as reader:
        host.wait_for_visits(1)
        assert_stops_promptly(reader)


def test_it_stops_while_nothing_is_wanted() -> None:
    with reading("ws://127.0.0.1:9/subscribe", wanted=None) as reader:
        assert_stops_promptly(reader)


def test_it_lets_nobody_wait_for_events_after_it_was_stopped() -> None:
    with Host(sending()) as host, reading(host.url) as reader:
        waiting = threading.Thread(target=reader.take, args=[10, 60, 60])
        waiting.start()
        reader.stop()
        waiting.join(10)
        assert not waiting.is_alive()
