"""Where replay meets live on a legacy host: what it drops or turns round there is read once more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, time_ns

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream import reader
from delivery.sources.jetstream import seam as module
from delivery.sources.jetstream.frames import parse
from delivery.sources.jetstream.player.live import LiveLog
from delivery.sources.jetstream.player.misbehaviour import HostOptions, Misbehaviour
from delivery.sources.jetstream.position import FIRST_TIME_US, OVERLAP_US, Position
from delivery.sources.jetstream.reader import Kit, Reader
from delivery.sources.jetstream.seam import BEFORE_US
from subscriptions.matching import Wanted
from tests.builders import frame
from tests.hosts import Host, Visit, frame_v2, refusing, sending
from tests.played import played

PATIENCE_S = 20
SECOND = 1_000_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_S", 0.05)
    monkeypatch.setattr(module, "_QUIET_S", 0.3)


@pytest.fixture
def now_us() -> int:
    return time_ns() // 1000


class Storing:
    """A reader, and what the storing thread would have stored of it."""

    def __init__(self, url: str, cursor: int | None) -> None:
        self.reader = Reader(url, Position(cursor), Kit("Jetrelay/test"))
        self.stored = self.reader.position.copy()
        self.events: list[Incoming] = []
        self.reader.want(Wanted())

    @property
    def cursor(self) -> int | None:
        """What may be saved now."""
        return self.reader.seam.cursor(self.stored)

    @property
    def bodies(self) -> list[bytes]:
        return [event.body for event in self.events]

    def store_until(self, holds: Callable[[], bool]) -> None:
        deadline = monotonic() + PATIENCE_S
        while not holds():
            assert monotonic() < deadline
            self.reader.watch()
            self.reader._bell.wait(1000, 0.01, 0.02)
            for event in self.reader.take(1000):
                self.stored.advance(event, time_ns() // 1000)
                self.events.append(event)


@contextmanager
def storing(url: str, cursor: int | None) -> Iterator[Storing]:
    found = Storing(url, cursor)
    found.reader.start()
    try:
        yield found
    finally:
        found.reader.stop()


def at(number: int, time_us: int) -> bytes:
    return frame(number, time_us=time_us)


def test_what_was_dropped_and_turned_round_at_the_seam_comes_with_the_second_reading(now_us: int) -> None:
    lines = [at(number, now_us - 10 * SECOND + number * SECOND) for number in range(10)]
    served = [*lines[:4], lines[7], lines[6], *lines[8:]]
    whole = sending(*lines, at(99, now_us + 10 * SECOND))
    with Host(sending(*served), whole) as host, storing(host.url, now_us - 60 * SECOND) as stored:
        stored.store_until(lambda: len(stored.events) == len(served))
        assert stored.bodies == served
        behind = stored.cursor
        assert behind is not None
        assert behind <= parse(lines[4]).time_us
        stored.store_until(lambda: set(stored.bodies) >= set(lines))
        stored.store_until(lambda: not stored.reader.seam.open)
        _, second = host.visits
        assert second.query == {"cursor": [str(parse(lines[9]).time_us - BEFORE_US)]}
        assert stored.cursor == stored.stored.cursor


def test_a_second_reading_that_read_nothing_is_tried_again(now_us: int) -> None:
    lines = [at(number, now_us - 10 * SECOND + number * SECOND) for number in range(10)]
    whole = sending(*lines, at(99, now_us + 10 * SECOND))
    first_goes_on = threading.Event()

    def first(visit: Visit) -> None:
        visit.accept()
        for line in [*lines[:4], *lines[6:]]:
            visit.send(line)
        first_goes_on.wait(PATIENCE_S)
        visit.wait_until_gone()

    with Host(first, sending(), whole) as host, storing(host.url, now_us - 60 * SECOND) as stored:
        # The second connection is silent, although the first one has brought something.
        stored.store_until(lambda: len(host.visits) == 3)
        first_goes_on.set()
        stored.store_until(lambda: set(stored.bodies) >= set(lines))
        stored.store_until(lambda: not stored.reader.seam.open)


def test_a_broad_stream_that_begins_late_is_not_in_the_present_yet(now_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SETTLED_S", 0.0)
    with Host(sending()) as host, storing(host.url, now_us - 60 * SECOND) as stored:
        stored.store_until(lambda: stored.reader.connected_since is not None)
        for _ in range(5):
            stored.reader.watch()
        assert not stored.reader.liveness.live
        assert len(host.visits) == 1


@pytest.mark.parametrize("fault", [Misbehaviour(seam_drop=6), Misbehaviour(seam_reorder=6)], ids=["drop", "reorder"])
def test_nothing_is_lost_at_the_seam_of_the_player(now_us: int, fault: Misbehaviour) -> None:
    log = LiveLog([at(number, now_us - 10 * SECOND + number * 100_000) for number in range(100)])
    later = [at(100 + number, now_us + number * 1_000) for number in range(20)]
    end = at(999, now_us + 20 * SECOND)
    with played(log, [HostOptions(misbehaviour=fault)]) as (host,), storing(host.v1, now_us - 60 * SECOND) as stored:
        stored.store_until(lambda: len(stored.events) >= 90)
        log.append(*later)
        stored.store_until(lambda: host.connections == 2)
        log.append(end)
        stored.store_until(lambda: not stored.reader.seam.open)
        stored.store_until(lambda: end in stored.bodies)
    assert len(set(stored.bodies)) == 121


def test_the_cursor_stays_behind_until_the_seam_was_read_twice(now_us: int) -> None:
    go = threading.Event()

    def second(visit: Visit) -> None:
        visit.accept()
        go.wait(PATIENCE_S)
        visit.send(at(2, now_us + 10 * SECOND))
        visit.wait_until_gone()

    with Host(sending(at(1, now_us)), second) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: len(host.visits) == 2)
        assert stored.events
        for _ in range(5):
            assert stored.cursor == now_us - BEFORE_US
        go.set()
        stored.store_until(lambda: not stored.reader.seam.open)
        assert stored.cursor == stored.stored.cursor


def test_before_the_present_is_reached_the_cursor_stays_a_little_behind() -> None:
    seam = Reader("ws://host.example/subscribe", Position(FIRST_TIME_US + 60 * SECOND), Kit("Jetrelay/test")).seam
    seam.begin(FIRST_TIME_US + 60 * SECOND)
    assert seam.cursor(Position(FIRST_TIME_US + 60 * SECOND)) == FIRST_TIME_US + 60 * SECOND - BEFORE_US
    # Never so far that it would be taken for a number.
    assert seam.cursor(Position(FIRST_TIME_US + SECOND)) == FIRST_TIME_US
    assert seam.cursor(Position(42, FIRST_TIME_US)) == 42
    assert seam.cursor(Position()) is None


@pytest.mark.parametrize("failure", [refusing("503 Service Unavailable"), Visit.accept], ids=["refused", "hung up"])
def test_a_second_reading_that_fails_is_tried_again(now_us: int, failure: Callable[[Visit], None]) -> None:
    def fails(visit: Visit) -> None:
        failure(visit)
        visit.sock.shutdown(2)

    whole = sending(at(1, now_us), at(2, now_us + 10 * SECOND))
    with Host(sending(at(1, now_us)), fails, fails, whole) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: len(host.visits) == 3)
        assert stored.reader.seam.open
        assert stored.cursor == now_us - BEFORE_US
        stored.store_until(lambda: not stored.reader.seam.open)
        assert len(host.visits) == 4
        assert len({tuple(visit.query["cursor"]) for visit in host.visits[1:]}) == 1


def test_a_second_reading_that_never_comes_to_its_end_is_tried_again(now_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_S", 0.2)
    stop = threading.Event()

    def endless(visit: Visit) -> None:
        visit.accept()
        while not stop.wait(0.01):
            visit.send(at(1, now_us))

    with Host(sending(at(1, now_us)), endless, sending(at(2, now_us + 10 * SECOND))) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: len(host.visits) == 3)
        stop.set()
        stored.store_until(lambda: not stored.reader.seam.open)


def test_a_quiet_stream_is_mended_when_nothing_more_comes(now_us: int) -> None:
    with Host(sending(at(1, now_us))) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: bool(stored.events) and not stored.reader.seam.open)
        assert len(host.visits) == 2
        assert stored.cursor == now_us


def test_a_connection_that_ends_before_its_seam_was_mended_starts_before_it(now_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_S", 60.0)
    leave = threading.Event()

    def leaves(visit: Visit) -> None:
        visit.accept()
        visit.send(at(1, now_us))
        leave.wait(PATIENCE_S)
        visit.close(1001)
        visit.wait_until_gone()

    with Host(leaves, sending()) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: bool(stored.events) and stored.reader.seam.resume_us() is not None)
        leave.set()
        stored.store_until(lambda: len(host.visits) == 2)
        assert host.visits[1].query == {"cursor": [str(now_us - BEFORE_US - OVERLAP_US)]}


def test_a_host_that_numbers_its_events_has_no_seam(now_us: int) -> None:
    with Host(sending(frame(1, time_us=now_us, cursor=7))) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: bool(stored.events))
        assert not stored.reader.seam.open
        assert stored.cursor == 7
        assert len(host.visits) == 1


@pytest.mark.parametrize(("v2", "cursor"), [(False, None), (False, 42), (True, None), (True, FIRST_TIME_US)], ids=["now", "number", "v2", "v2 by time"])
def test_there_is_no_seam_without_a_replay_by_time_on_v1(now_us: int, v2: bool, cursor: int | None) -> None:
    script = sending(frame_v2(1, 7, now_us)) if v2 else sending(at(1, now_us))
    with Host(script) as host, storing(host.v2_url if v2 else host.url, cursor) as stored:
        stored.store_until(lambda: bool(stored.events))
        assert not stored.reader.seam.open
        assert stored.cursor == stored.stored.cursor


def test_it_stops_while_a_second_reading_hangs(now_us: int) -> None:
    with Host(sending(at(1, now_us)), Visit.wait_until_gone) as host, storing(host.url, now_us - SECOND) as stored:
        stored.store_until(lambda: len(host.visits) == 2)
        thread = stored.reader.seam._thread
        assert thread is not None
        stored.reader.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
