"""Right after a hundred thousand deliveries came or died, statistics say that there are none: whatever is asked then has to find its way by itself.

What a statement reads is counted in rows, which are the same on every machine: those that it came across in tables, returned or not.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from delivery.claims import BEGINNING
from delivery.engines import engine
from delivery.engines.base import Head, Settlement, Subjects, Want
from delivery.models import Delivery, Replay
from delivery.order import BEFORE_ALL
from delivery.replay import moves, preview, walks
from subscriptions.models import Endpoint, Tenant
from tests.builders import make_api_key, make_endpoint, make_member, make_source, make_subscription, make_tenant

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

PENDING, DEAD, CHUNK = 60_000, 40_000, 500
# A statement about so many rows may come across each of them, and its event, a few times.
BOUND = 5 * CHUNK
_TABLES = ("delivery_event", "delivery_delivery", "delivery_attempt")


@pytest.fixture
def endpoints(transactional_db: None) -> Iterator[list[Endpoint]]:
    """Ten of two tenants, which share what is pending and dead. Nobody has told the planner."""
    tenants = [make_tenant(), make_tenant(slug="other", name="Other")]
    found = [make_subscription(endpoint=make_endpoint(tenant=tenants[number >= 8])).endpoint for number in range(10)]
    with connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    fill(found, 1, 10_000, Delivery.State.DELIVERED)
    with connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(f"ANALYZE {table}")
    fill(found, 10_001, 10_000 + PENDING, Delivery.State.PENDING)
    fill(found, 10_001 + PENDING, 10_000 + PENDING + DEAD, Delivery.State.DEAD)
    yield found
    with connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")


def fill(endpoints: list[Endpoint], first: int, last: int, state: int) -> None:
    """One each millisecond of the last hours, in turn for each endpoint, of a thousand subjects."""
    ms = int((timezone.now() - timedelta(hours=3)).timestamp() * 1000)
    event, delivery = (f"(lpad(to_hex({ms} + n), 12, '0') || '7000{kind}000' || lpad(to_hex(n), 12, '0'))::uuid" for kind in (8, 9))
    moment, among = f"to_timestamp(({ms} + n) / 1000.0)", ", ".join(f"'{each.pk}'::uuid" for each in endpoints)
    owed_to = f"(ARRAY[{among}])[1 + n % 10]"
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO delivery_event (id, source_id, dedup_key, kind, type, operation, subject, origin, occurred_at, received_at, body)"
            f" SELECT {event}, '{make_source().pk}', decode(md5(n::text), 'hex'), 'commit', 'app.bsky.feed.post', 'create', 'did:plc:' || n % 1000, '',"
            f" {moment}, {moment}, repeat('x', 200)::bytea FROM generate_series({first}, {last}) n"
        )
        cursor.execute(
            "INSERT INTO delivery_delivery"
            " (id, event_id, endpoint_id, order_key, state, due_at, attempt_count, tries, last_error, settled_at, created_at)"
            f" SELECT {delivery}, {event}, {owed_to}, n % 1000, {state:d}, {moment}, 1, 1, '', CASE WHEN {state:d} > 0 THEN {moment} END, {moment}"
            f" FROM generate_series({first}, {last}) n"
        )


def rows_read(work: Callable[[], Any]) -> int:
    """How many rows of these tables the statements come across, in a transaction that is undone."""
    with transaction.atomic():
        before = _counted()
        work()
        found = _counted() - before
        transaction.set_rollback(True)
    return found


def _counted() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables WHERE relname = ANY (%s)", [list(_TABLES)])
        return int(cursor.fetchone()[0] or 0)


def some(state: int, count: int = CHUNK) -> list[UUID]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM delivery_delivery WHERE state = %s ORDER BY id LIMIT %s", [state, count])
        return [id for (id,) in cursor.fetchall()]


def test_what_lanes_do_reads_what_it_is_about(endpoints: list[Endpoint]) -> None:
    now = timezone.now()
    pending = [Settlement(id, 1, 200, "", now, tries=1) for id in some(Delivery.State.PENDING)]
    first, dead = endpoints[0].pk, some(Delivery.State.DEAD)
    deeds: dict[str, Callable[[], Any]] = {
        "settle what went through": lambda: engine().settle(Delivery.State.DELIVERED, pending, now),
        "settle what died": lambda: engine().settle(Delivery.State.DEAD, pending, now),
        "postpone": lambda: engine().postpone(pending),
        "claim": lambda: engine().claim([Want(each.pk, 50, *BEGINNING) for each in endpoints], now),
        "claim runs": lambda: engine().claim_runs(Head(first, BEFORE_ALL, 50, 10)),
        "claim subjects": lambda: engine().claim_subjects(Subjects(first, tuple(range(0, 500, 10)), 10)),
        "find the newest dead": lambda: engine().newest([each.pk for each in endpoints], None, 50, Delivery.State.DEAD),
        "put dead ones back": lambda: moves.replay(dead),
        "put pending ones back": lambda: moves.replay([row.id for row in pending]),
        "dismiss": lambda: moves.dismiss(dead),
    }
    assert len(pending) == CHUNK
    read = {name: rows_read(deed) for name, deed in deeds.items()}
    assert {name: count for name, count in read.items() if count > BOUND} == {}


def test_every_step_of_a_replay_and_every_preview_reads_a_chunk_at_a_time(endpoints: list[Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "CHUNK", CHUNK)
    tenant, since = make_tenant(), timezone.now() - timedelta(hours=4)
    wishes = [
        {},
        {"tenant": tenant},
        {"tenant": tenant, "delivery_state": Delivery.State.DEAD},
        {"tenant": tenant, "delivery_state": Delivery.State.PENDING},
        {"tenant": tenant, "delivery_state": Delivery.State.DEAD, "collections": ["app.bsky.*"], "since": since},
        {"endpoint": endpoints[0], "delivery_state": Delivery.State.DEAD},
        {"endpoint": endpoints[0], "delivery_state": Delivery.State.PENDING},
        {"tenant": tenant, "action": Replay.Action.DISMISS},
        {"endpoint": endpoints[0], "action": Replay.Action.RECOVER, "since": since},
    ]
    read = {str(wish): rows_read(lambda wish=wish: preview(Replay(**wish), 2 * CHUNK)) for wish in wishes}  # type: ignore[misc]
    assert {wish: count for wish, count in read.items() if count > 3 * BOUND} == {}


def test_a_preview_that_takes_long_says_how_far_it_came(endpoints: list[Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "CHUNK", CHUNK)
    monkeypatch.setattr(walks, "COUNT_S", 0.0)
    assert str(preview(Replay(tenant=make_tenant(), delivery_state=Delivery.State.DEAD))) == f"{CHUNK}+"


def test_a_preview_of_endpoints_where_nothing_is_dead_ends_in_time_too(endpoints: list[Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "COUNT_S", 0.0)
    tenant = make_tenant()
    for _ in range(30):
        make_endpoint(tenant=tenant)
    with CaptureQueriesContext(connection) as asked:
        found = preview(Replay(tenant=tenant, delivery_state=Delivery.State.DEAD))
    assert str(found).endswith("+")
    assert len(asked) < 10


PAGES = (
    "/deliveries/?state=pending",
    "/deliveries/?state=dead",
    "/deliveries/?state=cancelled",
    "/deliveries/?endpoint={endpoint}&state=pending",
    "/deliveries/?endpoint={endpoint}&state=dead",
    "/endpoints/",
    "/endpoints/{id}/",
    "/events/",
    "/admin/delivery/delivery/?state=pending",
    "/admin/delivery/delivery/?state=dead",
    "/admin/delivery/delivery/?endpoint={endpoint}&state=pending",
)
CALLS = (
    "deliveries?state=pending",
    "deliveries?state=dead",
    "deliveries?state=cancelled",
    "deliveries?endpoint={endpoint}&state=pending",
    "deliveries?endpoint={endpoint}&state=dead",
    "dead-letters",
)


def test_no_statement_of_a_list_is_the_planners_to_get_wrong(endpoints: list[Endpoint]) -> None:
    """Lists look at 20,000 rows at most, of what is there; none reads everything that is pending or dead for each of these."""
    member = make_member(Tenant.objects.get(slug="default"), "owner", is_staff=True, is_superuser=True)
    browser, (_, key) = Client(), make_api_key()
    browser.force_login(member)
    names = {"endpoint": endpoints[0].public_id, "id": endpoints[0].public_id}
    worst = {}
    for path in (*PAGES, *(f"/api/v1/{call}" for call in CALLS)):
        headers = {"authorization": f"Bearer {key}"} if path.startswith("/api/") else {}
        with CaptureQueriesContext(connection) as asked:
            answer = browser.get(path.format(**names), headers=headers)
        assert answer.status_code in (200, 404), path
        worst[path] = max((_removed(each["sql"]) for each in asked if ' FROM "delivery_delivery"' in each["sql"]), default=0)
    assert {path: count for path, count in worst.items() if count > 0} == {}


def _removed(sql: str) -> int:
    """By how many rows a scan of an index of all that is pending or dead goes beyond what the statement is about, if it does."""
    if not sql.startswith("SELECT") or "ANY(" not in sql:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}")
        ((found,),) = cursor.fetchall()
    plan = found if isinstance(found, list) else json.loads(found)
    return sum(node.get("Index Name") in ("delivery_due", "delivery_dead") for node in _nodes(plan[0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from _nodes(inner)
