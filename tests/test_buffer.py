"""Between the threads that read and the one that stores: bounds that hold, and nobody who waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream import buffer as module
from delivery.sources.jetstream.buffer import Bell, Buffer
from tests.builders import make_incoming

PATIENCE_S = 20


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED", 10)


def filled(count: int, bell: Bell | None = None) -> Buffer:
    buffer = Buffer(bell or Bell())
    for number in range(count):
        assert buffer.put(make_incoming(time_us=number))
    return buffer


def times(buffer: Buffer, most: int = 1000) -> list[int]:
    return [event.time_us for event in buffer.take(most)]


def test_it_gives_back_what_was_put_in_order() -> None:
    buffer = filled(5)
    assert len(buffer) == 5
    assert times(buffer, 2) == [0, 1]
    assert times(buffer) == [2, 3, 4]
    assert times(buffer) == []
    assert times(buffer, 0) == []


@pytest.mark.usefixtures("_small")
def test_whoever_puts_waits_for_room() -> None:
    buffer = filled(10)
    assert buffer.full
    with ThreadPoolExecutor() as threads:
        putting = threads.submit(buffer.put, make_incoming(time_us=10))
        taken = times(buffer, 1)
        assert putting.result(PATIENCE_S)
    assert taken + times(buffer) == list(range(11))


@pytest.mark.parametrize("putters", [2, 5])
@pytest.mark.usefixtures("_small")
def test_several_may_put_at_once_and_nothing_is_lost(putters: int) -> None:
    buffer, each = Buffer(Bell()), 300

    def put(which: int) -> None:
        for number in range(each):
            assert buffer.put(make_incoming(time_us=number, subject=f"did:plc:{which}"))

    taken: list[Incoming] = []
    with ThreadPoolExecutor() as threads:
        putting = [threads.submit(put, which) for which in range(putters)]
        deadline = monotonic() + PATIENCE_S
        while len(taken) < putters * each:
            assert monotonic() < deadline
            # Each may have looked before another put.
            assert len(buffer) <= 10 + putters - 1
            taken += buffer.take(7)
        for done in putting:
            done.result(PATIENCE_S)
    for which in range(putters):
        assert [event.time_us for event in taken if event.subject == f"did:plc:{which}"] == list(range(each))


def test_it_counts_bytes_of_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED_BYTES", 100)
    buffer, full = Buffer(Bell()), []
    for _ in range(50):
        for _ in range(2):
            buffer.put(make_incoming(body=b"x" * 60))
            full.append(buffer.full)
        for _ in range(2):
            assert len(buffer.take(1)) == 1
            full.append(buffer.full)
    assert full == [False, True, False, False] * 50


@pytest.mark.usefixtures("_small")
def test_closing_lets_go_of_whoever_waits_for_room() -> None:
    buffer = filled(10)
    with ThreadPoolExecutor() as threads:
        putting = [threads.submit(buffer.put, make_incoming()) for _ in range(3)]
        waiting = threads.submit(buffer.wait_for_room)
        buffer.close()
        assert [each.result(PATIENCE_S) for each in putting] == [False] * 3
        assert waiting.result(PATIENCE_S) is False
    assert times(buffer) == list(range(10))
    assert buffer.wait_for_room() is False


def test_closing_lets_go_of_whoever_waits_for_events() -> None:
    bell = Bell()
    buffer = Buffer(bell)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(bell.wait, 10, 60, 60)
        buffer.close()
        waiting.result(PATIENCE_S)


# --- The bell ----------------------------------------------------------------------------------------------------------


def test_the_bell_rings_for_the_first_event() -> None:
    bell = Bell()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(bell.wait, 1000, 0.01, 60)
        filled(1, bell)
        waiting.result(PATIENCE_S)


def test_the_bell_rings_for_a_full_batch() -> None:
    bell = Bell()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(bell.wait, 5, 60, 60)
        filled(1, bell)
        assert not waiting.done()
        filled(5, bell)
        waiting.result(PATIENCE_S)


def test_what_is_left_after_a_batch_rings_again() -> None:
    bell = Bell()
    buffer = filled(25, bell)
    for count in (10, 10, 5):
        bell.wait(10, 0.01, PATIENCE_S)
        assert len(buffer.take(10)) == count
    assert not bell.some.is_set()


def test_no_ring_is_lost_between_waiting_and_taking() -> None:
    bell = Bell()
    buffer, count = Buffer(bell), 20_000
    putting = threading.Thread(target=lambda: [buffer.put(make_incoming(time_us=number)) for number in range(count)])
    putting.start()
    taken: list[int] = []
    started = monotonic()
    while len(taken) < count:
        bell.wait(1000, 0.001, 60)
        taken += times(buffer)
    putting.join()
    assert taken == list(range(count))
    # One lost ring would have waited for the whole of `idle_s`.
    assert monotonic() - started < 60
