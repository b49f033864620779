"""Plain posts of events take no thread: the loop hands them to the committer."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from django.db import connection, connections

from delivery import ingest, owing
from delivery.ingest import PATIENCE_S, GroupCommit
from delivery.models import Event
from jetrelay.api import events, limits
from jetrelay.front.lane import Lane
from subscriptions import keys
from tests.api import Api, api_of
from tests.builders import make_api_source, make_subscription, make_tenant

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("fresh_api"),
]


class Protocol:
    """What the server hands an answer to."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], Any]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, dict(headers), json.loads(body)))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    committer = Committer()
    monkeypatch.setattr(ingest, "publisher", committer)
    tenant = make_tenant()
    make_subscription(source=make_api_source(tenant=tenant), kinds=["api"])
    made = api_of(tenant, rate_limit_per_s=10_000)
    for each in (keys._remembered, events._sources):
        monkeypatch.setattr(each, "good_s", 1000.0)
    # What the view would look up.
    bearer = keys.find(made.text or "")
    assert bearer
    limits.take(bearer)
    events.source_of(bearer.tenant_id, None)
    monkeypatch.setattr(owing, "GOOD_S", 1000.0)
    owing.check(bearer.tenant_id, events.most_pending(bearer))
    yield made
    # Its thread cannot be ended: that it holds no connection any more has to do.
    for each in committer.connections:
        each.inc_thread_sharing()
        each.close()


class Committer(GroupCommit):
    """One that stops where a test says so, and whose connection can be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.connections: list[Any] = []

    def _commit(self, group: Any) -> None:
        self.goes_on.wait(60)
        if connection not in self.connections:
            self.connections.append(connections["default"])
        super()._commit(group)


def post(api: Api, body: object, **more: str) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "PATH_INFO": "/api/v1/events",
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "HTTP_AUTHORIZATION": f"Bearer {api.text}",
        "wsgi.input": BytesIO(json.dumps(body).encode()),
    }
    return environ | more


def run(*environs: dict[str, Any], then: Callable[[Lane], None] = lambda _: None) -> Any:
    """Whether each was answered, and the answers."""

    async def all_of_them() -> tuple[list[bool], list[Any]]:
        lane, protocol = Lane(asyncio.get_running_loop()), Protocol()
        asked = asyncio.gather(*(lane.answered(each, protocol) for each in environs))
        await asyncio.sleep(0)
        then(lane)
        return await asked, protocol.answers

    return asyncio.run(all_of_them())


EVENT = {"type": "a.b", "data": {"n": 1}}


def test_events_are_stored_and_answered_together(api: Api) -> None:
    done, answers = run(*(post(api, EVENT | {"id": f"e{n}"}) for n in range(20)))
    assert done == [True] * 20
    assert {status for status, _, _ in answers} == {202}
    stored = {event.public_id for event in Event.objects.all()}
    assert {answer["id"] for _, _, answer in answers} == stored
    assert len(stored) == 20
    assert {"X-Request-Id", "RateLimit", "Cache-Control"} <= set(answers[0][1])


def test_the_same_id_for_another_event_is_a_problem(api: Api) -> None:
    run(post(api, EVENT | {"id": "e"}))
    _, answers = run(post(api, EVENT | {"id": "e"}), post(api, {"type": "a.c", "data": 2, "id": "e"}))
    assert sorted(status for status, _, _ in answers) == [202, 422]


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ([], {}),
        ({"type": ""}, {}),
        (EVENT, {"HTTP_AUTHORIZATION": "Bearer jr_nobody"}),
        (EVENT, {"HTTP_AUTHORIZATION": ""}),
        (EVENT, {"CONTENT_TYPE": "text/plain"}),
        (EVENT, {"HTTP_CONTENT_ENCODING": "gzip"}),
        (EVENT, {"QUERY_STRING": "source=x"}),
        (EVENT, {"REQUEST_METHOD": "GET"}),
        (EVENT, {"HTTP_IDEMPOTENCY_KEY": "with a space"}),
    ],
)
def test_what_is_not_plain_goes_the_way_of_all_others(api: Api, body: object, more: dict[str, str]) -> None:
    assert run(post(api, body, **more)) == ([False], [])


def test_nothing_is_waited_for_on_the_loop(api: Api) -> None:
    """Another part of the key's requests is asked for by a thread."""
    limits._windows.clear()
    assert run(post(api, EVENT)) == ([False], [])


def test_whoever_has_waited_too_long_is_told_so(api: Api) -> None:
    committer = ingest.publisher
    assert isinstance(committer, Committer)
    committer.goes_on.clear()

    def look(lane: Lane) -> None:
        lane.look(asyncio.get_running_loop().time() + PATIENCE_S - 1)
        lane.look(asyncio.get_running_loop().time() + PATIENCE_S + 1)

    done, answers = run(post(api, EVENT), then=look)
    committer.goes_on.set()
    # What it was told may have been stored is stored by now.
    assert run(post(api, EVENT))[0] == [True]
    assert (done, answers[0][0], answers[0][2]["code"]) == ([True], 503, "not_stored")


def test_what_has_a_long_head_is_left_to_the_site(api: Api) -> None:
    done, answers = run(post(api, EVENT, HTTP_X_LONG="x" * 20_000))
    assert (done, answers) == ([False], [])
