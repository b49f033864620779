"""A few threads that do what many ask for, in turns: a queue for each who asks, and none of them has all of the threads.

One who has sixty slow calls under way holds half of the threads at most (see `shares.py`), and the rest of the sixty wait in a queue of their
own: whoever comes next finds a thread, or is the next but few to get one. What waits is bounded in the same way.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from jetrelay.shares import Asker, GuardedShares

T = TypeVar("T")


class Busy(Exception):
    """There is no place for this asker, or its turn did not come in time. Nothing was done: it may ask again soon."""


class FairThreads(Generic[T]):
    """`threads` work; so many calls in all may be `under_way`, those at work among them; none waits for its turn for longer than this."""

    def __init__(self, threads: int, under_way: int, patience_s: float, name: str = "site") -> None:
        self._at_work, self._places = GuardedShares(threads), GuardedShares(under_way)
        self._patience_s = patience_s
        # In the order in which their turns come.
        self._queues: OrderedDict[Asker, deque[tuple[Future[T], Callable[[], T]]]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def run(self, asker: Asker, work: Callable[[], T]) -> T:
        """What `work` returns or raises, done on one of the threads. Raises Busy."""
        if not self._places.take(asker):
            raise Busy
        try:
            future: Future[T] = Future()
            with self._lock:
                self._queues.setdefault(asker, deque()).append((future, work))
                self._start()
            wait([future], self._patience_s)
            # One that is at work is waited for: half of a deed has no words.
            if future.cancel():
                self._leave(asker, future)
                raise Busy
            return future.result()
        finally:
            self._places.give_back(asker)

    def _start(self) -> None:
        """Give a thread to all who may have one now. The lock is held."""
        again = True
        while again and self._queues:
            again = False
            for asker in tuple(self._queues):
                if self._at_work.take(asker):
                    # A round for each: who was served goes to the end.
                    future, work = self._queues[asker].popleft()
                    self._put_back(asker)
                    self._pool.submit(self._do, asker, future, work)
                    again = True

    def _put_back(self, asker: Asker) -> None:
        if self._queues[asker]:
            self._queues.move_to_end(asker)
        else:
            del self._queues[asker]

    def _leave(self, asker: Asker, future: Future[T]) -> None:
        with self._lock:
            queue = self._queues.get(asker, deque())
            left: Any = [each for each in queue if each[0] is not future]
            if left:
                self._queues[asker] = deque(left)
            else:
                self._queues.pop(asker, None)

    def _do(self, asker: Asker, future: Future[T], work: Callable[[], T]) -> None:
        try:
            # False where its caller has just given up.
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001 - it is the caller's
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            with self._lock:
                self._at_work.give_back(asker)
                self._start()
