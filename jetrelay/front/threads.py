"""Threads that take work from a queue: half of what an executor costs for each request."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Threads:
    """So many threads under one name. They start with the first piece of work.

    A process that forks has none of its parent's.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number, self._name = number, name
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = False
        self._starting = threading.Lock()

    def do(self, work: Callable[[], None]) -> None:
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
