"""Only what the request really said.

No header has a twin, and the process's environment is none of it.
"""

import asyncio
import gc
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.handlers.wsgi import WSGIRequest
from rest_framework.request import Request

from jetrelay.front.application import Front
from jetrelay.front.threads import FairThreads
from tests.builders import make_api_key
from tests.web import Web, serving, site
from tests.whole import engines

pytestmark = pytest.mark.whole

# Whatever decides something, here or in a library.
DECISIVE = [
    "Authorization-Token",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Forwarded-For",
    "Idempotency-Key",
    "If-Match",
    "Origin-X",
    "Remote-Addr",
    "Remote-User",
    "Script-Name",
    "Transfer-Encoding",
    "X-Csrftoken",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-Ip",
    "X-Request-Id",
]
SECRET = "a-password-that-nobody-may-read"


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder: Path = tmp_path_factory.mktemp("heads")
    own = {"HTTP_X_FORWARDED_PROTO": "https", "REMOTE_USER": "root", "MY_PASSWORD": SECRET}
    with engines("embedded", folder / "data") as env:
        env |= own | {"BROKER_URL": f"redis://:{SECRET}@127.0.0.1:1/0"}
        with serving(env, folder / "web.log", "tests.echo:application") as found:
            yield found


def told(web: Web, *lines: str, target: str = "/", method: str = "GET") -> dict[str, Any]:
    status, body = asked(web, *lines, target=target, method=method)
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def asked(web: Web, *lines: str, target: str = "/", method: str = "GET", host: str = "Host: h") -> tuple[int, str]:
    head = [f"{method} {target} HTTP/1.1", *filter(None, [host]), "Connection: close", *lines]
    answer = web.ask("\r\n".join([*head, "", ""]).encode("latin-1"))
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), body.decode()


@pytest.mark.parametrize("name", DECISIVE)
def test_a_name_with_an_underscore_is_not_taken_for_another(echo: Web, name: str) -> None:
    plain = told(echo, "X-A: b")
    folded = name.replace("-", "_")
    assert told(echo, "X-A: b", f"{folded}: stranger") == plain
    assert told(echo, f"{folded.lower()}: stranger", "X-A: b") == plain
    for mixed in {name.replace("-", "_", 1), folded.upper()}:
        assert told(echo, f"{mixed}: stranger", "X-A: b") == plain


def test_the_real_one_stays_whichever_comes_first(echo: Web) -> None:
    for lines in (
        ["X-Forwarded-For: 1", "X_Forwarded_For: 2"],
        ["x_forwarded-for: 2", "x-forwarded-for: 1"],
    ):
        assert told(echo, *lines)["HTTP_X_FORWARDED_FOR"] == "1"


def test_a_header_in_several_lines_is_one_list_in_their_order(echo: Web) -> None:
    found = told(
        echo,
        "X-Forwarded-For: 1, 2",
        "X-Other: a",
        "X-Forwarded-For: 3",
        "Cookie: a=1",
        "Cookie: b=2",
    )
    assert found["HTTP_X_FORWARDED_FOR"] == "1, 2,3"
    assert found["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "X-CSRFToken",
        "Origin",
        "X-Request-Id",
    ],
)
def test_what_can_be_said_once_is_refused_when_it_is_said_twice(echo: Web, name: str) -> None:
    host = "" if name == "Host" else "Host: h"
    status, why = asked(echo, f"{name}: a", f"{name}: b", host=host)
    assert status == 400
    assert name.lower() in why
    # Nor is it better when both say the same.
    assert asked(echo, f"{name}: a", f"{name}: a", host=host)[0] == 400


def test_two_lengths_are_no_length(echo: Web) -> None:
    assert asked(echo, "Content-Length: 3", "Content-Length: 4", method="POST")[0] == 400


def test_what_cannot_be_read_is_not_taken_for_absent(echo: Web) -> None:
    """The server hands over no value that is not ASCII."""
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Authorization", "Cookie", "Content-Encoding"):
        status, why = asked(echo, f"{name}: \xff, 192.0.2.1")
        assert (status, name.lower() in why) == (400, True)
    assert asked(echo, "X-Other: \xff")[0] == 200


def test_the_target_and_the_host_are_of_one_mind(echo: Web) -> None:
    assert told(echo, target="http://h/p")["PATH_INFO"] == "/p"
    assert asked(echo, target="http://other/p")[0] == 400


def test_the_environment_is_no_part_of_a_request(echo: Web) -> None:
    found = told(echo, "X-A: b", target="/p%20q/%C3%A9?x=%41")
    assert SECRET not in json.dumps(found)
    assert {name for name in found if name.startswith("HTTP_")} == {
        "HTTP_HOST",
        "HTTP_X_A",
        "HTTP_CONNECTION",
    }
    assert found["PATH_INFO"] == "/p q/é".encode().decode("latin-1")
    assert (found["QUERY_STRING"], found["REMOTE_ADDR"], found["SCRIPT_NAME"]) == (
        "x=%41",
        "127.0.0.1",
        "",
    )
    assert set(found) == {
        *("HTTP_HOST", "HTTP_X_A", "HTTP_CONNECTION", "PATH_INFO", "QUERY_STRING", "body"),
        *("REMOTE_ADDR", "REQUEST_METHOD", "SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT"),
        *("SERVER_PROTOCOL", "GATEWAY_INTERFACE", "wsgi.url_scheme"),
    }  # fmt: skip


def test_a_body_comes_through_as_it_is(echo: Web) -> None:
    for length in (0, 1, 9000, 16 * 1024):
        found = requests.post(echo.url, data=b"x" * length, timeout=30).json()
        assert found["body"] == "x" * length


# --- the site itself ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The site as a proxy on this machine reaches it: `/metrics` is open to this machine."""
    folder: Path = tmp_path_factory.mktemp("proxied")
    with engines("embedded", folder / "data") as env:
        env |= {"JETRELAY_TRUSTED_PROXIES": "127.0.0.0/8"}
        env |= {"JETRELAY_PUBLIC_URL": "https://relay.example.com"}
        with site(env, folder / "web.log") as found:
            yield found


STRANGER = "X-Forwarded-For: 203.0.113.9"


@pytest.mark.parametrize(
    "lines",
    [
        [STRANGER],
        [STRANGER, "X_Forwarded_For: 127.0.0.1"],
        ["X_Forwarded_For: 127.0.0.1", STRANGER],
        ["X_FORWARDED-FOR: 127.0.0.1", STRANGER],
        ["X-Forwarded-For: 127.0.0.1", STRANGER],
        [STRANGER.replace("-For: ", "-For: 127.0.0.1, ")],
    ],
)
def test_metrics_open_to_no_twin(proxied: Web, lines: list[str]) -> None:
    assert asked(proxied, *lines, target="/metrics")[0] == 403
    assert asked(proxied, "X-Forwarded-For: 127.0.0.1", target="/metrics")[0] == 200


def test_metrics_open_to_no_header_that_cannot_be_read(proxied: Web) -> None:
    """Else the address of the proxy were left, and that is this machine's."""
    assert asked(proxied, "X-Forwarded-For: \xff, 203.0.113.9", target="/metrics")[0] == 400
    assert asked(proxied, STRANGER, "Forwarded: for=127.0.0.1", target="/metrics")[0] == 400


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-Forwarded-Proto: https"], 200),
        (["X-Forwarded-Proto: http"], 301),
        (["X-Forwarded-Proto: http", "X_Forwarded_Proto: https"], 301),
        (["X_Forwarded_Proto: https"], 301),
        (["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], 301),
        (["X-Forwarded-Proto: https", "Forwarded: for=203.0.113.9;proto=http"], 400),
    ],
)
def test_https_is_claimed_by_no_twin(proxied: Web, lines: list[str], status: int) -> None:
    host = "Host: relay.example.com"
    assert asked(proxied, STRANGER, *lines, target="/login/", host=host)[0] == status


@pytest.mark.django_db(transaction=True)
def test_nothing_of_a_request_is_kept_once_it_is_answered() -> None:
    """Without a garbage collection, for which bodies of 10 MB would wait."""
    from jetrelay.wsgi import site as whole

    answers: list[int] = []

    class Protocol:
        def response_bytes(self, status: int, headers: object, body: bytes) -> None:
            answers.append(status)

    threads = FairThreads(1, 1, 1.0, "test")
    front = Front(lambda _: (threads, whole), threads, has_lane=False)
    loop = asyncio.new_event_loop()
    environ: Any = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/api/v1/events/batch",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(b'{"events": []}'),
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "14",
        "HTTP_AUTHORIZATION": f"Bearer {make_api_key()[1]}",
        "REMOTE_ADDR": "127.0.0.1",
    }
    gc.collect()
    gc.disable()
    try:
        front._work(whole, environ, Protocol(), True, loop.create_future())
        # By type: to ask a lazy object of another test for its class is to have it made.
        kept = [each for each in gc.get_objects() if type(each) is Request or _holds_body(each)]
    finally:
        gc.enable()
        loop.close()
    assert answers == [422]
    assert kept == []


def _holds_body(each: object) -> bool:
    return type(each) is WSGIRequest and "_body" in vars(each)
