"""A well-behaved tenant, for `bench greed`: posts, receives, and looks at pages, by the clock.

Latency counts from the moment that a post was due, whatever kept it from being sent then. What is
refused, or has not arrived in the end, counts with the time that it has waited by then: it took
that long at least. It runs in the benchmark's own process, which has nothing else to do meanwhile.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from time import perf_counter
from typing import Any, cast

import pycurl

from jetrelay.bench.interruption import unbroken
from jetrelay.bench.sink import FramingOnly
from jetrelay.bench.web import TYPE

PER_S = 20
HEALTH, PAGE = "/health", "/"
# How long what was posted last may take.
GRACE_S = 10.0
_EVERY_S = 1.0
_LEAST_S = 1.0
_TICK_S = 0.005
_TIMEOUT_MS = 60_000
BODY = f'{{"type":"{TYPE}","data":{{"order":"A-1001","total":12.5}}}}'


class Arrivals:
    """When each event came, by its id. In place of the sink's journal."""

    def __init__(self) -> None:
        self.at = dict[str, float]()

    def write(self, line: bytes) -> None:
        self.at.setdefault(line.decode(errors="replace").strip(), perf_counter())


@unbroken
@contextlib.contextmanager
def receiving() -> Iterator[tuple[int, Arrivals]]:
    """The port of a receiver on a thread of this process, and what comes there."""
    arrivals, loop = Arrivals(), asyncio.new_event_loop()
    transports = set[asyncio.BaseTransport]()

    class Receiver(FramingOnly):
        journal = cast(Any, arrivals)

        def connection_made(self, transport: Any) -> None:
            transports.add(transport)
            super().connection_made(transport)

    def end() -> None:
        server.close()
        for transport in transports:
            transport.close()
        # After what closing has put in line.
        loop.call_soon(loop.stop)

    server = loop.run_until_complete(loop.create_server(Receiver, "127.0.0.1", 0, backlog=1024))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1]), arrivals
    finally:
        loop.call_soon_threadsafe(end)
        thread.join(5)
        loop.close()


@dataclass
class Seen:
    """What one look found: latencies in rising order, and what was not as it should be."""

    stored_ms: list[float]
    delivered_ms: list[float]
    slowest_ms: dict[str, float]
    refused: int
    undelivered: int
    # Pages that came late or not as they should.
    failed: int


@dataclass(eq=False)
class _Asked:
    """One request that is under way, and then over."""

    path: str
    due_at: float
    curl: pycurl.Curl = field(default_factory=pycurl.Curl)
    answer: BytesIO = field(default_factory=BytesIO)
    ended_at: float = 0.0
    status: int = 0
    id: str = ""

    def ms(self, now: float) -> float:
        """How long it took. What did not succeed has lasted until now."""
        end = self.ended_at if 200 <= self.status < 300 else now
        return (end - self.due_at) * 1000


class Witness:
    """Posts with this key, and looks at pages in this session."""

    def __init__(self, site: str, key: str, session: str, arrivals: Arrivals) -> None:
        self._site, self._key, self._session, self._arrivals = site, key, session, arrivals

    def look(self, seconds: float, also: Callable[[], bool] = lambda: True) -> Seen:
        """Post for so long, and wait for what was posted.

        It ends earlier where `also`, which is called all the while, is False.
        """
        return _Look(self._site, self._key, self._session, self._arrivals).run(seconds, also)

    def move(self, endpoint: str, url: str) -> None:
        """Give the endpoint another URL. Raises pycurl.error, or ValueError if it is refused."""
        curl, answer = pycurl.Curl(), BytesIO()
        curl.setopt(pycurl.URL, f"{self._site}/api/v1/endpoints/{endpoint}")
        curl.setopt(pycurl.CUSTOMREQUEST, "PATCH")
        curl.setopt(pycurl.POSTFIELDS, json.dumps({"url": url}))
        curl.setopt(
            pycurl.HTTPHEADER,
            [f"Authorization: Bearer {self._key}", "Content-Type: application/json"],
        )
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.TIMEOUT_MS, _TIMEOUT_MS)
        curl.setopt(pycurl.WRITEDATA, answer)
        curl.perform()
        if curl.getinfo(pycurl.RESPONSE_CODE) != 200:
            raise ValueError(answer.getvalue().decode(errors="replace"))


class _Look:
    def __init__(self, site: str, key: str, session: str, arrivals: Arrivals) -> None:
        self._site, self._arrivals = site, arrivals
        self._post_lines = [
            f"Authorization: Bearer {key}",
            "Content-Type: application/json",
            "Expect:",
        ]
        self._page_lines = [f"Cookie: sessionid={session}"]
        self._multi, self._busy = pycurl.CurlMulti(), dict[pycurl.Curl, _Asked]()
        self._posts, self._pages = list[_Asked](), list[_Asked]()

    def run(self, seconds: float, also: Callable[[], bool]) -> Seen:
        began = perf_counter()
        while (passed := perf_counter() - began) < seconds + GRACE_S:
            # At least a few posts, whatever it says: nothing can be said of none.
            if not also() and passed > _LEAST_S:
                break
            if passed < seconds:
                self._begin(began, passed)
            elif self._is_over():
                break
            self._multi.perform()
            _, good, bad = self._multi.info_read()
            for curl in good:
                self._end(curl, int(curl.getinfo(pycurl.RESPONSE_CODE)))
            for curl, *_ in bad:
                self._end(curl, 0)
            self._multi.select(_TICK_S)
        for curl in list(self._busy):
            self._multi.remove_handle(curl)
        return self._seen(perf_counter())

    def _begin(self, began: float, passed: float) -> None:
        while len(self._posts) < passed * PER_S:
            asked = self._ask("/api/v1/events", began + len(self._posts) / PER_S, self._post_lines)
            self._posts.append(asked)
        while len(self._pages) < 2 * (passed / _EVERY_S):
            due_at = began + len(self._pages) // 2 * _EVERY_S
            self._pages += [
                self._ask(HEALTH, due_at, ()),
                self._ask(PAGE, due_at, self._page_lines),
            ]

    def _ask(self, path: str, due_at: float, lines: Any) -> _Asked:
        asked = _Asked(path, due_at)
        curl = asked.curl
        for option, value in (
            (pycurl.URL, self._site + path),
            (pycurl.HTTPHEADER, list(lines)),
            (pycurl.PROXY, ""),
            (pycurl.TIMEOUT_MS, _TIMEOUT_MS),
            (pycurl.WRITEDATA, asked.answer),
        ):
            curl.setopt(option, value)
        if lines is self._post_lines:
            curl.setopt(pycurl.POSTFIELDS, BODY)
        self._multi.add_handle(curl)
        self._busy[curl] = asked
        return asked

    def _end(self, curl: pycurl.Curl, status: int) -> None:
        self._multi.remove_handle(curl)
        asked = self._busy.pop(curl)
        asked.status, asked.ended_at = status, perf_counter()
        if asked.path not in (HEALTH, PAGE) and status == 202:
            asked.id = str(json.loads(asked.answer.getvalue())["id"])

    def _is_over(self) -> bool:
        arrived = self._arrivals.at
        return not self._busy and all(post.id in arrived for post in self._posts if post.id)

    def _seen(self, now: float) -> Seen:
        arrived = self._arrivals.at
        stored = sorted(post.ms(now) for post in self._posts)
        delivered = sorted((arrived.get(post.id, now) - post.due_at) * 1000 for post in self._posts)
        slowest = dict.fromkeys((HEALTH, PAGE), 0.0)
        for page in self._pages:
            slowest[page.path] = max(slowest[page.path], page.ms(now))
        return Seen(
            stored,
            delivered,
            slowest,
            refused=sum(post.status != 202 and bool(post.ended_at) for post in self._posts),
            undelivered=sum(post.id not in arrived for post in self._posts),
            failed=sum(page.status != 200 for page in self._pages),
        )
