"""The threads that do the work.

`Threads` take from one queue: half of what an executor costs for each request. `FairThreads` have a
queue for each who asks, taken in turns, and nobody has all of the threads: one with sixty slow
calls under way holds half of them at most (`delivery/shares.py`), and the rest of the sixty wait in
a queue of their own. Whoever comes next finds a thread, or is the next but few to get one.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from time import monotonic, sleep, thread_time

from delivery.ingest import posting
from delivery.throttle import Throttle
from jetrelay.shares import Asker, GuardedShares

Work = Callable[[], None]


# How long the threads of this process work for each, beside those who post.
answering = Throttle(posting)


class Threads:
    """So many threads under one name. They start with the first piece of work.

    A process that forks has none of its parent's.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number, self._name = number, name
        self._queue: SimpleQueue[Work] = SimpleQueue()
        self._started = False
        self._starting = threading.Lock()

    def do(self, work: Work) -> None:
        """Have this done, without waiting for it. It must not raise."""
        if not self._started:
            self._start()
        self._queue.put(work)

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                for number in range(self._number):
                    name = f"{self._name}-{number}"
                    threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        take = self._queue.get
        while True:
            take()()


class FairThreads:
    """`number` threads, and at most `calls` at them or waiting; none waits for its turn longer.

    Who takes much of a processor rests in between, with the threads that are theirs: see `delivery/throttle.py`. `used_s`
    says how much work the thread that asks has ever done, or had done for it.
    """

    def __init__(self, number: int, calls: int, patience_s: float, name: str, used_s: Callable[[], float] = thread_time) -> None:
        self._used_s = used_s
        self._at_work, self._places = GuardedShares(number), GuardedShares(calls)
        self._patience_s = patience_s
        # In the order in which their turns come: until when each may wait, the work, and what to
        # do instead where that is over.
        self._queues: OrderedDict[Asker, deque[tuple[float, Work, Work]]] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = Threads(number, name)

    def do(self, asker: Asker, work: Work, late: Work) -> bool:
        """Have this done, without waiting for it. False, and nothing is done, without a place.

        `late` is called in place of `work` where its turn came too late. Neither may raise.
        """
        if not self._places.take(asker):
            return False
        with self._lock:
            until = monotonic() + self._patience_s
            self._queues.setdefault(asker, deque()).append((until, work, late))
            self._start()
        return True

    def _start(self) -> None:
        """Give a thread to all who may have one now. The lock is held."""
        again = True
        while again and self._queues:
            again = False
            for asker in tuple(self._queues):
                if not (self._at_work.held(asker) and answering.slows(asker.id)) and self._at_work.take(asker):
                    # A round for each: who was served goes to the end.
                    turn = self._queues[asker].popleft()
                    self._put_back(asker)
                    self._threads.do(partial(self._work, asker, *turn))
                    again = True

    def _put_back(self, asker: Asker) -> None:
        if self._queues[asker]:
            self._queues.move_to_end(asker)
        else:
            del self._queues[asker]

    def _work(self, asker: Asker, until: float, work: Work, late: Work) -> None:
        began = self._used_s()
        try:
            (work if monotonic() < until else late)()
            answering.worked(asker.id, self._used_s() - began)
            if rest_s := answering.rest_s(asker.id):
                sleep(rest_s)
        finally:
            self._places.give_back(asker)
            with self._lock:
                self._at_work.give_back(asker)
                self._start()
