"""No step of a replay reads a whole table, however big the tables are and however its rows lie in them."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import perf_counter
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from delivery.engines import engine
from delivery.models import Delivery, Event, Replay
from delivery.replay import preview, start
from delivery.replay.running import step
from subscriptions.ids import first_id
from subscriptions.models import Endpoint
from tests.builders import make_delivery, make_endpoint, make_event, make_source, make_subscription, make_tenant

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
AGO = timedelta(hours=20)
COUNT = 300_000
# Rows that one statement may read, and not return: a chunk of 1,000, and what a scan of an index finds twice.
MOST_ROWS = 3000


def wishes(endpoint: Endpoint, event: Event) -> list[Replay]:
    """One of each kind of walk."""
    since = timezone.now() - AGO * 2
    return [
        Replay(),
        Replay(since=since, collections=["app.*"]),
        Replay(delivery_state=DEAD),
        Replay(delivery_state=DEAD, tenant=make_tenant()),
        Replay(tenant=make_tenant(), delivery_state=DELIVERED),
        Replay(endpoint=endpoint),
        Replay(endpoint=endpoint, delivery_state=PENDING),
        Replay(endpoint=endpoint, delivery_state=DEAD, since=since),
        Replay(event=event),
        Replay(event=event, delivery_state=DEAD),
        Replay(action="dismiss"),
        Replay(action="recover", endpoint=endpoint, since=since),
    ]


def statements(work: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        work()
    return [
        query["sql"]
        for query in captured
        if query["sql"].startswith(("SELECT", "UPDATE", "DELETE")) and re.search("delivery_(delivery|event|attempt)\\b", query["sql"])
    ]


@pytest.mark.django_db
def test_every_statement_has_an_index() -> None:
    endpoint = make_subscription().endpoint
    event = make_event()
    for state in (PENDING, DELIVERED, DEAD, DEAD):
        make_delivery(endpoint=endpoint, state=state)
    make_delivery(event=event, state=DEAD)
    for wish in wishes(endpoint, event):
        began = start(wish).created_at
        with transaction.atomic():
            engine().by_index()  # so that PostgreSQL takes small tables for big ones
            found = statements(lambda wish=wish, began=began: step(wish.pk, began, 2))  # type: ignore[misc]
            assert found
            for sql in found:
                assert_by_index(sql)
            transaction.set_rollback(True)


def assert_by_index(sql: str) -> None:
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor, engine().walking() if "LIMIT" in sql else transaction.atomic():
        cursor.execute(f"{explain} {sql}")
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    # Tables of endpoints are small.
    assert not re.search(r"Seq Scan on delivery|SCAN delivery", plan), f"{sql}\n{plan}"


# --- At size -----------------------------------------------------------------------------------------------------------


def fill(busy: Endpoint, late: Endpoint, small: Endpoint) -> None:
    """300,000 delivered ones: half of the busy endpoint, and after these half of the late one. The small one has two dead in each thousand."""
    ms = int((timezone.now() - AGO).timestamp() * 1000)
    event, delivery = (f"(lpad(to_hex({ms} + n * 100), 12, '0') || '7000{kind}000' || lpad(to_hex(n), 12, '0'))::uuid" for kind in (8, 9))
    owed_to = f"CASE WHEN n %% 500 = 0 THEN '{small.pk}'::uuid WHEN n > {COUNT // 2} THEN '{late.pk}'::uuid ELSE '{busy.pk}'::uuid END"
    with connection.cursor() as cursor:
        moment = f"to_timestamp(({ms} + n * 100) / 1000.0)"
        cursor.execute(
            "INSERT INTO delivery_event (id, source_id, dedup_key, kind, type, operation, subject, origin, occurred_at, received_at, body)"
            f" SELECT {event}, '{make_source().pk}', decode(md5(n::text), 'hex'), 'commit', 'app.bsky.feed.post', 'create', 'did:plc:x', '',"
            f" {moment}, {moment}, repeat('x', 400)::bytea FROM generate_series(1, {COUNT}) n"
        )
        cursor.execute(
            "INSERT INTO delivery_delivery (id, event_id, endpoint_id, state, due_at, attempt_count, tries, last_error, settled_at, created_at)"
            f" SELECT {delivery}, {event}, {owed_to.replace('%%', '%')}, CASE WHEN n % 500 = 0 THEN {DEAD:d} ELSE {DELIVERED:d} END,"
            f" {moment}, 1, 1, '', {moment}, {moment} FROM generate_series(1, {COUNT}) n"
        )
        for table in ("event", "delivery"):
            cursor.execute(f"ANALYZE delivery_{table}")


def plan_of(sql: str) -> tuple[set[str], int, str]:
    """The tables that the statement reads as a whole, the most rows that any scan of it came across, and the plan, for people."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        ((found,),) = cursor.fetchall()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    scans = [node for node in nodes(plan) if "Scan" in node["Node Type"]]
    rows = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans]
    return {node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"}, max(rows), "\n".join(f"{node}"[:500] for node in nodes(plan))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_step_costs_the_same_wherever_it_is_in_300_000_rows() -> None:
    busy, late, small = (make_endpoint() for _ in range(3))
    make_subscription(endpoint=small)
    fill(busy, late, small)
    middle = timezone.now() - AGO + timedelta(milliseconds=COUNT * 50)
    for endpoint in (busy, late, small):
        for wish in wishes(endpoint, Event.objects.order_by("id")[COUNT // 2]):
            if wish.action == "recover" and endpoint != small:
                continue
            started = perf_counter()
            counted = preview(wish)
            took_s = perf_counter() - started
            start(wish)
            worst = 0
            for after in (wish.after_id, first_id(middle)):
                Replay.objects.filter(pk=wish.pk).update(after_id=after)
                worst = max(worst, assert_bounded(wish))
            whose = endpoint.name if wish.endpoint else "all"
            print(f"\n{wish.action} {whose}, {wish.get_delivery_state_display()}: {counted} counted in {took_s:.2f} s, at most {worst} rows", end="")
            wish.delete()


def assert_bounded(wish: Replay) -> int:
    """Every statement of a step, made twice: once to see it, once to look at its plan; undone at the end."""
    worst = 0
    with transaction.atomic():
        for sql in statements(lambda: step(wish.pk, wish.next_at)):
            with engine().walking() if "LIMIT" in sql else transaction.atomic():
                whole, rows, plan = plan_of(sql)
            assert not any(table.startswith("delivery_") for table in whole), f"{whole}: {sql[:1000]}\n{plan}"
            assert rows <= MOST_ROWS, f"{rows} rows: {sql[:1000]}\n{plan}"
            worst = max(worst, rows)
        transaction.set_rollback(True)
    return worst
