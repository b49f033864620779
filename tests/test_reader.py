"""The reader of one host: it connects again, holds what it may hold, and loses nothing."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, time_ns

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream import buffer, connection
from delivery.sources.jetstream import reader as module
from delivery.sources.jetstream.compression import V1_DICTIONARY, Dictionaries
from delivery.sources.jetstream.frames import parse
from delivery.sources.jetstream.position import OVERLAP_US, Position
from delivery.sources.jetstream.reader import NOTHING_WANTED, Kit, Reader
from delivery.sources.jetstream.resuming import LEAPT, TOO_OLD, Gap
from subscriptions.matching import Wanted
from tests.builders import POST, frame
from tests.hosts import (
    BINARY,
    PING,
    TEXT,
    Host,
    Script,
    Visit,
    compressed,
    error_v2,
    frame_v2,
    info_v2,
    playing,
    refusing,
    sending,
    sends_and_leaves,
    trained,
)
from tests.played import played

EVERYTHING = Wanted()
LIKE = "app.bsky.feed.like"
PATIENCE_S = 20


@contextmanager
def reading(
    url: str, cursor: int | None = None, wanted: Wanted | None = EVERYTHING, *, reached_us: int | None = None, kit: Kit | None = None
) -> Iterator[Reader]:
    reader = Reader(url, Position(cursor, reached_us), kit or Kit("Jetrelay/test"))
    reader.want(wanted)
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()
        reader.join(PATIENCE_S)


def take(reader: Reader, most: int, wait_s: float, idle_s: float) -> tuple[list[Incoming], int]:
    """One batch, as the storing thread takes it, and how many frames were rejected."""
    reader._bell.wait(most, wait_s, idle_s)
    return reader.take(most), reader.rejects.count()


def take_all(reader: Reader, count: int, most: int = 1000) -> tuple[list[Incoming], int]:
    """Take until there are this many events and rejected frames together."""
    events: list[Incoming] = []
    rejected, deadline = 0, monotonic() + PATIENCE_S
    while len(events) + rejected < count:
        assert monotonic() < deadline, f"{len(events)} events, {rejected} rejected"
        some, bad = take(reader, most, 0.05, 1)
        events += some
        rejected += bad
    return events, rejected


def watch_until(reader: Reader, holds: Callable[[], bool]) -> None:
    """Do as the storing thread does, only more often, until this holds."""
    deadline = monotonic() + PATIENCE_S
    while not holds():
        assert monotonic() < deadline
        reader.watch()
        reader._bell.wait(1000, 0.01, 0.02)


def bodies(events: list[Incoming]) -> list[bytes]:
    return [event.body for event in events]


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
        assert bodies(take(reader, 1000, 0.05, PATIENCE_S)[0]) == [frame(1)]


def test_it_does_not_wait_once_a_batch_is_full() -> None:
    lines = [frame(number) for number in range(30)]
    started = monotonic()
    with Host(sending(*lines)) as host, reading(host.url) as reader:
        batches = [bodies(take(reader, 10, 60, PATIENCE_S)[0]) for _ in range(3)]
    assert batches == [lines[:10], lines[10:20], lines[20:]]
    assert monotonic() - started < PATIENCE_S


def test_it_returns_empty_handed_when_nothing_comes() -> None:
    with Host(sending()) as host, reading(host.url) as reader:
        host.wait_for_visits(1)
        assert take(reader, 10, 0.05, 0.05) == ([], 0)


def test_it_counts_rejected_frames_and_goes_on() -> None:
    lines = [frame(1), b"garbage", frame(2), b"[]", b"\xff", b"{}", frame(3)]
    with playing(lines) as url, reading(url) as reader:
        events, rejected = take_all(reader, len(lines))
        assert take(reader, 10, 0.01, 0.01) == ([], 0)
    assert bodies(events) == [frame(1), frame(2), frame(3)]
    assert rejected == 4


def test_it_hands_over_rejections_without_an_event() -> None:
    with Host(sending(b"garbage")) as host, reading(host.url) as reader:
        assert take(reader, 10, 0.05, PATIENCE_S) == ([], 1)


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
        reader.join(PATIENCE_S)
        assert bodies(take_all(reader, 30, most=20)[0]) == lines
        assert take(reader, 10, 60, 0.01) == ([], 0)


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
    forty = frame(40, cursor=40)
    first = sends_and_leaves(forty, frame(41, cursor=41), frame(42, cursor=42))
    with Host(first, sending(frame(42, cursor=42), frame(43, cursor=43))) as host, reading(host.url, cursor=40) as reader:
        take_all(reader, 5)
        assert [visit.query for visit in host.visits] == [{"cursor": ["40"]}, {"cursor": ["42"]}]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("shifted", [(frame(242, cursor=42),), (frame(243, cursor=43),), (frame(1, cursor=1),)], ids=["another", "later", "earlier"])
def test_a_number_that_brings_another_event_is_of_another_archive(shifted: tuple[bytes, ...]) -> None:
    with (
        Host(sends_and_leaves(frame(41, cursor=41), frame(42, cursor=42)), sending(*shifted), sending(frame(43, cursor=243))) as host,
        reading(host.url) as reader,
    ):
        take_all(reader, 3)
        # By time: numbers that differ a little would leave out what lies between, unseen.
        assert [visit.query for visit in host.visits] == [{}, {"cursor": ["42"]}, {"cursor": [str(T + 42 - OVERLAP_US)]}]


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
        visit.send(frame(1))
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
        take(reader, 1, 0.05, PATIENCE_S)
        assert reader.connected_since is not None
        assert reader.problem == ""


# --- What is wanted ----------------------------------------------------------------------------------------------------


def test_it_stays_away_while_nothing_is_wanted() -> None:
    with Host(sending(frame(1))) as host, reading(host.url, wanted=None) as reader:
        assert take(reader, 1, 0.05, 0.1) == ([], 0)
        assert not host.visits
        assert reader.problem == NOTHING_WANTED
        reader.want(Wanted((POST,)))
        assert bodies(take(reader, 1, 0.05, PATIENCE_S)[0]) == [frame(1)]
        assert host.visits[0].query == {"wantedCollections": [POST]}


def test_it_leaves_when_nothing_is_wanted_any_more() -> None:
    left = threading.Event()

    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        visit.wait_until_gone()
        left.set()

    with Host(script) as host, reading(host.url) as reader:
        take(reader, 1, 0.05, PATIENCE_S)
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
        take(reader, 1, 0.05, PATIENCE_S)
        reader.want(Wanted((LIKE,)))
        told.set()
        visits = host.wait_for_visits(2)
    assert visits[1].query["wantedCollections"] == [LIKE]


# --- Bounds ------------------------------------------------------------------------------------------------------------


def test_it_holds_no_more_events_than_it_may_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "MAX_BUFFERED", 10)
    lines = [frame(number) for number in range(300)]
    taken: list[bytes] = []
    with playing(lines) as url, reading(url) as reader:
        while len(taken) < len(lines):
            events, _ = take(reader, 1000, 0.02, PATIENCE_S)
            assert 0 < len(events) <= 10
            taken += bodies(events)
    assert taken == lines


def test_it_holds_no_more_bytes_than_it_may_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "MAX_BUFFERED_BYTES", 50_000)
    lines = [frame(number, commit={"record": {"text": "x" * 20_000}}) for number in range(100)]
    taken: list[bytes] = []
    with playing(lines) as url, reading(url) as reader:
        while len(taken) < len(lines):
            events, _ = take(reader, 1000, 0.02, PATIENCE_S)
            # One more than fits: it was read before its size was known.
            assert 0 < len(events) <= 3
            taken += bodies(events)
    assert taken == lines


def test_it_takes_an_event_that_is_larger_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "MAX_BUFFERED_BYTES", 100)
    lines = [frame(number) for number in range(5)]
    with playing(lines) as url, reading(url) as reader:
        assert bodies(take_all(reader, 5)[0]) == lines


def test_it_holds_the_host_back_while_its_buffer_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "MAX_BUFFERED", 10)
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
    reader.join(PATIENCE_S)
    assert not reader._thread.is_alive()
    assert monotonic() - started < 4


def test_it_stops_while_the_host_says_nothing() -> None:
    with Host(sending(frame(1))) as host, reading(host.url) as reader:
        take(reader, 1, 0.05, PATIENCE_S)
        assert_stops_promptly(reader)


def test_it_stops_while_its_buffer_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "MAX_BUFFERED", 10)
    with playing([frame(number) for number in range(1_000)]) as url, reading(url) as reader:
        take(reader, 5, PATIENCE_S, PATIENCE_S)
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
        waiting = threading.Thread(target=reader._bell.wait, args=[10, 60, 60])
        waiting.start()
        reader.stop()
        waiting.join(10)
        assert not waiting.is_alive()


@pytest.mark.parametrize("script", [Visit.wait_until_gone, sending()], ids=["handshake", "silence"])
def test_it_stops_at_once_whatever_the_host_does(script: Script) -> None:
    with Host(script) as host, reading(host.url) as reader:
        host.wait_for_visits(1)
        assert_stops_promptly(reader)


def test_it_stops_whenever_it_is_told_to() -> None:
    with playing([frame(number) for number in range(2_000)], rate=50_000) as url:
        for number in range(40):
            with reading(url) as reader:
                threading.Event().wait(number / 4_000)
                assert_stops_promptly(reader)


# --- A host that refuses -----------------------------------------------------------------------------------------------

T = 1_780_000_000_000_000
MINUTE = 60_000_000
NARROW = Wanted((POST,))


def test_it_waits_as_long_as_a_host_asks_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "_LAST_WAIT_S", 0.3)
    busy = refusing("503 Service Unavailable", b"warming up", "Retry-After: 3600\r\n")
    with caplog.at_level(logging.WARNING, module.__name__), Host(busy, sending(frame(1))) as host, reading(host.url) as reader:
        take_all(reader, 1)
    # Bounded: a host that says an hour would be missed for an hour.
    assert [record.args[-1] for record in caplog.records if isinstance(record.args, tuple)] == [0.3]


@pytest.mark.usefixtures("_impatient")
def test_a_number_that_is_too_old_becomes_a_time_and_leaves_a_gap() -> None:
    old = refusing("400 Bad Request", error_v2("CursorTooOld"))

    def clamps(visit: Visit) -> None:
        visit.accept()
        visit.send(info_v2("OutdatedCursor"))
        visit.send(frame_v2(60 * MINUTE, 900))
        visit.wait_until_gone()

    with Host(old, clamps) as host, reading(host.v2_url, 42, reached_us=T) as reader:
        events, rejected = take_all(reader, 1)
        assert [visit.query for visit in host.visits] == [{"cursor": ["42"]}, {"cursor": [str(T - OVERLAP_US)]}]
    assert list(reader.gaps) == [Gap(T, T + 60 * MINUTE, TOO_OLD)]
    assert (events[0].cursor, rejected) == (900, 0)


@pytest.mark.usefixtures("_impatient")
def test_a_refusal_without_a_name_is_met_by_asking_by_time() -> None:
    with Host(refusing("400 Bad Request"), sending(frame_v2(1, 43))) as host, reading(host.v2_url, 42, reached_us=T) as reader:
        take_all(reader, 1)
        assert [visit.query for visit in host.visits] == [{"cursor": ["42"]}, {"cursor": [str(T - OVERLAP_US)]}]


@pytest.mark.usefixtures("_impatient")
def test_a_list_of_accounts_that_is_too_long_for_the_host_is_left_out() -> None:
    dids = tuple(f"did:plc:{number:024d}" for number in range(500))
    with Host(refusing("414 URI Too Long"), sending(frame_v2(1, 7))) as host, reading(host.v2_url, wanted=Wanted((POST,), dids)) as reader:
        take_all(reader, 1)
        first, second = host.wait_for_visits(2)
    assert first.query == {"collections": [POST], "dids": list(dids)}
    assert second.query == {"collections": [POST]}


@pytest.mark.usefixtures("_impatient")
def test_it_asks_a_few_times_for_something_else_and_then_takes_its_time(caplog: pytest.LogCaptureFixture) -> None:
    old = refusing("400 Bad Request", error_v2("CursorTooOld"))
    with caplog.at_level(logging.INFO, module.__name__), Host(old) as host, reading(host.v2_url, 42, reached_us=T):
        host.wait_for_visits(12)
    assert 4 <= len([line for line in caplog.messages if "connecting again" in line]) <= 6
    assert any("Next attempt" in line for line in caplog.messages)


# --- Compressed frames -------------------------------------------------------------------------------------------------


def packing(dictionary: bytes, *texts: bytes) -> Script:
    def script(visit: Visit) -> None:
        visit.accept()
        for text in texts:
            visit.send(compressed(text, dictionary), BINARY)
        visit.wait_until_gone()

    return script


def handing_out(*ids: int) -> Script:
    """Another dictionary each time it is asked, the last one from then on."""
    left = list(ids)

    def script(visit: Visit) -> None:
        refusing("200 OK", trained(left.pop(0) if len(left) > 1 else left[0]))(visit)

    return script


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit("Jetrelay/test", v1_dictionary=trained(V1_DICTIONARY), v2_dictionaries=Dictionaries(tmp_path, "Jetrelay/test"))


def test_it_reads_compressed_frames_on_v1(kit: Kit) -> None:
    with Host(packing(trained(V1_DICTIONARY), frame(1), frame(2))) as host, reading(host.url, kit=kit) as reader:
        assert bodies(take_all(reader, 2)[0]) == [frame(1), frame(2)]
        assert host.visits[0].query == {"compress": ["true"]}
        assert reader.compressed


def test_it_reads_compressed_frames_on_v2(kit: Kit) -> None:
    with Host(packing(trained(5), frame_v2(1, 7)), http=handing_out(5)) as host, reading(host.v2_url, kit=kit) as reader:
        assert [event.cursor for event in take_all(reader, 1)[0]] == [7]
        assert host.visits[0].query == {"zstdDictionary": ["5"]}


def test_it_reads_plainly_from_a_host_that_has_no_dictionary(kit: Kit) -> None:
    with Host(sending(frame_v2(1, 7)), http=refusing("404 Not Found")) as host, reading(host.v2_url, kit=kit) as reader:
        take_all(reader, 1)
        assert host.visits[0].query == {}
        assert not reader.compressed


def test_it_reads_the_same_events_on_both_wires_of_the_player(kit: Kit) -> None:
    lines = [frame(number) for number in range(1_000)]
    with played(lines) as (host,), reading(host.v1, kit=kit) as on_v1, reading(host.v2, kit=kit) as on_v2:
        first, second = take_all(on_v1, 1_000)[0], take_all(on_v2, 1_000)[0]
        assert on_v2.compressed
    assert bodies(first) == lines
    assert [event.dedup_key for event in second] == [event.dedup_key for event in first]
    assert all(json.loads(event.body).items() >= json.loads(line).items() for event, line in zip(second, lines, strict=True))


@pytest.mark.parametrize(("ids", "second"), [((5, 6), {"zstdDictionary": ["6"]}), ((5, 5), {})])
def test_a_dictionary_that_the_host_does_not_know_is_fetched_again(kit: Kit, ids: tuple[int, ...], second: dict[str, list[str]]) -> None:
    unknown = refusing("400 Bad Request", error_v2("UnknownZstdDictionary"))
    with Host(unknown, sending(frame_v2(1, 7)), http=handing_out(*ids)) as host, reading(host.v2_url, kit=kit) as reader:
        take_all(reader, 1)
        assert [visit.query for visit in host.visits] == [{"zstdDictionary": ["5"]}, second]
        assert len(host.requests) == 2


@pytest.mark.parametrize("on_v2", [False, True])
def test_a_damaged_frame_is_counted_and_read_again_in_plain_text(kit: Kit, on_v2: bool) -> None:
    lines = [frame_v2(number, number) for number in range(4)] if on_v2 else [frame(number) for number in range(4)]
    dictionary = trained(5 if on_v2 else V1_DICTIONARY)

    def damaged(visit: Visit) -> None:
        visit.accept()
        visit.send(compressed(lines[0], dictionary), BINARY)
        visit.send(compressed(lines[1], dictionary), BINARY)
        visit.send(compressed(lines[2], dictionary)[:-9], BINARY)
        visit.send(compressed(lines[3], dictionary), BINARY)
        visit.wait_until_gone()

    with Host(damaged, sending(*lines[1:]), http=handing_out(5)) as host, reading(host.v2_url if on_v2 else host.url, kit=kit) as reader:
        events, rejected = take_all(reader, 6)
        queries = [visit.query for visit in host.visits]
    assert rejected == 1
    assert [event.time_us - T for event in events] == [0, 1, 1, 2, 3]
    assert queries[1] == {"cursor": ["1" if on_v2 else str(T + 1 - OVERLAP_US)]}


# --- The filter --------------------------------------------------------------------------------------------------------


def test_another_filter_on_v2_needs_another_connection_and_loses_nothing() -> None:
    with Host(sending(frame_v2(1, 7), frame_v2(2, 8)), sending(frame_v2(2, 8), frame_v2(3, 9))) as host, reading(host.v2_url, wanted=NARROW) as reader:
        events, _ = take_all(reader, 2)
        reader.want(Wanted((LIKE, POST)))
        events += take_all(reader, 2)[0]
        assert [visit.query for visit in host.visits] == [{"collections": [POST]}, {"collections": [LIKE, POST], "cursor": ["8"]}]
    assert [event.cursor for event in events] == [7, 8, 8, 9]


def test_a_filter_that_changes_during_the_handshake_is_told_after_it() -> None:
    changed, told = threading.Event(), []

    def script(visit: Visit) -> None:
        assert changed.wait(PATIENCE_S)
        visit.accept()
        told.append(visit.read())
        visit.send(frame(1))
        visit.wait_until_gone()

    with Host(script) as host, reading(host.url, wanted=NARROW) as reader:
        host.wait_for_visits(1)
        reader.want(Wanted((LIKE,)))
        changed.set()
        take_all(reader, 1)
        assert len(host.visits) == 1
    ((opcode, message),) = told
    assert opcode == TEXT
    assert json.loads(message)["payload"]["wantedCollections"] == [LIKE]


def test_a_host_that_reads_nothing_holds_nobody() -> None:
    left = threading.Event()

    def deaf(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        left.wait(PATIENCE_S)

    wishes = [Wanted((POST,), tuple(f"did:plc:{number:024d}" for number in range(start, start + 9_000))) for start in range(30)]
    with Host(deaf) as host, reading(host.url) as reader:
        take_all(reader, 1)
        started = monotonic()
        for wish in wishes:
            reader.want(wish)
        # 10 MB fit into no socket's buffer: whoever waited for the host would wait for half a minute.
        assert monotonic() - started < 20
        assert_stops_promptly(reader)
        left.set()


# --- Silence -----------------------------------------------------------------------------------------------------------


def test_a_broad_stream_that_stands_still_is_connected_again_with_growing_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.05)
    monkeypatch.setattr(module, "_LAST_STALL_S", 0.4)
    with Host(sending(frame(1)), sending()) as host, reading(host.url) as reader:
        watch_until(reader, lambda: len(host.visits) >= 6)
        assert reader._stall_s == 0.4
        # Where it was: silence on a broad stream says nothing about what there is.
        assert {tuple(visit.query["cursor"]) for visit in host.visits[1:]} == {(str(T + 1 - OVERLAP_US),)}


def test_its_patience_is_the_usual_once_events_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.1)
    with Host(sending(), sending(), sending(frame(1)), sending()) as host, reading(host.url) as reader:
        watch_until(reader, lambda: reader.events_in == 1)
        watch_until(reader, lambda: reader._stall_s == 0.1)
        watch_until(reader, lambda: len(host.visits) >= 4)


def test_a_broad_stream_that_is_silent_from_the_start_never_counts_as_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    monkeypatch.setattr(module, "STALL_S", 0.1)
    with Host(sending()) as host, reading(host.url, T) as reader:
        watch_until(reader, lambda: len(host.visits) >= 3)
        assert reader.settled_us is None
        assert reader.position.cursor == T
        assert not reader.gaps


@pytest.mark.parametrize(("age_s", "reasons"), [(3600, []), (30 * 3600, [LEAPT])])
def test_a_quiet_narrow_stream_settles_after_long_silence(monkeypatch: pytest.MonkeyPatch, age_s: int, reasons: list[str]) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.3)
    now_us = time_ns() // 1000
    with Host(sending()) as host, reading(host.url, now_us - age_s * 1_000_000, NARROW) as reader:
        watch_until(reader, lambda: reader.settled_us is not None)
        assert reader.settled_us == reader.position.cursor
        assert now_us - 2 * MINUTE < (reader.settled_us or 0) < now_us
        assert [gap.reason for gap in reader.gaps] == reasons
        assert len(host.visits) <= 2


def test_silence_after_an_absence_proves_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    with Host(sending()) as host, reading(host.url, time_ns() // 1000 - 5 * MINUTE, NARROW) as reader:
        watch_until(reader, lambda: reader.connected_since is not None)
        for _ in range(5):
            reader.watch()
        assert (reader.settled_us, reader.liveness.live) == (None, False)


def test_silence_that_follows_on_silence_proves_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.05)
    then_us = time_ns() // 1000 - 5 * MINUTE
    with Host(sending()) as host, reading(host.url, then_us, NARROW) as reader:
        watch_until(reader, lambda: reader.connected_since is not None)
        reader.reconnect("to see what there is")
        watch_until(reader, lambda: reader.settled_us is not None)
        assert then_us < (reader.settled_us or 0) < time_ns() // 1000 - MINUTE
        assert len(host.visits) == 2


def test_a_host_is_given_time_to_look_through_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    late = threading.Event()
    event_us = time_ns() // 1000 - 60 * MINUTE

    def script(visit: Visit) -> None:
        visit.accept()
        late.wait(PATIENCE_S)
        visit.send(frame(1, time_us=event_us))
        visit.wait_until_gone()

    with Host(script) as host, reading(host.url, event_us - 60 * MINUTE, NARROW) as reader:
        watch_until(reader, lambda: reader.connected_since is not None)
        for _ in range(5):
            reader.watch()
        assert reader.settled_us is None
        late.set()
        take_all(reader, 1)


def test_an_event_after_it_has_settled_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.05)
    late, event_us = threading.Event(), time_ns() // 1000 - 60 * MINUTE

    def script(visit: Visit) -> None:
        visit.accept()
        late.wait(PATIENCE_S)
        visit.send(frame(1, time_us=event_us))
        visit.wait_until_gone()

    with Host(script) as host, reading(host.url, None, NARROW) as reader:
        watch_until(reader, lambda: reader.settled_us is not None)
        late.set()
        take_all(reader, 1)
        assert (reader.position.cursor, reader.settled_us) == (event_us, None)


def test_a_quiet_narrow_stream_is_probed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.2)
    with Host(sending()) as host, reading(host.url, T, NARROW) as reader:
        watch_until(reader, lambda: len(host.visits) >= 3)


# --- What else hosts do ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
def test_a_host_that_finds_it_too_slow_is_gone_on_with_where_it_was() -> None:
    slow = sends_and_leaves(frame_v2(1, 7), b'{"$type":"error","error":"ConsumerTooSlow","message":"read faster"}')
    with Host(slow, sending(frame_v2(2, 8))) as host, reading(host.v2_url) as reader:
        events, rejected = take_all(reader, 2)
        assert host.visits[1].query == {"cursor": ["7"]}
    assert ([event.cursor for event in events], rejected) == ([7, 8], 0)


@pytest.mark.parametrize("says", [info_v2("FutureCursor"), frame_v2(1, 3), frame_v2(60 * MINUTE, 42)], ids=["future", "lower", "moved"])
def test_a_host_that_counts_anew_is_asked_by_time(says: bytes) -> None:
    with Host(sending(says), sending(frame_v2(0, 1), frame_v2(1, 2))) as host, reading(host.v2_url, 42, reached_us=T) as reader:
        events, _ = take_all(reader, 2)
        assert [visit.query for visit in host.visits] == [{"cursor": ["42"]}, {"cursor": [str(T - OVERLAP_US)]}]
    assert [event.cursor for event in events] == [1, 2]
    assert reader.position.cursor == 2
    assert not reader.gaps


def test_a_silent_clamp_leaves_a_gap_and_it_goes_on() -> None:
    now = T + 26 * 60 * MINUTE
    with Host(sending(frame(26 * 60 * MINUTE), frame(26 * 60 * MINUTE + 1))) as host, reading(host.url, T) as reader:
        assert len(take_all(reader, 2)[0]) == 2
    assert list(reader.gaps) == [Gap(T, now, LEAPT)]


@pytest.mark.usefixtures("_impatient")
def test_a_handshake_that_never_ends_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT_S", 0.1)
    with Host(Visit.wait_until_gone, sending(frame(1))) as host, reading(host.url) as reader:
        take_all(reader, 1)
        assert len(host.visits) == 2


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_it_is_connected_again_by_hand_from_where_it_was(wire: str) -> None:
    lines = (frame(1), frame(2)) if wire == "v1" else (frame_v2(1, 7), frame_v2(2, 8))
    with Host(sending(lines[0]), sending(lines[1])) as host, reading(host.url if wire == "v1" else host.v2_url) as reader:
        take_all(reader, 1)
        reader.reconnect("asked for by hand")
        take_all(reader, 1)
        assert host.visits[1].query == {"cursor": [str(T + 1 - OVERLAP_US) if wire == "v1" else "7"]}


def test_a_storm_of_wishes_ends_with_the_last_one() -> None:
    def script(visit: Visit) -> None:
        visit.accept()
        visit.wait_until_gone()

    with Host(script) as host, reading(host.v2_url, wanted=NARROW) as reader:
        for number in range(200):
            reader.want(Wanted((f"app.example.n{number}",)))
            if number % 3 == 0:
                reader.reconnect("by hand")
            if number % 7 == 0:
                reader.want(None)
        last = {"collections": ["app.example.n199"]}
        watch_until(reader, lambda: bool(host.visits) and host.visits[-1].query == last and reader.connected_since is not None)
        assert not reader.seam.open


def test_an_earlier_wish_does_not_shorten_the_pause_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 60.0)
    leave = threading.Event()

    def script(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        visit.read()
        leave.wait(PATIENCE_S)
        visit.close(1001)
        visit.wait_until_gone()

    with Host(script) as host, reading(host.url) as reader:
        take_all(reader, 1)
        reader.want(NARROW)
        leave.set()
        watch_until(reader, lambda: bool(reader.problem))
        assert not reader._changed.is_set()
        assert len(host.visits) == 1


@pytest.mark.usefixtures("_impatient")
def test_a_quiet_stream_settles_although_every_replay_brings_its_last_event_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.3)
    then_us = time_ns() // 1000 - 3600 * 1_000_000
    with Host(sending(frame(1, time_us=then_us))) as host, reading(host.url, then_us, Wanted((POST,))) as reader:
        take_all(reader, 1)
        deadline = monotonic() + PATIENCE_S
        while reader.settled_us is None:
            assert monotonic() < deadline
            reader.watch()
        assert reader.settled_us > then_us + 3000 * 1_000_000
        # Its age is no lag of the stream.
        assert reader.liveness.last_lag_us is None
