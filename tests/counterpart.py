"""The receivers of several endpoints in one: it answers each as it is told, and remembers who came while who was there.

The path says whose request it is: `/0/a` and `/0/b` are both endpoint 0's.
"""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from django.db import connections

from tests.receiver import Handler, Received, Receiver


class Answer(NamedTuple):
    """No status is a reset in the middle of the answer: libcurl itself repeats a request of which not a byte was answered."""

    status: int | None
    retry_after_s: int = 0


OK = Answer(200)
ANSWERS = {
    "ok": OK,
    "accepted": Answer(202),
    "error": Answer(500),
    "missing": Answer(404),
    "gone": Answer(410),
    "patience": Answer(429, 600),
    "maintenance": Answer(503, 600),
    "busy": Answer(429),
    "reset": Answer(None),
}


@dataclass(eq=False)
class Arrival:
    """A request. Its times are those of one clock that counts arrivals and answers."""

    received: Received
    owner: str
    endpoint: int
    # The numbers in the bodies of the events that it carries.
    events: tuple[int, ...]
    arrived: int
    # Those of the same owner and endpoint that had no answer yet.
    beside: tuple["Arrival", ...]
    answered: int | None = None
    answer: Answer = OK

    @property
    def mortal(self) -> str:
        """Which of the owners of `mortal_owner.py` sent it; empty if none did."""
        return self.owner if "-" in self.owner else ""

    @property
    def succeeded(self) -> bool:
        return self.answer.status is not None and self.answer.status < 300


@dataclass
class Trap:
    """What happens at the n-th request from now: before it is answered, or just after."""

    countdown: int
    happens: Callable[[], None]
    after: bool = False


@dataclass
class Counterpart:
    receiver: Receiver
    arrivals: list[Arrival] = field(default_factory=list)
    # What the next requests of an endpoint are told, and those that carry an event.
    moods: dict[int, deque[Answer]] = field(default_factory=dict)
    poison: dict[tuple[int, int], deque[Answer]] = field(default_factory=dict)
    trap: Trap | None = None
    # How long it takes over each answer.
    latency_s: float = 0.0
    errors: list[BaseException] = field(default_factory=list)
    _clock: "count[int]" = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.receiver.requests.clear()
        self.receiver.answer = self.answer

    def url(self, endpoint: int, path: str) -> str:
        return f"http://127.0.0.1:{self.receiver.port}/{endpoint}/{path}"

    def mend(self) -> None:
        """From now on everything is well."""
        self.moods.clear()
        self.poison.clear()

    def disarm(self) -> Trap | None:
        """The trap, if nobody has sprung it."""
        with self._lock:
            trap, self.trap = self.trap, None
            return trap

    def answer(self, handler: Handler, received: Received) -> None:
        arrival, trap = self._arrive(received)
        if trap and not trap.after:
            self._spring(trap)
        if self.latency_s:
            self.receiver.closing.wait(self.latency_s)
        with self._lock:
            arrival.answered = next(self._clock)
        _say(handler, arrival.answer)
        if trap and trap.after:
            self._spring(trap)

    def _spring(self, trap: Trap) -> None:
        try:
            trap.happens()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test wants to know
            self.errors.append(error)
        finally:
            connections.close_all()

    def _arrive(self, received: Received) -> tuple[Arrival, Trap | None]:
        endpoint, content = int(received.path.split("/")[1]), json.loads(received.body)
        events = tuple(event["n"] for event in (content if isinstance(content, list) else [content]))
        owner = received.headers["user-agent"].removeprefix("Jetrelay/")
        with self._lock:
            beside = tuple(each for each in self.arrivals if (each.endpoint, each.owner, each.answered) == (endpoint, owner, None))
            arrival = Arrival(received, owner, endpoint, events, next(self._clock), beside)
            arrival.answer = self._next_answer(endpoint, events)
            self.arrivals.append(arrival)
            return arrival, self._next_trap()

    def _next_answer(self, endpoint: int, events: tuple[int, ...]) -> Answer:
        poisoned = [self.poison[endpoint, event] for event in events if self.poison.get((endpoint, event))]
        for answers in [*poisoned, self.moods.get(endpoint)]:
            if answers:
                return answers.popleft()
        return OK

    def _next_trap(self) -> Trap | None:
        trap = self.trap
        if trap is None:
            return None
        trap.countdown -= 1
        if trap.countdown:
            return None
        self.trap = None
        return trap


def _say(handler: Handler, answer: Answer) -> None:
    if answer.status is None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-More: to come\r\n")
        handler.wfile.flush()
        handler.abort()
    else:
        handler.reply(answer.status, b"", {"Retry-After": str(answer.retry_after_s)} if answer.retry_after_s else None)
