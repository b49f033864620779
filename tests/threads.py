"""Work on other threads, each with a connection to the database of its own."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from django.db import OperationalError, connections

T = TypeVar("T")
PATIENCE_S = 30


class Elsewhere(Generic[T]):
    """A call that runs on a thread of its own; `result` waits for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the result is asked for
            self._error = error
        finally:
            connections.close_all()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> T:
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise TimeoutError(f"still running after {PATIENCE_S} s")
        if self._error:
            raise self._error
        return self._results[0]


def patiently(work: Callable[[], T]) -> T:
    """Try again while another connection holds a lock: SQLite in memory does not wait for one."""
    deadline = monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except OperationalError as error:
            if "locked" not in str(error) or monotonic() > deadline:
                raise


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for rows to change, for which there is no event. Raises TimeoutError when they never do."""
    deadline = monotonic() + PATIENCE_S
    pause = threading.Event()
    while not patiently(holds):
        if monotonic() > deadline:
            raise TimeoutError(f"not so after {PATIENCE_S} s")
        pause.wait(0.02)
