"""A few threads for many who ask: in turns, and nobody has all of them."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from jetrelay.fair_threads import Busy, FairThreads
from jetrelay.shares import Asker

GREEDY, OTHER = Asker("tenant", "greedy"), Asker("tenant", "other")
PATIENCE_S = 30


class Slow:
    """Work that goes on until it is told to end."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most = 0
        self.end = threading.Event()
        self._changed = threading.Condition()

    def __call__(self) -> int:
        with self._changed:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            self._changed.notify_all()
        self.end.wait(PATIENCE_S)
        with self._changed:
            self.at_work -= 1
        return 1

    def wait_for(self, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.at_work >= number, PATIENCE_S)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(120) as pool:
        yield pool


def test_one_with_sixty_slow_calls_has_half_of_the_threads_and_others_are_answered(callers: ThreadPoolExecutor) -> None:
    threads: FairThreads[int] = FairThreads(8, 200, PATIENCE_S)
    slow = Slow()
    calls = [callers.submit(threads.run, GREEDY, slow) for _ in range(60)]
    slow.wait_for(4)
    for _ in range(20):
        assert threads.run(OTHER, lambda: 7) == 7
    assert slow.at_work == slow.most == 4
    slow.end.set()
    assert sum(call.result(PATIENCE_S) for call in calls) == 60


def test_whoever_waits_is_served_in_turns(callers: ThreadPoolExecutor) -> None:
    threads: FairThreads[None] = FairThreads(2, 200, PATIENCE_S)
    first, order, done = Slow(), list[str](), threading.Event()

    def keep() -> None:
        first()

    keeping = [callers.submit(threads.run, who, keep) for who in (Asker("tenant", "x"), Asker("tenant", "y"))]
    first.wait_for(2)

    def note(name: str) -> None:
        order.append(name)
        if len(order) == 12:
            done.set()

    def ask(who: Asker, number: int) -> list[Future[None]]:
        return [callers.submit(threads.run, who, lambda: note(who.id)) for _ in range(number)]

    many = ask(GREEDY, 10)
    while sum(len(queue) for queue in threads._queues.values()) < 10:
        threading.Event().wait(0.001)
    few = ask(OTHER, 2)
    while sum(len(queue) for queue in threads._queues.values()) < 12:
        threading.Event().wait(0.001)
    first.end.set()
    assert done.wait(PATIENCE_S)
    # Not behind the ten that came before.
    assert order.index("other") <= 2
    assert order[:5].count("other") == 2
    for each in (*keeping, *many, *few):
        each.result(PATIENCE_S)


def test_what_waits_is_bounded_for_each_and_there_is_room_for_others(callers: ThreadPoolExecutor) -> None:
    threads: FairThreads[int] = FairThreads(2, 20, PATIENCE_S)
    slow = Slow()
    calls = [callers.submit(threads.run, GREEDY, slow) for _ in range(10)]
    slow.wait_for(1)
    while threads._places.free > 10:
        threading.Event().wait(0.001)
    with pytest.raises(Busy):
        threads.run(GREEDY, lambda: 1)
    assert threads.run(OTHER, lambda: 7) == 7
    slow.end.set()
    assert sum(call.result(PATIENCE_S) for call in calls) == 10
    assert threads.run(GREEDY, lambda: 8) == 8


def test_one_whose_turn_does_not_come_is_told_so_and_leaves_nothing(callers: ThreadPoolExecutor) -> None:
    threads: FairThreads[int] = FairThreads(2, 20, 0.05)
    slow, never = Slow(), Slow()
    first = callers.submit(threads.run, GREEDY, slow)
    slow.wait_for(1)
    with pytest.raises(Busy):
        threads.run(GREEDY, never)
    slow.end.set()
    # One that is at work is waited for, however long it takes.
    assert first.result(PATIENCE_S) == 1
    assert threads.run(GREEDY, lambda: 3) == 3
    assert (never.most, threads._places.free, len(threads._queues)) == (0, 20, 0)


def test_what_is_raised_is_the_callers_and_the_thread_goes_on() -> None:
    threads: FairThreads[int] = FairThreads(2, 4, PATIENCE_S)

    def fail() -> int:
        raise LookupError("nothing there")

    for _ in range(5):
        with pytest.raises(LookupError, match="nothing there"):
            threads.run(GREEDY, fail)
    with suppress(Busy):
        assert threads.run(GREEDY, lambda: 1) == 1
