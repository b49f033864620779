"""What lanes and the sender exchange: requests one way, results the other, and the gate that both keep."""

import enum
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
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


# More results than there are.
MANY = 1_000_000
# How late a paced request may be for the next one to follow sooner, in seconds: what a busy sender is late by.
CATCH_UP_S = 0.01
# The receiver wants no more of this, for good (RFC 9110, 15.5.11).
GONE = 410


class Inbox:
    """Where one lane finds its results. Thread-safe; `poke` wakes the waiting lane for another reason.

    A waiting lane wakes for `enough` results at a time: threads that wake each other for every single one spend more
    on that than on the work.
    """

    def __init__(self, enough: int = 1) -> None:
        self.enough = max(1, enough)
        self._results: deque[Result] = deque()
        self._something = threading.Event()
        self._poked = False

    def put(self, result: Result, *, urgent: bool = False) -> None:
        """`urgent` wakes the lane at once: something waits for this very result."""
        self._results.append(result)
        if (urgent or len(self._results) >= self.enough) and not self._something.is_set():
            self._something.set()

    def poke(self) -> None:
        self._poked = True
        self._something.set()

    def take(self, timeout_s: float, most: int = MANY) -> list[Result]:
        """The results so far, `most` of them, after waiting up to `timeout_s` for enough of them or a poke."""
        if len(self._results) < self.enough:
            self._something.wait(timeout_s)
        self._something.clear()
        return [self._results.popleft() for _ in range(min(most, len(self._results)))]

    def was_poked(self) -> bool:
        """Whether somebody has poked since this was asked last."""
        poked, self._poked = self._poked, False
        return poked


@dataclass(slots=True)
class Request:
    """One POST. `headers` are complete lines, or make them when the request starts, of that time in Unix seconds, the one that is kept with
    the attempt, and the body.

    The time limit covers everything from DNS to the last byte.
    """

    tag: Any
    url: str
    headers: Sequence[str] | Callable[[float, bytes], Sequence[str]]
    body: bytes
    timeout_ms: int
    inbox: Inbox
    gate: "Gate | None" = None
    urgent: bool = False
    # Whose place it takes, once it has started; None for what the operator asks, and for what people wait for.
    tenant: object = None


class Gate:
    """How many requests may be open at once to one endpoint, and how often one starts; the rest wait here.

    The sender starts the next request itself, so that a lane which is busy with the database holds nothing up. For the
    same reason it shuts the gate itself when as many requests have failed in a row as `spare` says, or when the receiver
    asks for patience. What that means is for the lane to judge, which opens the gate again.
    """

    def __init__(self, limit: int, tenant: object = None) -> None:
        self.limit = limit
        self.tenant = tenant
        # On the monotonic clock: nothing starts after this, for whoever fills the gate may have lost the right to.
        self.open_until = math.inf
        # Seconds between two starts, and when the next may be, on the monotonic clock.
        self.interval_s = 0.0
        self.next_at = 0.0
        self.weight = 1.0
        self.waiting: deque[Request] = deque()
        # Failures in a row, and how many of them shut the gate.
        self.strikes = 0
        self.spare: float = math.inf
        self.shut = False
        # Counted by the sender's thread alone: requests that are open, and those that have ended.
        self.open = 0
        self.answered = 0
        # The gate's place among others. See `turns.py`.
        self.queued_for: float | None = None
        self.passed = 0.0

    def can_start(self, now: float) -> bool:
        """Whether something waits that may start, but for the pace."""
        return self.open < self.limit and bool(self.waiting) and now < self.open_until and not self.shut

    def started(self, now: float) -> None:
        self.open += 1
        if self.interval_s:
            # A sender that comes late, by some ms, makes up for it: the pace is kept on average.
            self.next_at = max(self.next_at, now - CATCH_UP_S) + self.interval_s

    def ended(self, result: Result) -> None:
        """To be called before the lane gets the result."""
        self.open -= 1
        self.answered += 1
        if result.status is not None and 200 <= result.status < 300:
            self.strikes = 0
            return
        self.strikes += 1
        if self.strikes >= self.spare or result.retry_after_s > 0 or result.status == GONE:
            self.shut = True

    def reopen(self, spare: float) -> None:
        """Only once everything that was answered has been judged: else failures that are on their way to the lane are forgotten."""
        self.strikes, self.spare, self.shut = 0, spare, False

    def pace(self, interval_s: float) -> None:
        """Start a request every so many seconds at most; 0 for no limit."""
        self.interval_s = interval_s
        self.next_at = min(self.next_at, monotonic() + interval_s)

    def withdraw(self) -> list[Request]:
        """Take back what has not been started."""
        withdrawn = []
        while self.waiting:
            try:
                withdrawn.append(self.waiting.popleft())
            except IndexError:
                break  # the sender was quicker
        return withdrawn
