"""Bodies are taken in before anybody works on their requests: clients that dawdle keep nobody else waiting."""

import json
import re
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests

from jetrelay.intake import READERS, TakenIn
from jetrelay.places import SERVER_THREADS
from tests.whole import ROOT, engines, up

MOST = 1000
FEW = 3


class Site:
    """Answers with what it was sent."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]


class Dawdling(BytesIO):
    """A body whose rest comes once the client is told to go on."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.asked, self.goes_on = Event(), Event()

    def read(self, size: int | None = -1) -> bytes:
        self.asked.set()
        self.goes_on.wait(60)
        return super().read(size)


@pytest.fixture
def front() -> TakenIn:
    return TakenIn(Site(), FEW, MOST)


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(FEW + 2) as pool:
        yield pool


def ask(front: TakenIn, source: BytesIO, length: object = "", path: str = "/") -> tuple[str, bytes]:
    statuses: list[str] = []
    answer = front({"PATH_INFO": path, "CONTENT_LENGTH": str(length), "wsgi.input": source}, lambda status, headers: statuses.append(status))
    return statuses[0], b"".join(answer)


def test_a_body_comes_through_as_it_is(front: TakenIn) -> None:
    assert ask(front, BytesIO(b"abc"), 3) == ("200 OK", b"abc")
    # What was cut off is for the application to notice.
    assert ask(front, BytesIO(b"ab"), 3) == ("200 OK", b"ab")


def test_clients_that_dawdle_keep_no_page_waiting(front: TakenIn, clients: ThreadPoolExecutor) -> None:
    slow = [Dawdling(b"abc") for _ in range(FEW)]
    waiting = [clients.submit(ask, front, body, 3) for body in slow]
    assert all(body.asked.wait(30) for body in slow)
    assert ask(front, BytesIO()) == ("200 OK", b"")
    status, words = ask(front, BytesIO(b"abc"), 3)
    assert (status, b"try again" in words) == ("503 Service Unavailable", True)
    status, document = ask(front, BytesIO(b"abc"), 3, "/api/v1/events")
    assert status == "503 Service Unavailable"
    assert {"status": 503, "code": "busy"}.items() <= json.loads(document).items()
    for body in slow:
        body.goes_on.set()
    assert [each.result(30) for each in waiting] == [("200 OK", b"abc")] * FEW
    assert ask(front, BytesIO(b"abc"), 3) == ("200 OK", b"abc")


def test_a_place_is_given_back_when_a_client_goes_away(front: TakenIn) -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionError

    for _ in range(FEW + 1):
        with pytest.raises(ConnectionError):
            ask(front, Broken(), 3)
    assert ask(front, BytesIO(b"abc"), 3) == ("200 OK", b"abc")


def test_a_body_that_is_too_long_is_refused_unread(front: TakenIn) -> None:
    source = Dawdling(b"abc")
    assert ask(front, source, MOST + 1)[0] == "413 Content Too Large"
    assert not source.asked.is_set()
    # The API says so in a format of its own, and reads no such body either.
    assert ask(front, BytesIO(b"abc"), MOST + 1, "/api/v1/events") == ("200 OK", b"abc")


@pytest.mark.parametrize("length", ["", "-1", "abc", "٣", "9" * 30])
def test_a_length_that_is_none_is_the_applications_affair(front: TakenIn, length: str) -> None:
    assert ask(front, BytesIO(b"abc"), length) == ("200 OK", b"abc")


@pytest.mark.whole
def test_the_site_answers_while_more_clients_dawdle_than_threads_work(tmp_path: Path) -> None:
    head = b"POST /login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: csrftoken=" + b"a" * 32
    begun = head + b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 5000\r\n\r\nusername="
    with (
        engines("embedded", tmp_path / "data") as env,
        up(env | {"JETSTREAM_HOSTS": "ws://127.0.0.1:9/subscribe"}, tmp_path / "up.log") as program,
        ExitStack() as clients,
    ):
        port = int(program.wait_for_output(r"Jetrelay is running: http://127.0.0.1:(\d+)/")[1])
        for _ in range(READERS):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.sendall(begun)
        for path in ("/health", "/login/"):
            assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=30).status_code == 200


def test_the_server_has_threads_for_more_than_bodies() -> None:
    assert READERS < SERVER_THREADS
    for file in ("README.md", "docker-compose.yml"):
        found = re.findall(r'--blocking-threads"?,? "?(\d+)', (ROOT / file).read_text())
        assert found == [str(SERVER_THREADS)], file
