"""What a request costs the database: the same number of statements whatever it has to show."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from delivery import owing
from subscriptions import keys
from tests.api import Api, api_of
from tests.builders import (
    make_api_event,
    make_api_key,
    make_api_source,
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_gap,
    make_health,
    make_host,
    make_replay,
    make_source,
    make_subscription,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


@pytest.fixture
def api() -> Api:
    return api_of(last_used_at=timezone.now())


def statements(api: Api, path: str, method: str = "GET", body: Any = b"") -> list[str]:
    # Else the key is looked up once a second, whenever that is.
    keys.forget()
    with CaptureQueriesContext(connection) as context:
        answer = api.request(method, path, body)
    assert answer.status in (200, 202), answer.text
    return [query["sql"] for query in context.captured_queries]


def fill(count: int) -> None:
    """So many of everything, each with all that is shown along with it."""
    endpoint = make_endpoint()
    for number in range(count):
        mine = make_health(endpoint=make_endpoint(bearer_token="a-token", extra_headers="X-A: b")).endpoint
        make_subscription(endpoint=mine)
        make_subscription(endpoint=endpoint, source=make_api_source(), kinds=["api"])
        make_attempt(delivery=make_delivery(endpoint=mine, event=make_event(), state=number % 2 * 2, last_status=503))
        make_delivery(endpoint=endpoint, event=make_api_event())
        make_replay(endpoint=endpoint)
        make_api_source(name=f"source {number}")
        make_api_key()
        make_host()
        make_gap()


# Most of them: the key, the page's ids, the rows, and what goes along with them.
LISTS = {
    "endpoints?limit=200": 4,
    "endpoints?limit=200&state=active": 4,
    "subscriptions?limit=200": 3,
    "sources?limit=200": 4,
    "events?limit=200": 4,
    "events?limit=200&type=order.*": 4,
    "deliveries?limit=200": 5,
    "deliveries?limit=200&state=pending&collection=order.*": 5,
    "deliveries?limit=200&state=dead": 5,
    "deliveries?limit=200&since=2026-01-01T00:00:00Z": 5,
    "dead-letters?limit=200": 5,
    "replays?limit=200": 3,
    "keys?limit=200": 3,
    "stream": 3,
    "stats": 8,
    "quotas": 12,
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_costs_the_same_whatever_its_length(path: str, api: Api) -> None:
    make_source()
    statements(api, path)
    fill(3)
    few = statements(api, path)
    # What the engine asks PostgreSQL by itself goes past Django's count.
    unseen = connection.vendor == "postgresql" and path.startswith(("deliveries", "dead-letters"))
    # By its event: in a transaction, in which the planner is told to walk.
    told = (
        (4 if connection.vendor == "postgresql" else 2)
        if path.startswith(("deliveries", "dead-letters")) and ("collection=" in path or "subject=" in path)
        else 0
    )
    if path == "quotas" and connection.vendor == "postgresql":
        told = 4
    assert len(few) == LISTS[path] - unseen + told, "\n".join(few)
    fill(57)
    many = statements(api, path)
    assert len(many) == len(few), "\n".join(many)


def one_of(make: Callable[[], Any], more: Callable[[Any], Any]) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return make, more


ONES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "endpoints/{}": one_of(make_endpoint, lambda row: make_subscription(endpoint=row)),
    "events/{}": one_of(make_event, lambda row: make_delivery(event=row)),
    "deliveries/{}": one_of(make_delivery, lambda row: make_attempt(delivery=row)),
    "events/{}/body": one_of(make_event, lambda row: make_delivery(event=row)),
}


@pytest.mark.parametrize("path", ONES)
def test_one_thing_costs_the_same_whatever_belongs_to_it(path: str, api: Api) -> None:
    make, more = ONES[path]
    row = make()
    more(row)
    statements(api, path.format(row.public_id))
    few = statements(api, path.format(row.public_id))
    assert len(few) <= 6, "\n".join(few)
    for _ in range(30):
        more(row)
    assert len(statements(api, path.format(row.public_id))) == len(few)


def test_lists_decrypt_no_signing_secret(api: Api) -> None:
    fill(2)
    for path in ("deliveries", "dead-letters", "events", "subscriptions", "replays", "stats"):
        assert not any('"secret"' in sql or "bearer_token" in sql for sql in statements(api, path)), path


def test_a_batch_costs_the_same_whatever_its_size(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is owed is counted every other second, whenever that is.
    now = monotonic()
    monkeypatch.setattr(owing, "monotonic", lambda: now)
    make_subscription(source=make_api_source(), kinds=["api"])
    costs = []
    for size in (1, 1, 100):
        body = {"events": [{"type": "a", "data": number} for number in range(size)]}
        costs.append(len(statements(api, "events/batch", "POST", body)))
    assert costs[1] == costs[2] <= 8


_ID = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
_EVENTS = f"""
    INSERT INTO delivery_event (id, source_id, dedup_key, kind, type, operation, subject, origin, occurred_at, received_at, body)
    SELECT {_ID}, %s, decode(md5(n::text), 'hex'), 'commit', 'a.b', 'create', '', '', now(), now(), '{{}}' FROM generate_series(%s, %s) AS n
"""
_DELIVERIES = f"""
    INSERT INTO delivery_delivery (id, event_id, endpoint_id, state, due_at, attempt_count, tries, last_error, created_at)
    SELECT {_ID}, {_ID}, (%s::uuid[])[1 + n %% 10], n %% 4, now(), 0, 0, '', now() FROM generate_series(%s, %s) AS n
"""


@pytest.mark.postgresql
def test_deep_tables_cost_no_more_statements_and_no_scans(api: Api) -> None:
    """100,000 deliveries and events, of ten endpoints."""
    source, endpoints = make_source(), [make_endpoint() for _ in range(10)]

    def fill_up(first: int, last: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_EVENTS, [source.pk, first, last])
            cursor.execute(_DELIVERIES, [[endpoint.pk for endpoint in endpoints], first, last])
            cursor.execute("ANALYZE delivery_event, delivery_delivery")

    paths = ["events", "events?type=a.b", "events?type=none.*", "deliveries", "deliveries?state=dead", "dead-letters", "deliveries?collection=a.*", "stats"]
    paths += [f"deliveries?endpoint={endpoints[0].public_id}", f"events?source={source.public_id}"]
    fill_up(1, 1000)
    few = {path: len(statements(api, path)) for path in paths}
    fill_up(1001, 100_000)
    assert {path: len(statements(api, path)) for path in paths} == few
    # What shows a page reads a page.
    for path in ("events", "deliveries", "dead-letters", f"deliveries?endpoint={endpoints[0].public_id}"):
        for sql in statements(api, path):
            if sql.startswith("SELECT"):
                with connection.cursor() as cursor:
                    cursor.execute(f"EXPLAIN {sql}")
                    plan = "\n".join(row[0] for row in cursor.fetchall())
                assert "Seq Scan on delivery_" not in plan, f"{path}: {sql}\n{plan}"
