"""The express lane of `POST /events`: it answers what the view answers, and leaves to the view whatever is not plain."""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import RequestFactory
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from delivery import ingest, owing
from delivery.ingest import NotStored
from delivery.models import Event
from delivery.sources.api import MAX_EVENT
from jetrelay.api import events
from jetrelay.api.express import PATH, Express
from subscriptions import keys, remembering
from subscriptions.models import ApiKey
from tests.api import Answer, Api, api_of
from tests.builders import make_api_source, make_subscription, make_tenant

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


class Front:
    """The application as the web server calls it. `through` says how many requests came to the view."""

    def __init__(self) -> None:
        self._site = WSGIHandler()
        self._express = Express(self._counted)
        self.through = 0

    def _counted(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.through += 1
        return self._site(environ, start_response)

    def post(self, body: Any, text: str | None, path: str = PATH, method: str = "POST", content_type: str = "application/json", **headers: str) -> Answer:
        """`headers` as in WSGI."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        environ = RequestFactory().generic(method, path, content, content_type=content_type).environ | headers
        environ["wsgi.input"] = io.BytesIO(content)
        if text is not None:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {text}"
        started: list[Any] = []
        with one_connection():
            response = self._express(environ, lambda status, headers, exc_info=None: started.append((status, headers)))
            answer = b"".join(response)
            if hasattr(response, "close"):
                response.close()
        ((status, given),) = started
        assert len({name.lower() for name, _ in given}) == len(given), "a header stands twice"
        return Answer(int(status.split()[0]), dict(given), answer)


@contextlib.contextmanager
def one_connection() -> Iterator[None]:
    """As Django's own test client has it: the test's transaction is on the connection that the end of a request would close."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
def api() -> Api:
    """A key that has just been used, and a source that has just been posted to."""
    api = api_of()
    assert api.post("events", {"type": "a", "data": 0}).status == 202
    return api


EVENT = {"type": "order.paid", "data": {"n": 1}}


def test_an_event_is_stored_without_the_view(api: Api, front: Front) -> None:
    make_subscription(source=make_api_source(), kinds=["api"])
    answer = front.post(EVENT, api.text)
    event = Event.objects.latest("id")
    assert (answer.status, answer.json) == (202, {"id": event.public_id, "status": "stored", "deliveries": 1})
    assert front.through == 0
    assert api.key
    assert event.origin == api.key.public_id
    view = api.post("events", EVENT)
    assert set(view.headers) - {"Allow", "Vary", "Content-Length"} <= set(answer.headers)
    for name in ("Content-Type", "Cache-Control", "X-Content-Type-Options", "RateLimit-Policy"):
        assert answer.headers[name] == view.headers[name]


def test_it_asks_the_database_for_nothing_but_the_transaction(api: Api, front: Front, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    front.post(EVENT, api.text)
    # What the engine asks PostgreSQL by itself goes past Django's count.
    with django_assert_max_num_queries(6) as queries:
        front.post(EVENT, api.text)
    assert not any("apikey" in query["sql"] or "subscriptions_source" in query["sql"] for query in queries.captured_queries)


PLAIN: list[tuple[Any, dict[str, str]]] = [
    (EVENT, {}),
    (EVENT | {"id": "o-1", "subject": "s", "timestamp": "2026-01-01T00:00:00Z"}, {}),
    (EVENT, {"HTTP_IDEMPOTENCY_KEY": "o-2"}),
    (EVENT | {"id": "o-3"}, {"HTTP_IDEMPOTENCY_KEY": "o-3"}),
    (EVENT, {"content_type": "application/json; charset=utf-8"}),
    (EVENT, {"content_type": "Application/JSON"}),
]
# The view has words for these.
NOT_PLAIN: list[tuple[Any, dict[str, str]]] = [
    (b"{", {}),
    (b"", {}),
    ([], {}),
    ({"type": "a b", "data": 1}, {}),
    (EVENT | {"id": "o-1"}, {"HTTP_IDEMPOTENCY_KEY": "o-2"}),
    (EVENT, {"HTTP_IDEMPOTENCY_KEY": "a b"}),
    (EVENT, {"HTTP_IDEMPOTENCY_KEY": ""}),
    (EVENT, {"HTTP_IDEMPOTENCY_KEY": "x" * 201}),
    (EVENT, {"content_type": "text/plain"}),
    (EVENT, {"HTTP_CONTENT_ENCODING": "gzip"}),
    (b'{"type":"a","data":"' + b"x" * MAX_EVENT + b'"}', {}),
    (b'{"type":"a","data":"' + b"x" * (MAX_EVENT * 2) + b'"}', {}),
    (b'{"type":"a","data":1,"data":1}', {}),
    (b'{"type":"a","data":"\\ud800"}', {}),
    (b'{"type":"a","data":1e400}', {}),
    (b"[" * 100_000, {}),
    (b'{"type":"\xff"}', {}),
    (EVENT, {"path": f"{PATH}/batch"}),
    (EVENT, {"path": f"{PATH}?source=src_{'0' * 32}"}),
    (EVENT, {"path": f"{PATH}?x=1"}),
    (EVENT, {"path": f"{PATH}/"}),
    (EVENT, {"method": "PUT"}),
]


def test_it_answers_what_the_view_answers(api: Api, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests by both ways, of two tenants."""
    # However slow the machine is: what was remembered a moment ago still is.
    now = monotonic()
    for module in (owing, remembering):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    other = api_of(make_tenant(slug="other"))
    other.post("events", {"type": "a", "data": 0})
    for body, over in PLAIN + PLAIN:
        assert api.text
        assert keys.find(api.text)
        fast, slow = front.post(body, api.text, **over), by_the_view(front, body, other.text, over)
        assert fast.json | {"id": ""} == slow.json | {"id": ""}
        assert (fast.status, fast.headers["Content-Type"]) == (slow.status, slow.headers["Content-Type"])
    assert front.through == len(PLAIN + PLAIN)
    for changed in (EVENT | {"id": "o-1", "data": 2}, EVENT | {"id": "o-2", "subject": "t"}):
        fast, slow = front.post(changed, api.text), by_the_view(front, changed, other.text, {})
        assert fast.problem == slow.problem == (422, "id_reused")
        assert fast.json | {"request_id": ""} == slow.json | {"request_id": ""}
        assert fast.headers["Content-Type"] == slow.headers["Content-Type"]
        assert fast.headers["X-Request-Id"] == fast.json["request_id"]


def by_the_view(front: Front, body: Any, text: str | None, over: dict[str, str]) -> Answer:
    """As by a process that knows no key yet."""
    keys.forget()
    return front.post(body, text, **over)


def test_it_leaves_to_the_view_what_is_not_plain(api: Api, front: Front) -> None:
    count = Event.objects.count()
    for number, (body, over) in enumerate(NOT_PLAIN, 1):
        answer = front.post(body, api.text, **over)
        assert 400 <= answer.status < 500, (body, over, answer)
        assert answer.json["detail"]
        assert (front.through, over) == (number, over)
    assert Event.objects.count() == count


def test_it_knows_no_key_that_the_view_does_not_know(api: Api, front: Front) -> None:
    reader = api_of(scopes=["events:read"])
    reader.get("events")
    for text, problem in (
        (None, (401, "no_key")),
        ("jr_x", (401, "invalid_key")),
        (f"{api.text}x", (401, "invalid_key")),
        (reader.text, (403, "missing_scope")),
    ):
        assert front.post(EVENT, text).problem == problem
    assert front.post(EVENT, None, HTTP_AUTHORIZATION=f"Basic {api.text}").problem == (401, "invalid_key")
    assert api.key
    ApiKey.objects.filter(pk=api.key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    keys.forget()
    assert front.post(EVENT, api.text).problem == (401, "invalid_key")


def test_a_key_that_is_revoked_ends_within_a_second(api: Api, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.key
    ApiKey.objects.filter(pk=api.key.pk).update(revoked_at=timezone.now())
    later = monotonic() + 1.1
    monkeypatch.setattr(remembering, "monotonic", lambda: later)
    assert front.post(EVENT, api.text).problem == (401, "invalid_key")


def test_both_ways_count_against_one_limit(front: Front) -> None:
    api = api_of(rate_limit_per_s=1)
    answers = [api.post("events", EVENT) if number % 2 else front.post(EVENT, api.text) for number in range(25)]
    refused = [answer for answer in answers if answer.status != 202]
    assert refused
    assert {answer.problem for answer in refused} == {(429, "too_many_requests")}
    assert all(answer.headers["Retry-After"] for answer in refused)


@pytest.mark.parametrize("express", [True, False])
def test_what_was_not_stored_is_not_tried_again_behind_the_clients_back(express: bool, api: Api, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Refusing:
        def publish(self, source: Any, posted: Any) -> Any:
            asked.append(posted)
            raise NotStored("The database did not take the events.")

    monkeypatch.setattr(ingest, "publisher", Refusing())
    if not express:
        events._sources.clear()
    answer = front.post(EVENT, api.text)
    assert (answer.problem, answer.headers["Retry-After"]) == ((503, "not_stored"), "1")
    assert len(asked) == 1


@pytest.mark.parametrize(("path", "body"), [("replays/preview", b""), ("events", b'{"type":"order.cut","data":1}'), ("events/batch", b'{"events":[]}')])
def test_a_body_that_was_cut_off_is_not_taken_for_the_whole(path: str, body: bytes, api: Api, front: Front) -> None:
    front.post(EVENT, api.text)
    stored = Event.objects.count()
    answer = front.post(body, api.text, f"/api/v1/{path}", CONTENT_LENGTH="500")
    assert answer.problem == (400, "incomplete_body")
    assert Event.objects.count() == stored
