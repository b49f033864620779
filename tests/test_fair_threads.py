"""A few threads for many who ask: in turns, and nobody has all of them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import TypeVar

import pytest

from delivery import throttle
from delivery.ingest import posting
from delivery.throttle import REST_FACTOR
from jetrelay.front.threads import FairThreads, answering
from jetrelay.shares import Asker
from tests.threads import eventually

T = TypeVar("T")
GREEDY, OTHER = Asker("tenant", "greedy"), Asker("tenant", "other")
PATIENCE_S = 30


class Busy(Exception):
    """There was no place."""


class Late(Exception):
    """Its turn came too late."""


def ask(threads: FairThreads, asker: Asker, work: Callable[[], T]) -> "Future[T]":
    """What comes of this work. Raises Busy."""
    future: Future[T] = Future()
    if not threads.do(asker, lambda: future.set_result(work()), lambda: future.set_exception(Late())):
        raise Busy
    return future


class Slow:
    """Work that goes on until it is told to end."""

    def __init__(self) -> None:
        self.at_work = self.most = 0
        self.end = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.end.wait(PATIENCE_S)
        with self._lock:
            self.at_work -= 1
        return 1


def test_one_with_sixty_slow_calls_has_half_of_the_threads_and_others_are_answered() -> None:
    threads, slow = FairThreads(8, 200, PATIENCE_S, "test"), Slow()
    calls = [ask(threads, GREEDY, slow) for _ in range(60)]
    eventually(lambda: slow.at_work == 4)
    for _ in range(20):
        assert ask(threads, OTHER, lambda: 7).result(PATIENCE_S) == 7
    assert slow.at_work == slow.most == 4
    slow.end.set()
    assert sum(call.result(PATIENCE_S) for call in calls) == 60


def test_whoever_waits_is_served_in_turns() -> None:
    threads, first, order = FairThreads(2, 200, PATIENCE_S, "test"), Slow(), list[str]()
    keeping = [ask(threads, Asker("tenant", name), first) for name in "xy"]
    eventually(lambda: first.at_work == 2)

    def note(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    calls = [ask(threads, GREEDY, note("greedy")) for _ in range(10)]
    calls += [ask(threads, OTHER, note("other")) for _ in range(2)]
    first.end.set()
    for call in calls:
        call.result(PATIENCE_S)
    assert [each.result(PATIENCE_S) for each in keeping] == [1, 1]
    # Not behind the ten that came before.
    assert order.index("other") <= 2
    assert order[:5].count("other") == 2


def test_what_waits_is_bounded_for_each_and_there_is_room_for_others() -> None:
    threads, slow = FairThreads(2, 20, PATIENCE_S, "test"), Slow()
    calls = [ask(threads, GREEDY, slow) for _ in range(10)]
    with pytest.raises(Busy):
        ask(threads, GREEDY, slow)
    assert ask(threads, OTHER, lambda: 7).result(PATIENCE_S) == 7
    slow.end.set()
    assert sum(call.result(PATIENCE_S) for call in calls) == 10
    eventually(lambda: threads._places.free == 20)
    assert ask(threads, GREEDY, lambda: 8).result(PATIENCE_S) == 8


def test_one_whose_turn_comes_too_late_is_told_so_and_leaves_nothing() -> None:
    threads, slow, never = FairThreads(2, 20, 0.01, "test"), Slow(), Slow()
    first = ask(threads, GREEDY, slow)
    eventually(lambda: slow.at_work == 1)
    late = ask(threads, GREEDY, never)
    threading.Event().wait(0.02)  # what is waited for is that a time is over
    slow.end.set()
    with pytest.raises(Late):
        late.result(PATIENCE_S)
    # One that is at work is waited for, however long it takes.
    assert first.result(PATIENCE_S) == 1
    eventually(lambda: threads._places.free == 20)
    assert (never.most, len(threads._queues)) == (0, 0)


def test_strangers_together_have_half() -> None:
    threads, slow = FairThreads(8, 200, PATIENCE_S, "test"), Slow()
    for number in range(50):
        ask(threads, Asker("address", str(number), stranger=True), slow)
    eventually(lambda: slow.at_work == 4)
    assert ask(threads, OTHER, lambda: 7).result(PATIENCE_S) == 7
    assert slow.most == 4
    slow.end.set()


def test_a_busy_one_has_one_thread_and_rests_with_it_beside_somebody_who_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is.
    monkeypatch.setattr(throttle, "PRESENT_S", 3600.0)
    very_busy_s = 1e12

    used = threading.local()

    def used_s() -> float:
        return float(getattr(used, "s", 0.0))

    def work() -> None:
        used.s = used_s() + 0.1
        at_work.append(threading.get_ident())

    at_work = list[int]()
    threads, slow = FairThreads(8, 200, PATIENCE_S, "test", used_s), Slow()
    answering.worked(GREEDY.id, very_busy_s)
    posting.came(OTHER.id)
    assert answering.slows(GREEDY.id)
    calls = [ask(threads, GREEDY, slow) for _ in range(10)]
    eventually(lambda: slow.at_work == 1)
    # Others have theirs.
    others = [ask(threads, OTHER, slow) for _ in range(3)]
    eventually(lambda: slow.at_work == 4)
    slow.end.set()
    assert sum(call.result(PATIENCE_S) for call in (*calls, *others)) == 13
    assert slow.most == 4
    # What it used is counted, and makes it rest: the thread is back only after that.
    answering.forget()
    answering.worked(GREEDY.id, very_busy_s)
    posting.came(OTHER.id)
    began = monotonic()
    ask(threads, GREEDY, work).result(PATIENCE_S)
    ask(threads, GREEDY, work).result(PATIENCE_S)
    assert monotonic() - began >= 0.1 * REST_FACTOR
