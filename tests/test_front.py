"""In front of the site: memory for bodies is shared out before a byte is read, `/health` waits for nothing, and every refusal is in words."""

import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory

from jetrelay import askers, busy, health, places
from jetrelay.front import Front
from jetrelay.health import Watch
from jetrelay.intake import READERS
from jetrelay.site import OnFairThreads, Vital

MB = 1024 * 1024
PATIENCE_S = 30


class Held:
    """An application that answers once it is told to."""

    def __init__(self) -> None:
        self.calls = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.calls.release()
        self.go_on.wait(PATIENCE_S)
        start_response("200 OK", [])
        return [b"ok"]


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(30) as pool:
        yield pool


def ask(application: Any, address: str = "203.0.113.1", length: object = "", path: str = "/", **headers: str) -> tuple[str, dict[str, str], bytes]:
    said: list[Any] = []
    environ = RequestFactory().get(path).environ | {"REMOTE_ADDR": address, "CONTENT_LENGTH": str(length), "wsgi.input": BytesIO()} | headers
    answer = b"".join(application(environ, lambda status, headers, exc_info=None: said.append((status, dict(headers)))))
    return said[-1][0], said[-1][1], answer


def test_bodies_that_wait_hold_no_more_memory_than_there_is_and_one_asker_a_part(clients: ThreadPoolExecutor) -> None:
    askers.keys.clear()
    askers.keys.learn("jr_greedy", askers.tenant("greedy"))
    site, greedy = Held(), {"HTTP_AUTHORIZATION": "Bearer jr_greedy"}
    front = Front(site, 128 * MB, 10 * MB)
    asked = [clients.submit(ask, front, length=10 * MB, **greedy) for _ in range(6)]
    for _ in asked:
        assert site.calls.acquire(timeout=PATIENCE_S)
    status, headers, words = ask(front, length=10 * MB, path="/api/v1/events/batch", **greedy)
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", str(busy.RETRY_AFTER_S))
    assert json.loads(words)["code"] == "busy"
    # Others have room, in more than one part: strangers have half of half.
    asked += [clients.submit(ask, front, f"203.0.113.{number}", 10 * MB) for number in (2, 3, 4)]
    for _ in range(3):
        assert site.calls.acquire(timeout=PATIENCE_S)
    site.go_on.set()
    assert {each.result(PATIENCE_S)[0] for each in asked} == {"200 OK"}
    assert ask(front, length=10 * MB, **greedy)[0] == "200 OK"
    assert front._bytes.free == 128 * MB


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [
        ("/api/v1/events", {}, "application/problem+json"),
        ("/endpoints/", {"HTTP_ACCEPT": "text/html,*/*"}, "text/html; charset=utf-8"),
        ("/endpoints/", {"HTTP_ACCEPT": "text/html,*/*", "HTTP_HX_REQUEST": "true"}, "text/plain; charset=utf-8"),
        ("/metrics", {}, "text/plain; charset=utf-8"),
    ],
)
def test_every_refusal_is_in_words_for_whoever_asks(path: str, headers: dict[str, str], kind: str) -> None:
    status, said, body = ask(Front(Held(), 10, 100), length=11, path=path, **headers)
    assert (status, said["Content-Type"], said["Retry-After"]) == ("503 Service Unavailable", kind, str(busy.RETRY_AFTER_S))
    assert b"wait for some of their answers" in body
    assert said["X-Request-Id"].startswith("req_")
    assert {"X-Content-Type-Options", "Cache-Control"} <= said.keys()
    assert ("Content-Security-Policy" in said) == kind.startswith("text/html")


def test_health_needs_neither_the_sites_threads_nor_the_database(monkeypatch: pytest.MonkeyPatch, clients: ThreadPoolExecutor) -> None:
    """No database may be used in this test: pytest-django sees to that."""
    watch = Watch()
    monkeypatch.setattr(health, "watch", watch)
    monkeypatch.setattr(health, "_problems", dict)
    site = Held()
    front = Front(Vital(OnFairThreads(site, 2, 4, "test"), WSGIHandler()), MB, MB)
    asked = [clients.submit(ask, front, f"203.0.113.{number}") for number in range(2)]
    assert site.calls.acquire(timeout=PATIENCE_S)
    for _ in range(20):
        # As in the server, on a thread that has no connection to a database.
        status, headers, body = clients.submit(ask, front, path="/health").result(PATIENCE_S)
        assert (status, json.loads(body)["status"]) == ("200 OK", "ok")
    assert "X-Request-Id" in headers
    site.go_on.set()
    for each in asked:
        each.result(PATIENCE_S)


def test_a_database_that_says_nothing_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch, clients: ThreadPoolExecutor) -> None:
    looks, goes_on = threading.Semaphore(0), threading.Event()

    def look() -> dict[str, str]:
        looks.release()
        goes_on.wait(PATIENCE_S)
        return {}

    monkeypatch.setattr(health, "_problems", look)
    monkeypatch.setattr(health, "SILENT_S", 0.2)
    watch = Watch()
    found = [clients.submit(watch.problems) for _ in range(25)]
    assert {tuple(each.result(PATIENCE_S)) for each in found} == {("database",)}
    # One look for all of them.
    assert looks.acquire(timeout=PATIENCE_S)
    assert not looks.acquire(blocking=False)
    goes_on.set()
    while watch.problems():
        pass
    assert watch.problems() == {}


def test_the_server_has_threads_for_all_that_may_wait_and_more() -> None:
    waiting = (places.CALLS, places.POSTS, READERS, places.STREAMS, 2 * places.VITAL_CALLS, health.WAITING)
    assert sum(waiting) < places.SERVER_THREADS
    assert places.SITE_THREADS >= 8
