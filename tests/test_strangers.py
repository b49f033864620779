"""What somebody may hold before showing a key.

The site answers whatever a stranger leaves half done.
"""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import pytest
import requests

from jetrelay.front.connections import OF_ONE
from tests.web import Web, allow_files, is_open, site
from tests.whole import PATIENCE_S, engines

pytestmark = pytest.mark.whole

# Paths that take a form, a delivery, events, or nothing at all.
PATHS = ["/login/", "/admin/login/", "/inbox/nobody", "/nowhere", "/", "/api/v1/events/batch"]
PAGES = ["/health", "/login/", "/"]
TEN_MB = 10 * 1000 * 1000
# Much more than an answer takes here, and less than anything that has to time out first.
SOON_S = 5


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder: Path = tmp_path_factory.mktemp("strangers")
    with (
        engines("embedded", folder / "data") as env,
        site(env, folder / "web.log") as found,
    ):
        yield found


def head(path: str, length: int = 5000, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def assert_answers(web: Web) -> None:
    for path in PAGES:
        found = requests.get(web.url + path, timeout=SOON_S)
        assert found.status_code == 200, path


def test_300_half_bodies_keep_nobody_waiting(web: Web) -> None:
    with ExitStack() as held:
        clients = []
        for number in range(300):
            clients.append(web.connect(held))
            clients[-1].sendall(head(PATHS[number % len(PATHS)]) + b"username=")
        assert_answers(web)
        # Whoever goes on before others of that address came is answered as ever.
        clients[-1].sendall(b"x" * (5000 - len(b"username=")))
        assert clients[-1].recv(65536).startswith(b"HTTP/1.1 4")
        # They have no end of time for it either.
        told = {client.recv(65536)[:12] for client in clients[:-1]}
        assert told == {b"HTTP/1.1 408"}


def test_2000_half_heads_keep_nobody_waiting(web: Web) -> None:
    if not allow_files(2600):
        pytest.skip("may open 2,600 files: raise the limit (ulimit -Hn)")
    with ExitStack() as held:
        clients = []
        for _ in range(2000):
            clients.append(web.connect(held))
            clients[-1].sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert_answers(web)
        deadline = monotonic() + PATIENCE_S
        while sum(map(is_open, clients)) > OF_ONE:
            assert monotonic() < deadline
            sleep(0.1)  # nobody tells when a socket was shut
        assert_answers(web)


def test_connections_that_send_nothing_keep_nobody_waiting(web: Web) -> None:
    """Not a byte: while a server waits to see which protocol it is, it has no time limit."""
    if not allow_files(2600):
        pytest.skip("may open 2,600 files: raise the limit (ulimit -Hn)")
    with ExitStack() as held:
        clients = [web.connect(held) for _ in range(2000)]
        assert_answers(web)
        deadline = monotonic() + PATIENCE_S
        while any(map(is_open, clients)):
            assert monotonic() < deadline
            sleep(0.1)  # nobody tells when a socket was shut


def test_50_sign_ins_of_10_mb_are_refused_unread(web: Web) -> None:
    before = web.resident_mb()
    with ExitStack() as held:
        clients = [web.connect(held) for _ in range(50)]
        for client in clients:
            client.sendall(head("/login/", TEN_MB))
        answers = [client.recv(65536) for client in clients]
        assert_answers(web)
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 413"}
    assert web.resident_mb() - before < 50


def test_50_that_send_10_mb_all_the_same_take_no_memory(web: Web) -> None:
    before, body = web.resident_mb(), b"x" * TEN_MB
    for number in range(50):
        with contextlib.suppress(requests.ConnectionError):
            path = PATHS[number % len(PATHS)]
            found = requests.post(web.url + path, data=body, timeout=30)
            assert found.status_code >= 400
    assert web.resident_mb() - before < 50


@pytest.mark.parametrize("path", PATHS)
def test_a_long_body_of_a_stranger_is_refused_at_once_and_the_connection_ends(web: Web, path: str) -> None:
    answer = web.ask(head(path, 200_000, "Authorization: Bearer jr_nobody", "Cookie: sessionid=x"))
    status, _, rest = answer.partition(b"\r\n")
    assert status.split()[1] in ((b"401",) if "/api/" in path else (b"413", b"404"))
    assert b"connection: close" in rest.lower()


@pytest.mark.parametrize("path", PATHS)
def test_a_body_in_chunks_goes_past_no_bound(web: Web, path: str) -> None:
    begun = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = web.ask(begun.encode() + b"100000\r\n" + b"x" * 20_000)
    status, _, rest = answer.partition(b"\r\n")
    assert status.split()[1] in ((b"401",) if "/api/" in path else (b"413", b"404"))
    assert b"connection: close" in rest.lower()


def test_a_head_is_bounded(web: Web) -> None:
    answer = web.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431") or not answer
