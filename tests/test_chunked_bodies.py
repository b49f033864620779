"""Bodies that come in chunks: proxies send some of them so, whatever they were sent.

They are read as those whose length is said, and are bounded alike.
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.test import Client

from delivery.models import Event
from jetrelay.front import caps
from jetrelay.front.application import Front
from jetrelay.front.reading import START_S
from jetrelay.front.threads import FairThreads
from jetrelay.inbox.models import Inbox
from subscriptions.models import Endpoint
from tests.api import Api, api_of
from tests.builders import make_endpoint, make_tenant
from tests.crowd import database_url
from tests.web import Web, serving, site
from tests.whole import engines

END = b"0\r\n\r\n"
EVENT = {"type": "a.b", "data": {"n": 1}}
ENDPOINT = {"name": "in chunks", "url": "https://receiver.example/hook"}
# Much less than what has to time out.
SOON_S = 5


@pytest.fixture
def web(transactional_db: None, tmp_path: Path) -> Iterator[Web]:
    """The site on the test's own database."""
    env = {**os.environ, "DATABASE_URL": database_url()}
    with serving(env, tmp_path / "web.log") as found:
        yield found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The site of an installation that nobody has used."""
    folder: Path = tmp_path_factory.mktemp("chunked")
    with engines("embedded", folder / "data") as env, site(env, folder / "web.log") as found:
        yield found


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder: Path = tmp_path_factory.mktemp("chunked_echo")
    with engines("embedded", folder / "data") as env, serving(env, folder / "web.log", "tests.echo:application") as found:
        yield found


@pytest.fixture
def api(web: Web) -> Api:
    return api_of(make_tenant())


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def in_chunks(body: bytes, size: int = 1000) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(map(chunk, pieces)) + END


def head(path: str, *lines: str, coding: str = "Transfer-Encoding: chunked") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", coding, *lines, "", ""]).encode()


def of(api: Api, *more: str) -> tuple[str, ...]:
    return f"Authorization: Bearer {api.text}", "Content-Type: application/json", *more


def read(client: socket.socket) -> tuple[int, bytes, bytes]:
    """One answer: its status, its head and its body."""
    text = b""
    while b"\r\n\r\n" not in text and (more := client.recv(65536)):
        text += more
    top, _, body = text.partition(b"\r\n\r\n")
    assert top, "closed without an answer"
    length = re.search(rb"\r\ncontent-length: (\d+)", top.lower())
    while length and len(body) < int(length[1]) and (more := client.recv(65536)):
        body += more
    return int(top.split()[1]), top, body


def ask(web: Web, request: bytes) -> tuple[int, bytes, bytes]:
    with ExitStack() as held:
        client = web.connect(held)
        # Who is refused may find the connection closed before all is sent.
        with suppress(ConnectionError):
            client.sendall(request)
        return read(client)


# --- what is posted ----------------------------------------------------------------------------


@pytest.mark.whole
def test_a_form_signs_in(web: Web) -> None:
    User.objects.create_user("ada", password="correct horse battery")
    token = requests.get(f"{web.url}/login/", timeout=30).cookies["csrftoken"]
    form = f"csrfmiddlewaretoken={token}&username=ada&password=correct+horse+battery".encode()
    lines = f"Cookie: csrftoken={token}", "Content-Type: application/x-www-form-urlencoded"
    status, top, _ = ask(web, head("/login/", *lines) + in_chunks(form, 10))
    assert status == 302
    assert b"sessionid=" in top


@pytest.mark.whole
def test_a_call_of_the_api_is_carried_out(web: Web, api: Api) -> None:
    text = json.dumps(ENDPOINT).encode()
    status, _, body = ask(web, head("/api/v1/endpoints", *of(api)) + in_chunks(text))
    assert (status, json.loads(body)["name"]) == (201, "in chunks")
    # And without chunks there is nothing in it.
    status, _, body = ask(web, head("/api/v1/endpoints", *of(api)) + END)
    assert (status, json.loads(body)["code"]) == (422, "invalid")
    assert Endpoint.objects.count() == 1


@pytest.mark.whole
def test_events_are_stored_and_the_connection_goes_on(web: Web, api: Api) -> None:
    """The first goes to the view, and the others the plain way."""
    with ExitStack() as held:
        client = web.connect(held)
        for number in range(5):
            text = json.dumps(EVENT | {"id": f"e{number}"}).encode()
            client.sendall(head("/api/v1/events", *of(api)) + in_chunks(text, 1 if number else 9))
            assert read(client)[0] == 202
    assert set(Event.objects.values_list("type", flat=True)) == {"a.b"}
    assert Event.objects.count() == 5


@pytest.mark.whole
@pytest.mark.parametrize("size", [1000, 50_000])
def test_an_event_and_a_batch_that_are_longer_than_a_strangers_are_stored(web: Web, api: Api, size: int) -> None:
    event = EVENT | {"data": "x" * 30_000}
    text = json.dumps(event).encode()
    assert ask(web, head("/api/v1/events", *of(api)) + in_chunks(text, size))[0] == 202
    text = json.dumps({"events": [event] * 40}).encode()
    assert len(text) > caps.API
    # What was taken for the longest that it might become is given back, each time.
    for _ in range(7):
        status, _, body = ask(web, head("/api/v1/events/batch", *of(api)) + in_chunks(text, size))
        assert (status, len(json.loads(body)["data"])) == (202, 40)
    assert Event.objects.count() == 281


@pytest.mark.whole
def test_the_inbox_keeps_what_arrived(web: Web) -> None:
    inbox = Inbox.objects.create(endpoint=make_endpoint())
    for size in (100, 100_000):
        status, _, body = ask(web, head(f"/inbox/{inbox.token}") + in_chunks(b"x" * size))
        assert status == 401, body
        assert bytes(inbox.messages.all()[0].body) == b"x" * size


# --- its bounds --------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("path", "status"),
    [("/login/", 413), ("/nowhere", 413), ("/inbox/nobody", 404), ("/api/v1/events", 401)],
)
def test_what_is_too_long_for_a_stranger_is_refused_before_it_ends(empty: Web, path: str, status: int) -> None:
    begun = monotonic()
    found, top, body = ask(empty, head(path) + chunk(b"x" * (caps.STRANGERS + 1)))
    assert found == status
    assert b"connection: close" in top.lower()
    if status == 413:
        assert b"sign in first" in body
    assert monotonic() - begun < SOON_S


@pytest.mark.whole
def test_what_is_too_long_for_anybody_is_refused_in_the_words_for_a_length(web: Web, api: Api) -> None:
    path = "/api/v1/endpoints"
    length = head(path, *of(api), coding=f"Content-Length: {caps.API + 1}")
    with ExitStack() as held:
        client = web.connect(held)
        client.sendall(head(path, *of(api)))
        with suppress(ConnectionError):
            client.sendall(in_chunks(b" " * caps.API)[: -len(END)])
            client.sendall(chunk(b" "))
        answers = [read(client), ask(web, length)]
    assert [status for status, _, _ in answers] == [413, 413]
    chunked, declared = (json.loads(body) for _, _, body in answers)
    assert (chunked["code"], chunked["detail"]) == ("too_large", declared["detail"])


@pytest.mark.whole
def test_strangers_that_send_without_an_end_take_no_memory(empty: Web) -> None:
    before = empty.resident_mb()
    with ExitStack() as held:
        for _ in range(50):
            client = empty.connect(held)
            client.sendall(head("/login/"))
            with suppress(ConnectionError):
                for _ in range(50):
                    client.sendall(chunk(b"x" * 100_000))
    assert empty.resident_mb() - before < 50


@pytest.mark.whole
@pytest.mark.parametrize("rest", [b"", b"0\r\n", b"5\r\nab", b"zz\r\n", b"0\r\nX-Trailer: a\r\n\r\n"])
def test_what_is_cut_off_is_not_taken_for_whole(web: Web, api: Api, rest: bytes) -> None:
    """Though all of the event is there."""
    with ExitStack() as held:
        client = web.connect(held)
        client.sendall(head("/api/v1/events", *of(api)) + chunk(json.dumps(EVENT).encode()) + rest)
        if b"Trailer" not in rest:
            client.shutdown(socket.SHUT_WR)
        status, _, body = read(client)
    assert (status, json.loads(body)["code"]) == (400, "bad_request")
    assert "cut off" in json.loads(body)["detail"]
    assert not Event.objects.exists()


@pytest.mark.whole
def test_what_comes_too_slowly_is_not_waited_for(empty: Web) -> None:
    with ExitStack() as held:
        silent, trickles = empty.connect(held), empty.connect(held)
        for client in (silent, trickles):
            client.sendall(head("/login/") + chunk(b"username="))
        begun = monotonic()
        trickles.settimeout(0.2)
        while monotonic() - begun < 3 * START_S:
            with suppress(TimeoutError):
                answer = read(trickles)
                break
            trickles.sendall(chunk(b"x"))
        assert START_S - 1 < monotonic() - begun < START_S + 5
        assert [answer[0], read(silent)[0]] == [408, 408]


# --- where it ends -----------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    "coding",
    [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
    ],
)
def test_another_coding_is_refused_and_what_follows_is_no_request(echo: Web, coding: str) -> None:
    behind = head("/behind", "Connection: close") + END
    answer = echo.ask(head("/", coding=coding) + in_chunks(b"abc") + behind)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.whole
@pytest.mark.parametrize("first", ["length", "chunks"])
def test_beside_a_length_the_chunks_count_and_what_follows_is_no_request(echo: Web, first: str) -> None:
    """The server leaves the length out of the head, and ends the connection."""
    lines = ["Content-Length: 3", "Transfer-Encoding: chunked"]
    coding = "\r\n".join(lines if first == "length" else reversed(lines))
    behind = head("/behind", "Connection: close") + END
    answer = echo.ask(head("/", coding=coding) + in_chunks(b"abcde") + behind)
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in top.lower()
    assert json.loads(body)["body"] == "abcde"


@pytest.mark.whole
def test_the_site_is_told_a_length_and_of_no_chunks(echo: Web) -> None:
    for size in (0, 1, 9000, caps.STRANGERS):
        for piece in (1, 1000, 100_000):
            text = in_chunks(b"x" * size, piece)
            found = json.loads(ask(echo, head("/", coding="transfer-encoding: Chunked") + text)[2])
            assert (found["CONTENT_LENGTH"], found["body"]) == (str(size), "x" * size)
            assert "HTTP_TRANSFER_ENCODING" not in found


@pytest.mark.django_db
def test_the_inbox_keeps_nothing_of_what_was_not_read(client: Client) -> None:
    """The inbox may be there only since the front has looked for it."""
    inbox = Inbox.objects.create(endpoint=make_endpoint())
    head: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    answer = client.generic("POST", f"/inbox/{inbox.token}", b"", "application/json", **head)
    assert answer.status_code == 503
    assert not inbox.messages.exists()


# --- without a server --------------------------------------------------------------------------


class Headers:
    """As the server has them."""

    def __init__(self, **lines: str) -> None:
        self._lines = {name.replace("_", "-"): value for name, value in lines.items()}

    def items(self) -> Any:
        return self._lines.items()

    def keys(self) -> list[str]:
        return list(self._lines)


class Protocol:
    """A body that comes in these pieces, which an empty one ends."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.answers: list[tuple[int, bytes]] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in (*self._pieces, b""):
            yield piece

    def response_bytes(self, status: int, headers: object, body: bytes) -> None:
        self.answers.append((status, body))


def fronted(protocol: Protocol, **lines: str) -> list[tuple[str, bytes]]:
    """The lengths and bodies that came to the plain lane."""
    came: list[tuple[str, bytes]] = []

    class Lane:
        async def answered(self, environ: dict[str, Any], protocol: Protocol) -> bool:
            assert "HTTP_TRANSFER_ENCODING" not in environ
            came.append((environ["CONTENT_LENGTH"], environ["wsgi.input"].getvalue()))
            protocol.response_bytes(202, [], b"")
            return True

    def route(environ: dict[str, Any]) -> Any:
        raise AssertionError("it went to a thread")

    async def run() -> None:
        front = Front(route, FairThreads(1, 1, 1.0, "test"))
        front.__rsgi_init__(asyncio.get_running_loop())
        front._lane = Lane()  # type: ignore[assignment]
        scope = SimpleNamespace(
            headers=Headers(host="h", **lines), client="192.0.2.1:4711", server="h:80",
            path="/api/v1/events", query_string="", method="POST", authority=None,
            http_version="1.1", scheme="http",
        )  # fmt: skip
        await front.__rsgi__(scope, protocol)

    asyncio.run(run())
    return came


def test_the_plain_lane_takes_them_as_well() -> None:
    protocol = Protocol(b'{"type"', b': "a.b"}')
    assert fronted(protocol, transfer_encoding="chunked") == [("15", b'{"type": "a.b"}')]
    assert protocol.answers == [(202, b"")]


def test_a_server_that_tells_of_a_length_beside_chunks_is_told_no() -> None:
    protocol = Protocol(b"abc")
    assert fronted(protocol, transfer_encoding="chunked", content_length="3") == []
    assert protocol.answers[0][0] == 400
    assert b"Content-Length" in protocol.answers[0][1]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/api/v1/events", "/login/"])
def test_other_servers_have_to_say_how_long_they_are(path: str) -> None:
    from jetrelay.wsgi import with_lengths

    passed: list[dict[str, Any]] = []
    said: list[tuple[str, dict[str, str]]] = []

    def whole(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        passed.append(environ)
        return []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        said.append((status, dict(headers)))

    asked = {"PATH_INFO": path, "HTTP_TRANSFER_ENCODING": "chunked"}
    application = with_lengths(whole)
    (words,) = application(asked, start_response)
    assert passed == []
    assert said[0][0] == "411 Length Required"
    assert b"Send the body with a Content-Length" in words
    if path.startswith("/api/"):
        assert json.loads(words)["code"] == "length_required"
    # Those that have none, and those whose server has read them.
    others = [{"PATH_INFO": path}, asked | {"CONTENT_LENGTH": "3"}]
    for each in others:
        assert application(each, start_response) == []
    assert passed == others
