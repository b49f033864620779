"""`/replays`: many deliveries at once, ordered, counted, carried out and called off by programs."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from delivery.models import Delivery, Replay
from delivery.replay.running import step
from subscriptions.models import AuditEntry
from tests.api import Api, api_of
from tests.builders import POST, make_delivery, make_endpoint, make_event, make_replay, make_subscription

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
HOUR = timedelta(hours=1)


@pytest.fixture
def api() -> Api:
    return api_of()


def ago(time: timedelta) -> str:
    return (timezone.now() - time).isoformat()


def carry_out(id: str) -> None:
    wish = next(row for row in Replay.objects.all() if row.public_id == id)
    while wish.refreshed().running:
        step(wish.pk, max(timezone.now(), wish.next_at) + HOUR)


def test_a_replay_is_ordered_and_carried_out(api: Api) -> None:
    endpoint = make_endpoint()
    rows = [make_delivery(endpoint=endpoint, state=DEAD) for _ in range(3)]
    other = make_delivery(state=DEAD)
    wish = {"endpoint": endpoint.public_id, "state": "dead", "since": ago(HOUR), "collections": ["app.bsky.*", POST], "rate_per_s": 50}
    assert api.post("replays/preview", wish).json == {"matched": 3, "more": False}
    assert not Replay.objects.exists()
    started = api.post("replays", wish)
    assert api.key
    assert started.status == 202
    assert (
        started.json
        | {
            "action": "replay",
            "endpoint": endpoint.public_id,
            "event": None,
            "state_of_deliveries": "dead",
            "until": None,
            "collections": ["app.bsky.*", POST],
            "rate_per_s": 50.0,
            "state": "running",
            "expected": 3,
            "expected_more": False,
            "done": 0,
            "created_by": f"key {api.key}",
            "ended_at": None,
            "ended_by": None,
        }
        == started.json
    )
    carry_out(started.json["id"])
    shown = api.get(f"replays/{started.json['id']}").json
    assert (shown["state"], shown["done"], shown["ended_at"] is None) == ("finished", 3, False)
    assert [row.refreshed().state for row in (*rows, other)] == [PENDING] * 3 + [DEAD]
    assert AuditEntry.objects.get().action == "replay.replay"


def test_one_events_deliveries_are_replayed(api: Api) -> None:
    event = make_event()
    rows = [make_delivery(event=event, state=DELIVERED) for _ in range(2)]
    other = make_delivery(state=DELIVERED)
    started = api.post("replays", {"event": event.public_id})
    assert (started.json["event"], started.json["expected"]) == (event.public_id, 2)
    carry_out(started.json["id"])
    assert [row.refreshed().state for row in (*rows, other)] == [PENDING, PENDING, DELIVERED]


def test_dead_letters_are_dismissed_in_bulk(api: Api) -> None:
    rows = [make_delivery(state=state) for state in Delivery.State]
    started = api.post("replays", {"action": "dismiss"})
    assert (started.json["state_of_deliveries"], started.json["expected"]) == ("dead", 1)
    carry_out(started.json["id"])
    assert [row.refreshed().state for row in rows] == [PENDING, DELIVERED, CANCELLED, CANCELLED]


@pytest.mark.parametrize("how", ["recover", "replays"])
def test_an_endpoint_is_recovered(how: str, api: Api) -> None:
    events = [make_event(type=POST), make_event(type="app.bsky.feed.like"), make_event(type="app.bsky.graph.block")]
    endpoint = make_subscription(collections=["app.bsky.feed.*"]).endpoint
    wish = {"since": ago(HOUR)}
    if how == "recover":
        started = api.post(f"endpoints/{endpoint.public_id}/recover", wish)
    else:
        started = api.post("replays", wish | {"action": "recover", "endpoint": endpoint.public_id})
    assert (started.status, started.json["action"], started.json["endpoint"], started.json["expected"]) == (202, "recover", endpoint.public_id, 2)
    assert AuditEntry.objects.get().action == "replay.recover"
    # Events are waited for that may still be on their way.
    for row in events:
        assert not row.deliveries.exists()


def test_what_is_no_replay_says_why(api: Api) -> None:
    endpoint, unverified = make_subscription().endpoint, make_endpoint(state="unverified")
    nowhere = "0" * 32
    for wish, pointer in (
        ({"action": "repeat"}, "/action"),
        ({"state": "failed"}, "/state"),
        ({"state": 2}, "/state"),
        ({"action": "dismiss", "state": "delivered"}, "/state"),
        ({"endpoint": f"ep_{nowhere}"}, "/endpoint"),
        ({"endpoint": None}, "/endpoint"),
        ({"event": f"evt_{nowhere}"}, "/event"),
        ({"event": f"ep_{nowhere}"}, "/event"),
        ({"since": "yesterday"}, "/since"),
        ({"since": (timezone.now() + HOUR).isoformat()}, "/since"),
        ({"since": "1999-01-01T00:00:00Z"}, "/since"),
        ({"since": ago(HOUR), "until": ago(2 * HOUR)}, "/until"),
        ({"collections": "a"}, "/collections"),
        ({"collections": ["a b"]}, "/collections/0"),
        ({"collections": [f"a.b{number}" for number in range(101)]}, "/collections"),
        ({"rate_per_s": 0}, "/rate_per_s"),
        ({"rate_per_s": 1e9}, "/rate_per_s"),
        ({"rate_per_s": "50"}, "/rate_per_s"),
        ({"action": "recover", "endpoint": endpoint.public_id}, "/since"),
        ({"action": "recover", "since": ago(HOUR)}, "/endpoint"),
        ({"action": "recover", "since": ago(HOUR), "endpoint": unverified.public_id}, "/endpoint"),
        ({"action": "recover", "since": ago(timedelta(days=30)), "endpoint": endpoint.public_id}, "/since"),
        ({"action": "recover", "since": ago(HOUR), "endpoint": endpoint.public_id, "state": "dead"}, "/state"),
        ({"tenant": "x"}, "/tenant"),
    ):
        for path in ("replays", "replays/preview"):
            answer = api.post(path, wish)
            assert (answer.problem, answer.pointers) == ((422, "invalid"), [pointer]), wish
    recover: list[tuple[dict[str, Any], str]] = [
        ({}, "/since"),
        ({"since": ago(HOUR), "state": "dead"}, "/state"),
        ({"since": ago(HOUR), "action": "replay"}, "/action"),
    ]
    for wish, pointer in recover:
        assert api.post(f"endpoints/{endpoint.public_id}/recover", wish).pointers == [pointer]
    assert not Replay.objects.exists()


def test_replays_are_listed_and_called_off(api: Api) -> None:
    rows = [make_replay() for _ in range(3)]
    assert api.get("replays").ids == [row.public_id for row in reversed(rows)]
    path = f"replays/{rows[0].public_id}"
    assert api.key
    for _ in range(2):
        answer = api.post(f"{path}/cancel")
        assert (answer.status, answer.json["state"], answer.json["ended_by"]) == (200, "cancelled", f"key {api.key}")
    assert list(AuditEntry.objects.values_list("action", "target")) == [("replay.cancel", rows[0].public_id)]
    Replay.objects.filter(pk=rows[1].pk).update(state="finished", ended_at=timezone.now())
    assert api.post(f"replays/{rows[1].public_id}/cancel").problem == (409, "wrong_state")
