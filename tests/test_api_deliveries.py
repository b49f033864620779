"""`/deliveries` and `/dead-letters`: what is owed, what became of it, attempt by attempt, and trying again."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS
from django.utils import timezone

from delivery.models import Attempt, Delivery, Event
from jetrelay.api import deliveries, pages
from subscriptions.models import AuditEntry
from tests.api import Api, api_of
from tests.builders import id_of, make_api_event, make_attempt, make_delivery, make_endpoint, make_event

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
HOUR = timedelta(hours=1)


@pytest.fixture
def api() -> Api:
    return api_of()


def prune(event: Event) -> None:
    Event.objects.filter(pk=event.pk)._raw_delete(using=DEFAULT_DB_ALIAS)


def test_a_delivery_says_what_is_owed_to_whom_and_when(api: Api) -> None:
    row = make_delivery(last_status=503, attempt_count=2, due_at=timezone.now() + HOUR)
    shown = api.get("deliveries").json["data"][0]
    assert shown == {
        "id": row.public_id,
        "event": {"id": row.event.public_id, "kind": "commit", "type": row.event.type, "operation": "create", "subject": row.event.subject},
        "endpoint": row.endpoint.public_id,
        "state": "pending",
        "next_attempt_at": row.due_at.isoformat().replace("+00:00", "Z"),
        "attempt_count": 2,
        "last_status": 503,
        "last_error": None,
        "settled_at": None,
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
    }
    assert api.get(f"deliveries/{row.public_id}").json == shown | {"attempts": []}


def test_a_settled_delivery_has_no_next_attempt(api: Api) -> None:
    make_delivery(state=DELIVERED, settled_at=timezone.now())
    shown = api.get("deliveries").json["data"][0]
    assert (shown["next_attempt_at"], shown["settled_at"] is None) == (None, False)


def test_a_delivery_outlives_its_event(api: Api) -> None:
    row = make_delivery(state=DELIVERED)
    prune(row.event)
    for shown in (api.get("deliveries").json["data"][0], api.get(f"deliveries/{row.public_id}").json):
        assert shown["event"] == {"id": row.event.public_id, "kind": None, "type": None, "operation": None, "subject": None}


# --- Filters -------------------------------------------------------------------------------------------------------


def test_every_filter_finds_its_own(api: Api) -> None:
    now = timezone.now()
    one, other = make_endpoint(), make_endpoint()
    event = make_api_event(subject="order-7")
    old = make_delivery(id=id_of(3 * HOUR), created_at=now - 3 * HOUR, endpoint=one, state=DELIVERED, last_status=200)
    dead = make_delivery(endpoint=one, state=DEAD, last_status=503)
    both = [make_delivery(endpoint=endpoint, event=event, state=PENDING) for endpoint in (one, other)]
    gone = make_delivery(endpoint=other, state=CANCELLED)
    for query, rows in (
        ("", [gone, both[1], both[0], dead, old]),
        (f"endpoint={one.public_id}", [both[0], dead, old]),
        (f"endpoint=ep_{'0' * 32}", []),
        (f"event={event.public_id}", [both[1], both[0]]),
        (f"event={event.public_id}&endpoint={other.public_id}", [both[1]]),
        (f"event={event.public_id}&state=dead", []),
        (f"event=evt_{'0' * 32}", []),
        ("state=pending", [both[1], both[0]]),
        ("state=delivered", [old]),
        ("state=dead", [dead]),
        ("state=cancelled", [gone]),
        ("status=503", [dead]),
        ("status=404", []),
        ("collection=order.paid", [both[1], both[0]]),
        ("collection=order.*", [both[1], both[0]]),
        ("collection=Order.*", []),
        ("collection=*", [gone, both[1], both[0], dead, old]),
        ("subject=order-7", [both[1], both[0]]),
        ("subject=order", []),
        (f"since={(now - HOUR).isoformat().replace('+00:00', 'Z')}", [gone, both[1], both[0], dead]),
        (f"until={(now - HOUR).isoformat().replace('+00:00', 'Z')}", [old]),
        (f"since={(now - 4 * HOUR).isoformat().replace('+00:00', 'Z')}&until={(now - HOUR).isoformat().replace('+00:00', 'Z')}&status=200", [old]),
        (f"endpoint={one.public_id}&state=dead&status=503&collection=app.bsky.feed.*", [dead]),
    ):
        assert (api.get(f"deliveries?{query}").ids, query) == ([row.public_id for row in rows], query)


def test_a_filter_that_cannot_be_says_what_to_write(api: Api) -> None:
    for query, words in (
        ("endpoint=x", "ep_ and 32"),
        (f"endpoint=dlv_{'0' * 32}", "ep_ and 32"),
        ("event=1", "evt_ and 32"),
        ("state=failed", "pending, delivered, dead, cancelled"),
        ("state=", "pending, delivered, dead, cancelled"),
        ("status=5xx", "such as 503"),
        ("status=50", "such as 503"),
        ("status=%D9%A5%D9%A0%D9%A3", "such as 503"),
        ("collection=a.*.b", "full name"),
        ("collection=", "full name"),
        ("since=yesterday", "RFC 3339"),
        ("since=2026-01-01T00:00:00", "RFC 3339"),
        ("until=9999-12-31T23:59:59Z", "RFC 3339"),
        ("until=1969-01-01T00:00:00Z", "RFC 3339"),
    ):
        for path in ("deliveries", "dead-letters") if "state" not in query else ("deliveries",):
            answer = api.get(f"{path}?{query}")
            assert (answer.problem, query) == ((400, "invalid_query"), query)
            assert words in answer.json["detail"], query
    for edge in ("1970-01-01T00:00:00Z", "1970-12-31T23:59:59Z", "9998-12-31T23:59:59Z", "2026-01-01T00:00:00.123456%2B14:00"):
        for name in ("since", "until"):
            assert api.get(f"deliveries?{name}={edge}").status == 200


def test_dead_letters_are_the_dead_deliveries_whatever_else_is_asked(api: Api) -> None:
    event, endpoints = make_event(), [make_endpoint() for _ in range(3)]
    rows = [
        make_delivery(event=event, endpoint=endpoint, state=state, last_status=500)
        for endpoint, state in zip(endpoints, (DEAD, PENDING, DELIVERED), strict=True)
    ]
    other = make_delivery(state=DEAD, endpoint=endpoints[0])
    assert api.get("dead-letters").ids == [other.public_id, rows[0].public_id]
    for query in (f"event={event.public_id}", "status=500", f"event={event.public_id}&collection=app.*", f"endpoint={endpoints[0].public_id}&status=500"):
        assert (api.get(f"dead-letters?{query}").ids, query) == ([rows[0].public_id], query)
    assert api.get(f"dead-letters?endpoint={endpoints[1].public_id}").ids == []
    assert api.get("dead-letters?state=pending").problem == (400, "unknown_query")


# --- Attempts ------------------------------------------------------------------------------------------------------


def test_attempts_say_what_came_and_what_to_do(api: Api) -> None:
    row = make_delivery()
    make_attempt(delivery=row, number=1, status=None, error="dns", error_detail="no such host", dns_ms=3.14159)
    make_attempt(delivery=row, number=2, status=500, response_headers="HTTP/1.1 500\r\nX: y", response_body=b"oh no \xff")
    first, second = api.get(f"deliveries/{row.public_id}").json["attempts"]
    assert (first["number"], first["status"], first["error"], first["words"], first["error_detail"]) == (1, None, "dns", "host name not found", "no such host")
    assert "Check the host" in first["advice"]
    assert first["timings_ms"] == {"dns": 3.142, "connect": 0.0, "tls": 0.0, "first_byte": 0.0, "total": 12.5}
    assert (second["words"], second["response_body"], second["response_headers"]) == ("500 Internal Server Error", "oh no �", "HTTP/1.1 500\r\nX: y")


def test_the_last_attempts_are_shown_in_their_order(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MAX_ATTEMPTS", 3)
    row = make_delivery()
    for number in range(1, 6):
        make_attempt(delivery=row, number=number)
    assert [attempt["number"] for attempt in api.get(f"deliveries/{row.public_id}").json["attempts"]] == [3, 4, 5]


# --- Again, or no more ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", Delivery.State)
def test_a_delivery_is_replayed(state: Delivery.State, api: Api) -> None:
    row = make_delivery(state=state, attempt_count=5, tries=5, settled_at=timezone.now(), due_at=timezone.now() + HOUR)
    make_attempt(delivery=row)
    answer = api.post(f"deliveries/{row.public_id}/replay")
    assert (answer.status, answer.json["state"], answer.json["attempt_count"], answer.json["settled_at"]) == (202, "pending", 5, None)
    assert row.refreshed().due_at <= timezone.now()
    assert Attempt.objects.count() == 1
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target) == ("delivery.replay", row.public_id)


def test_what_cannot_be_sent_is_not_replayed(api: Api) -> None:
    rows = [make_delivery(state=DEAD, endpoint=make_endpoint(state=state)) for state in ("unverified", "deleted")]
    pruned = make_delivery(state=DEAD)
    prune(pruned.event)
    for row in (*rows, pruned):
        assert api.post(f"deliveries/{row.public_id}/replay").problem == (409, "not_replayable")
        assert row.refreshed().state == DEAD
    assert not AuditEntry.objects.exists()


def test_a_dead_letter_is_dismissed_once(api: Api) -> None:
    row = make_delivery(state=DEAD)
    for _ in range(2):
        assert api.post(f"deliveries/{row.public_id}/dismiss").json["state"] == "cancelled"
    assert list(AuditEntry.objects.values_list("action", flat=True)) == ["delivery.dismiss"]
    for state in (PENDING, DELIVERED):
        other = make_delivery(state=state)
        answer = api.post(f"deliveries/{other.public_id}/dismiss")
        assert answer.problem == (409, "wrong_state")
        assert state.label in answer.json["detail"]
    assert api.post(f"deliveries/{row.public_id}/replay").json["state"] == "pending"


@pytest.mark.parametrize("act", ["replay", "dismiss"])
@pytest.mark.parametrize("body", [{"force": True}, [], "x"])
def test_these_acts_take_nothing(act: str, body: Any, api: Api) -> None:
    row = make_delivery(state=DEAD)
    assert api.post(f"deliveries/{row.public_id}/{act}", body).problem == (422, "invalid")
    assert row.refreshed().state == DEAD


def test_a_range_of_time_ends_where_it_ends(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_LOOKED_AT", 2)
    endpoint, now = make_endpoint(), timezone.now()
    rows = {hours: make_delivery(id=id_of(hours * HOUR), endpoint=endpoint, created_at=now - hours * HOUR) for hours in range(1, 12)}
    since, until = (now - 6.5 * HOUR).isoformat().replace("+00:00", "Z"), (now - 4.5 * HOUR).isoformat().replace("+00:00", "Z")
    first = api.get(f"deliveries?since={since}&until={until}")
    # What is newer is not walked through, and behind the last one there is no page of nothing after the other.
    assert first.ids == [rows[5].public_id, rows[6].public_id]
    rest = api.get(f"deliveries?since={since}&until={until}&cursor={first.json['next_cursor']}")
    assert (rest.ids, rest.json["has_more"]) == ([], False)
