"""Looks names up for one sender, each in a thread of its own, so that a name that hangs holds nobody else up.

libcurl has 20 threads for this, lets each request take two of them, and the C library waits 10 to 30 s for a DNS
server that never answers: ten requests to one such name and no other name is found for as long. Here a name has one
thread, however many requests wait for it, and a tenant whose names all hang leaves threads for those of others
(`shares.py`). What is found is only handed to libcurl; the door looks at the address when its socket is opened, as ever.
"""

import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heappop, heappush
from time import monotonic, time
from typing import NamedTuple

from delivery.destinations.exchange import Request
from delivery.shares import Shares

# Bytes of a thread's stack are only reserved; names beyond this many wait for one to end.
MAX_THREADS = 256
MAX_KEPT = 10_000
# A host that has to be looked up: its last label does not start with a digit, or it would be a number in some spelling.
# What is not matched here is libcurl's own business, which looks it up itself or refuses it.
_NAMED = re.compile(r"https?://((?:[A-Za-z0-9_-]+\.)*[A-Za-z_][A-Za-z0-9_-]*\.?)(?::([0-9]{1,5}))?(?:[/?#]|\Z)")

LookUp = Callable[[str], Sequence[str]]


def system_look_up(name: str) -> Sequence[str]:
    """The addresses that this system's resolver has for a name. Raises OSError. May take as long as it likes."""
    found = socket.getaddrinfo(name.encode(), None, type=socket.SOCK_STREAM)
    # Those with a zone are for a link on this machine alone, and nothing that libcurl can be told.
    return [address for address in dict.fromkeys(str(where[0]) for _, _, _, _, where in found) if "%" not in address]


class Resolver(NamedTuple):
    """How names are looked up, and for how many seconds what is known serves.

    It is looked up again, while it serves, once half of the time is over for which it is fresh: a busy name is never waited for.
    One that is no longer fresh is waited for, since its host may have moved. Only where that takes too long or fails, what was
    known before still serves (RFC 8767).
    """

    look_up: LookUp = system_look_up
    fresh_s: float = 60.0
    stale_s: float = 300.0
    # How long to wait for a look-up before what is stale serves.
    patience_s: float = 1.8


@lru_cache(maxsize=4096)
def name_and_port(url: str) -> tuple[str, int] | None:
    """The name in a URL, where it has one that must be looked up."""
    match = _NAMED.match(url)
    if match is None or match[1].lower().endswith(("localhost", "localhost.")):
        return None
    return match[1].lower(), int(match[2] or (443 if url.startswith("https") else 80))


def entry(name: str, port: int, addresses: Sequence[str]) -> str:
    """What tells libcurl the addresses of a name (CURLOPT_RESOLVE); `+` lets it forget them again."""
    return f"+{name}:{port}:" + ",".join(f"[{address}]" if ":" in address else address for address in addresses)


@dataclass(slots=True, eq=False)
class Wait:
    """A request whose name is being looked up."""

    name: str
    port: int
    request: Request
    since: float = field(default_factory=monotonic)
    started_at: float = field(default_factory=time)
    over: bool = False

    @property
    def waited_ms(self) -> float:
        return (monotonic() - self.since) * 1000


class _Found(NamedTuple):
    name: str
    # Who was given the thread.
    tenant: object
    addresses: Sequence[str]
    reason: str


class Names:
    """Owned by the sender's thread, which calls everything here; `arrived` is called in others."""

    def __init__(self, resolver: Resolver, arrived: Callable[[], None]) -> None:
        self._resolver = resolver
        self._arrived = arrived
        self._known: dict[str, tuple[float, Sequence[str]]] = {}
        # Those of them that could not be looked up again, or not in time: what is stale serves at once.
        self._unanswered: set[str] = set()
        # Everything that is sought, also where nobody waits for it.
        self._waiting: dict[str, list[Wait]] = {}
        self._deadlines: list[tuple[float, int, Wait]] = []
        self._waits = 0
        # Names that wait for a thread, of each tenant that wants them, the oldest first; and those that have one.
        self._queue: dict[object, dict[str, None]] = {}
        self._running: set[str] = set()
        self._threads = Shares(MAX_THREADS)
        self._found: deque[_Found] = deque()

    def addresses(self, name: str, tenant: object = None) -> Sequence[str]:
        """What is known of a name; nothing when it has to be waited for. `tenant` is whose request wants to know."""
        addresses, age_s = self._stale(name)
        if not addresses:
            return ()
        if age_s > self._resolver.fresh_s / 2:
            self._seek(name, tenant)
            self._start_threads()
        return addresses if age_s <= self._resolver.fresh_s or name in self._unanswered else ()

    def _stale(self, name: str) -> tuple[Sequence[str], float]:
        """What serves if there is nothing better, and how old it is."""
        looked_up_at, addresses = self._known.get(name, (0.0, ()))
        age_s = monotonic() - looked_up_at
        return (addresses if age_s <= self._resolver.stale_s else ()), age_s

    def wait(self, name: str, port: int, request: Request) -> None:
        """Look the name up for this request, which comes back from `ready` or `expired`."""
        wait = Wait(name, port, request)
        self._seek(name, request.tenant).append(wait)
        self._start_threads()
        self._waits += 1
        patience_s = request.timeout_ms / 1000
        if self._stale(name)[0]:
            # Some of its time is for the request itself.
            patience_s = min(patience_s / 2, self._resolver.patience_s)
        heappush(self._deadlines, (wait.since + patience_s, self._waits, wait))

    def deadline(self) -> float | None:
        """When the next request will have waited too long, on the monotonic clock."""
        while self._deadlines and self._deadlines[0][2].over:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self) -> list[tuple[Wait, Sequence[str]]]:
        """The requests that have waited too long by now, each with addresses that were known before, if there are any."""
        late = []
        while (deadline := self.deadline()) is not None and deadline <= monotonic():
            wait = heappop(self._deadlines)[2]
            wait.over = True
            self._waiting[wait.name].remove(wait)
            late.append((wait, self._instead(wait.name)))
        return late

    def ready(self) -> list[tuple[Wait, Sequence[str], str]]:
        """The requests whose look-up has ended, each with the addresses, or the reason why there are none."""
        waits: list[tuple[Wait, Sequence[str], str]] = []
        for _ in range(len(self._found)):
            found = self._found.popleft()
            self._threads.give_back(found.tenant)
            self._running.remove(found.name)
            if found.addresses:
                self._keep(found)
            addresses = found.addresses or self._instead(found.name)
            for wait in self._waiting.pop(found.name):
                wait.over = True
                waits.append((wait, addresses, found.reason))
        if self._queue:
            self._start_threads()
        return waits

    def _instead(self, name: str) -> Sequence[str]:
        """What serves from now on, until the name has been looked up again."""
        addresses, _ = self._stale(name)
        if addresses:
            self._unanswered.add(name)
        return addresses

    def _seek(self, name: str, tenant: object) -> list[Wait]:
        # Also where another tenant wants it already, whose names may all have to wait.
        if name not in self._running:
            self._queue.setdefault(tenant, {})[name] = None
        return self._waiting.setdefault(name, [])

    def _keep(self, found: _Found) -> None:
        # What was found last stands last: one name too many costs the oldest, and not all of them.
        self._known.pop(found.name, None)
        self._unanswered.discard(found.name)
        if len(self._known) >= MAX_KEPT:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._unanswered.discard(oldest)
        self._known[found.name] = (monotonic(), found.addresses)

    def _start_threads(self) -> None:
        """Start what may be: a name of each tenant in turn."""
        while self._queue and self._threads.free:
            started = [self._start_thread(tenant) for tenant in list(self._queue)]
            if not any(started):
                return

    def _start_thread(self, tenant: object) -> bool:
        """Start the look-up of the next name of a tenant. False if it may have no more, or the system has no more threads."""
        names = self._queue[tenant]
        while names and not self._is_wanted(name := next(iter(names))):
            del names[name]
        if names:
            if not self._threads.may_take(tenant):
                return False
            try:
                threading.Thread(target=self._run, args=(name, tenant), name="name", daemon=True).start()
            except RuntimeError:
                return False
            del names[name]
            self._running.add(name)
            self._threads.take(tenant)
        if not names:
            del self._queue[tenant]
        return True

    def _is_wanted(self, name: str) -> bool:
        """Whether to look it up: not where another tenant's thread has, or where all who wanted it have given up."""
        if name in self._running or name not in self._waiting:
            return False
        if self._waiting[name] or name in self._known:
            return True
        del self._waiting[name]
        return False

    def _run(self, name: str, tenant: object) -> None:
        try:
            addresses = self._resolver.look_up(name)
            reason = "" if addresses else "it has no address"
        except (OSError, UnicodeError) as error:
            addresses, reason = (), str(getattr(error, "strerror", None) or error)
        self._found.append(_Found(name, tenant, addresses, reason))
        self._arrived()
