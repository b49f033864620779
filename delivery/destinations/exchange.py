"""What lanes and the sender exchange: requests one way, results the other, and the gate that both keep."""

import enum
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Error(enum.Enum):
    """Why a request got no usable response. The value is stored with the attempt."""

    DNS = "dns"
    REFUSED_ADDRESS = "refused_address"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    EMPTY_RESPONSE = "empty_response"
    BAD_RESPONSE = "bad_response"
    BAD_URL = "bad_url"
    OTHER = "other"


class Timings(NamedTuple):
    """Milliseconds from the start of the request to the end of each phase; 0 for a phase that was not needed."""

    dns_ms: float
    connect_ms: float
    tls_ms: float
    first_byte_ms: float
    total_ms: float


class Result(NamedTuple):
    """What came of a request. `status` is None when no response came; then `error` says why."""

    tag: Any
    started_at: float
    status: int | None
    error: Error | None
    error_detail: str
    timings: Timings
    response_headers: str
    response_body: bytes
    retry_after_s: int


POKED: list[Result] = []


class Inbox:
    """Where one lane finds its results. Thread-safe; `poke` wakes the waiting lane for another reason.

    A waiting lane wakes for `enough` results at a time: threads that wake each other for every single one spend more
    on that than on the work.
    """

    def __init__(self, enough: int = 1) -> None:
        self._enough = enough
        self._results: deque[Result] = deque()
        self._something = threading.Event()
        self._poked = False

    def put(self, result: Result) -> None:
        self._results.append(result)
        if len(self._results) >= self._enough and not self._something.is_set():
            self._something.set()

    def poke(self) -> None:
        self._poked = True
        self._something.set()

    def take(self, timeout_s: float) -> list[Result]:
        """All results so far, after waiting up to `timeout_s` for enough; `POKED` when there are none but a poke."""
        if len(self._results) < self._enough:
            self._something.wait(timeout_s)
        self._something.clear()
        taken = [self._results.popleft() for _ in range(len(self._results))]
        if taken or not self._poked:
            return taken
        self._poked = False
        return POKED


@dataclass(slots=True)
class Request:
    """One POST. `headers` are complete lines, or make them when the request starts, for a timestamp that is true.

    The time limit covers everything from DNS to the last byte.
    """

    tag: Any
    url: str
    headers: Sequence[str] | Callable[[], Sequence[str]]
    body: bytes
    timeout_ms: int
    inbox: Inbox
    gate: "Gate | None" = None


class Gate:
    """How many requests may be open at once to one endpoint; the rest wait here until one of them ends.

    The sender starts the next request itself, so that a lane which is busy with the database holds nothing up.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # On the monotonic clock: nothing starts after this, for whoever fills the gate may have lost the right to.
        self.open_until = math.inf
        # Counted by the sender's thread alone.
        self.open = 0
        self.waiting: deque[Request] = deque()

    def withdraw(self) -> list[Request]:
        """Take back what has not been started."""
        withdrawn = []
        while self.waiting:
            try:
                withdrawn.append(self.waiting.popleft())
            except IndexError:
                break  # the sender was quicker
        return withdrawn
