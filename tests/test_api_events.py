"""`/events`: posted one by one or in batches, stored once, read byte for byte, and explained."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from delivery.models import Delivery, Event
from delivery.sources.api import MAX_EVENT
from jetrelay.api import events
from subscriptions.models import AuditEntry, Endpoint
from tests.api import Answer, Api, api_of
from tests.builders import (
    POST,
    make_api_event,
    make_api_source,
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_source,
    make_subscription,
    make_tenant,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

NOWHERE = "0" * 32
HOUR = timedelta(hours=1)


@pytest.fixture
def api() -> Api:
    return api_of()


def post(api: Api, query: str = "", headers: dict[str, str] | None = None, **over: Any) -> Answer:
    return api.post(f"events{query}", {"type": "order.paid", "data": {"n": 1}} | over, headers=headers)


def wanting(*types: str) -> Endpoint:
    return make_subscription(source=make_api_source(), kinds=["api"], collections=list(types) or ["*"]).endpoint


def only_event() -> Event:
    return Event.objects.get()


# --- One event -----------------------------------------------------------------------------------------------------


def test_an_event_is_stored_with_its_deliveries_before_it_is_answered(api: Api) -> None:
    first, second = wanting("order.*"), wanting("*")
    wanting("user.*")
    answer = post(api)
    event = only_event()
    assert (answer.status, answer.json) == (202, {"id": event.public_id, "status": "stored", "deliveries": 2})
    assert set(event.deliveries.values_list("endpoint", "state")) == {(first.pk, Delivery.State.PENDING), (second.pk, Delivery.State.PENDING)}
    assert api.key
    assert (event.kind, event.type, event.subject, event.origin, event.source) == ("api", "order.paid", "", api.key.public_id, make_api_source())


def test_the_data_is_kept_byte_for_byte(api: Api) -> None:
    data = '{ "b":1.0, "a" :[1e2,\t"\\u00e9é"], "c": 12345678901234567890 }'
    answer = api.post("events", f'{{"data":{data},"type":"a","id":"o-1","timestamp":"2026-01-02T03:04:05Z"}}'.encode())
    expected = f'{{"id":"o-1","type":"a","timestamp":"2026-01-02T03:04:05Z","data":{data}}}'.encode()
    assert bytes(only_event().body) == expected
    body = api.get(f"events/{answer.json['id']}/body")
    assert (body.content, body.headers["Content-Type"], body.headers["X-Content-Type-Options"]) == (expected, "application/json", "nosniff")
    assert api.get(f"events/{answer.json['id']}").json["body"] == json.loads(expected)


def test_an_event_has_the_time_that_the_client_says_or_that_of_its_coming(api: Api) -> None:
    post(api, timestamp="2026-01-02T03:04:05.678901+02:00")
    event, before = only_event(), timezone.now()
    assert event.occurred_at == datetime(2026, 1, 2, 1, 4, 5, 678_901, tzinfo=UTC)
    assert abs(event.received_at - before) < timedelta(minutes=1)
    post(api)
    later = Event.objects.latest("id")
    assert before <= later.occurred_at <= timezone.now()


def test_a_subject_keeps_an_order(api: Api) -> None:
    make_subscription(source=make_api_source(), kinds=["api"], endpoint=make_endpoint(ordered=True))
    for subject in ("order-1", "order-1", "Zoë 😀"):
        post(api, subject=subject)
    keys = list(Delivery.objects.order_by("id").values_list("order_key", flat=True))
    assert keys[0] == keys[1] != keys[2]
    assert api.get("events?subject=Zo%C3%AB%20%F0%9F%98%80").json["data"][0]["subject"] == "Zoë 😀"


@pytest.mark.parametrize("how", ["body", "header", "both"])
def test_an_id_is_stored_once(how: str, api: Api) -> None:
    wanting()

    def send(data: Any = 1) -> Answer:
        return post(api, headers={"Idempotency-Key": "o-1"} if how != "body" else None, data=data, **({"id": "o-1"} if how != "header" else {}))

    first, again = send(), send()
    assert (first.json["status"], first.json["deliveries"]) == ("stored", 1)
    assert (again.status, again.json) == (202, {"id": first.json["id"], "status": "duplicate", "deliveries": 0})
    assert json.loads(bytes(only_event().body))["id"] == "o-1"
    other = send(2)
    assert (other.problem, other.pointers) == ((422, "id_reused"), ["/id"])
    assert "'o-1'" in other.json["detail"]
    assert Delivery.objects.count() == 1


def test_the_header_and_the_id_are_one_thing(api: Api) -> None:
    header = {"Idempotency-Key": "o-1"}
    first = post(api, headers=header)
    assert post(api, id="o-1").json == {"id": first.json["id"], "status": "duplicate", "deliveries": 0}
    assert post(api, headers=header, id="o-2").pointers == ["/id"]
    for key in ("", "a b", "é", "x" * 201):
        assert post(api, headers={"Idempotency-Key": key}).problem == (400, "invalid_idempotency_key")
    assert Event.objects.count() == 1


def test_a_time_belongs_to_an_event_if_the_client_says_it(api: Api) -> None:
    at = "2026-01-02T03:04:05Z"
    post(api, id="o-1", timestamp=at)
    assert post(api, id="o-1", timestamp=at).json["status"] == "duplicate"
    assert post(api, id="o-1", timestamp="2026-01-02T03:04:06Z").problem == (422, "id_reused")
    assert post(api, id="o-1").json["status"] == "duplicate"
    post(api, id="o-2")
    assert post(api, id="o-2").json["status"] == "duplicate"


def test_ids_belong_to_a_source(api: Api) -> None:
    make_api_source()
    other, theirs = make_api_source(name="another"), api_of(make_tenant(slug="other"))
    answers = [post(api, id="o-1"), post(api, f"?source={other.public_id}", id="o-1"), post(theirs, id="o-1")]
    assert [answer.json["status"] for answer in answers] == ["stored"] * 3
    assert len({answer.json["id"] for answer in answers}) == 3


def test_events_go_to_a_source_of_the_tenants_own(api: Api) -> None:
    assert post(api, f"?source={make_source().public_id}").problem == (400, "invalid_query")
    for id in (make_api_source(tenant=make_tenant(slug="other")).public_id, f"src_{NOWHERE}", "api"):
        assert post(api, f"?source={id}").problem == (404, "not_found")
    assert not Event.objects.exists()


def test_what_nobody_wants_is_kept_or_dropped_as_the_source_says(api: Api) -> None:
    assert post(api).json | {"status": "stored", "deliveries": 0} == post(api).json | {"id": api.get("events").ids[1]}
    make_api_source(name="strict", keep_unmatched=False)
    source = make_api_source(name="strict")
    dropped = post(api, f"?source={source.public_id}", id="o-1")
    assert (dropped.status, dropped.json["status"], dropped.json["deliveries"]) == (202, "unmatched", 0)
    assert Event.objects.filter(source=source).count() == 0
    batch = api.post(f"events/batch?source={source.public_id}", {"events": [{"type": "a", "data": 1}]})
    assert (batch.status, batch.json["data"][0]["status"]) == (202, "unmatched")


# --- Batches -------------------------------------------------------------------------------------------------------


def send(api: Api, *items: Any, **kwargs: Any) -> Answer:
    return api.post("events/batch", {"events": list(items)}, **kwargs)


def item(**over: Any) -> dict[str, Any]:
    return {"type": "order.paid", "data": 1} | over


def test_a_batch_is_stored_and_answered_event_by_event(api: Api) -> None:
    wanting("order.paid")
    answer = send(api, item(id="o-1"), item(type="user.made"), item(id="o-1"), item(subject="s"))
    rows = answer.json["data"]
    assert answer.status == 202
    assert [(row["index"], row["status"], row["deliveries"]) for row in rows] == [(0, "stored", 1), (1, "stored", 0), (2, "duplicate", 0), (3, "stored", 1)]
    assert rows[0]["id"] == rows[2]["id"]
    assert Event.objects.count() == 3
    assert {event["id"] for event in api.get("events").json["data"]} == {row["id"] for row in rows}


def test_what_is_wrong_in_a_batch_does_not_hold_up_the_rest(api: Api) -> None:
    post(api, id="o-1")
    answer = send(api, item(), item(id="o-1", data=2), item(type="a b"), 7, item(data="x" * MAX_EVENT), {"typ": "a"}, item(id="o-1", data={"n": 1}))
    assert answer.status == 207
    rows = answer.json["data"]
    assert [row["status"] for row in rows] == ["stored", "conflict", "invalid", "invalid", "invalid", "invalid", "duplicate"]
    assert [[error["pointer"] for error in row.get("errors", ())] for row in rows] == [[], ["/id"], ["/type"], [""], [""], ["/typ", "/type", "/data"], []]
    assert Event.objects.count() == 2


def test_a_batch_without_a_good_event_stores_none(api: Api) -> None:
    answer = send(api, item(type=""), None)
    assert (answer.status, [row["status"] for row in answer.json["data"]]) == (207, ["invalid", "invalid"])


def test_a_batch_is_sent_again_under_its_key(api: Api) -> None:
    """Events that have no id get one of the key and their place."""
    key = {"Idempotency-Key": "batch-1"}
    first = send(api, item(), item(id="o-1"), item(data=3), headers=key)
    again = send(api, item(), item(id="o-1"), item(data=3), headers=key)
    assert [row["status"] for row in first.json["data"]] == ["stored"] * 3
    assert [row["status"] for row in again.json["data"]] == ["duplicate"] * 3
    assert [row["id"] for row in again.json["data"]] == [row["id"] for row in first.json["data"]]
    assert Event.objects.count() == 3
    assert [row["status"] for row in send(api, item(), item(data=9), headers=key).json["data"]] == ["duplicate", "stored"]
    assert send(api, item(data=2), headers=key).json["data"][0]["status"] == "conflict"
    assert send(api, item(), headers={"Idempotency-Key": "a b"}).problem == (400, "invalid_idempotency_key")


def test_what_is_no_batch_says_why(api: Api) -> None:
    bodies: list[Any] = [
        [],
        {},
        {"events": {}},
        {"events": None},
        {"events": [item()], "source": "x"},
        [item()],
        item(),
        {"events": []},
        {"events": [1] * 1001},
    ]
    for body in bodies:
        assert (api.post("events/batch", body).problem, api.post("events/batch", body).pointers) == ((422, "invalid"), ["/events"])
    assert not Event.objects.exists()


# --- Reading -------------------------------------------------------------------------------------------------------


def test_an_event_shows_what_it_is_and_who_is_owed_it(api: Api) -> None:
    event = make_event(origin="wss://a.example/subscribe", origin_cursor=7)
    mine = make_delivery(event=event)
    make_delivery(event=event, endpoint=make_endpoint(tenant=make_tenant(slug="other")))
    shown = api.get(f"events/{event.public_id}").json
    assert {name: shown[name] for name in ("id", "source", "kind", "type", "operation", "subject", "origin", "origin_cursor")} == {
        "id": event.public_id,
        "source": event.source.public_id,
        "kind": "commit",
        "type": POST,
        "operation": "create",
        "subject": event.subject,
        "origin": "wss://a.example/subscribe",
        "origin_cursor": 7,
    }
    assert [delivery["id"] for delivery in shown["deliveries"]] == [mine.public_id]
    assert shown["body"] == json.loads(bytes(event.body))
    assert "body" not in api.get("events").json["data"][0]


@pytest.mark.parametrize("body", [b"not JSON", b"\xff\xfe", b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": 1e400}', b'"\\ud800"', b"[" * 100 + b"]" * 100, b""])
def test_a_body_that_is_no_plain_json_is_shown_as_text(body: bytes, api: Api) -> None:
    """The stream brings what it brings."""
    event = make_event(body=body)
    assert api.get(f"events/{event.public_id}").json["body"] == body.decode(errors="replace")
    assert api.get(f"events/{event.public_id}/body").content == body


def test_so_many_deliveries_are_shown_with_an_event(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_SHOWN", 2)
    event = make_event()
    rows = [make_delivery(event=event) for _ in range(3)]
    assert [each["id"] for each in api.get(f"events/{event.public_id}").json["deliveries"]] == [rows[2].public_id, rows[1].public_id]


def test_every_filter_finds_its_own(api: Api) -> None:
    now = timezone.now()
    mine, stream = make_api_source(), make_source()
    old = make_event(received_at=now - 3 * HOUR)
    gone = make_event(operation="delete", type="app.bsky.graph.block", subject="did:plc:other")
    account = make_event(kind="account", type="", operation="")
    paid, sent = make_api_event(type="order.paid", subject="order-7"), make_api_event(type="Order.sent")
    make_api_event(source=make_api_source(tenant=make_tenant(slug="other")))
    everything = [sent, paid, account, gone, old]
    for query, rows in (
        ("", everything),
        ("type=order.paid", [paid]),
        ("type=order.*", [paid]),
        ("type=Order.*", [sent]),
        ("type=app.bsky.*", [gone, old]),
        ("type=*", everything),
        ("kind=account", [account]),
        ("kind=none", []),
        ("operation=delete", [gone]),
        ("subject=order-7", [paid]),
        (f"source={mine.public_id}", [sent, paid]),
        (f"source={stream.public_id}", [account, gone, old]),
        (f"source={stream.public_id}&kind=commit&operation=create", [old]),
        (f"since={(now - HOUR).isoformat().replace('+00:00', 'Z')}", everything[:-1]),
        (f"until={(now + HOUR).isoformat().replace('+00:00', 'Z')}&type=order.paid", [paid]),
    ):
        assert (api.get(f"events?{query}").ids, query) == ([row.public_id for row in rows], query)
    for query, status in (("type=a b", 400), ("type=", 400), ("since=1", 400), (f"source=src_{NOWHERE}", 404), ("source=", 404)):
        assert (api.get(f"events?{query.replace(' ', '%20')}").status, query) == (status, query)


def test_an_event_is_replayed_to_all_or_to_one(api: Api) -> None:
    event = make_event()
    rows = [make_delivery(event=event, state=Delivery.State.DELIVERED) for _ in range(2)]
    theirs = make_delivery(event=event, state=Delivery.State.DEAD, endpoint=make_endpoint(tenant=make_tenant(slug="other")))
    path = f"events/{event.public_id}/replay"
    one = api.post(path, {"endpoint": rows[0].endpoint.public_id})
    assert (one.status, one.json) == (202, {"event": event.public_id, "replayed": 1})
    assert [row.refreshed().state for row in rows] == [Delivery.State.PENDING, Delivery.State.DELIVERED]
    assert api.post(path).json["replayed"] == 2
    assert theirs.refreshed().state == Delivery.State.DEAD
    assert api.post(path, {"endpoint": make_endpoint().public_id}).problem == (409, "nothing_to_replay")
    assert api.post(path, {"endpoint": "x"}).pointers == ["/endpoint"]
    assert api.post(f"events/evt_{NOWHERE}/replay").status == 404
    assert set(AuditEntry.objects.values_list("action", "target")) == {("event.replay", event.public_id)}


# --- Why did, or didn't, this endpoint get it? ---------------------------------------------------------------------


def test_what_became_of_an_event_is_shown_to_keys_that_may_read_deliveries_alone(api: Api) -> None:
    attempt = make_attempt(response_body=b"a receiver's secret words", status=500)
    event, endpoint = attempt.delivery.event, attempt.delivery.endpoint
    paths = f"events/{event.public_id}", f"events/{event.public_id}/explain?endpoint={endpoint.public_id}"
    narrow = api_of(scopes=["events:read"])
    shown = [narrow.get(path) for path in paths]
    assert [answer.status for answer in shown] == [200, 200]
    assert (shown[0].json["deliveries"], shown[1].json["delivery"]) == (None, None)
    assert shown[1].json["verdict"] == api.get(paths[1]).json["verdict"]
    assert not [answer for answer in shown if "secret words" in answer.text]
    assert "secret words" in api.get(paths[1]).text


def explain(api: Api, event: Event, endpoint: Endpoint) -> Any:
    answer = api.get(f"events/{event.public_id}/explain?endpoint={endpoint.public_id}")
    assert answer.status == 200
    return answer.json


@pytest.mark.parametrize("state", Delivery.State)
def test_a_delivery_explains_itself(state: Delivery.State, api: Api) -> None:
    row = make_delivery(state=state, endpoint=make_subscription().endpoint, attempt_count=1, last_status=503)
    attempt = make_attempt(delivery=row, status=503)
    found = explain(api, row.event, row.endpoint)
    assert (found["verdict"], found["delivery"]["id"]) == (state.label, row.public_id)
    assert [each["id"] for each in found["delivery"]["attempts"]] == [attempt.public_id]
    assert all(condition["met"] for subscription in found["subscriptions"] for condition in subscription["conditions"])


def test_what_matched_nothing_says_which_condition_stood_in_the_way(api: Api) -> None:
    subscription = make_subscription(operations=["create"])
    event = make_event(operation="delete")
    found = explain(api, event, subscription.endpoint)
    assert (found["verdict"], found["delivery"]) == ("not_matched", None)
    assert found["words"] == "No subscription matched: operation is delete, and create is wanted."
    (judged,) = found["subscriptions"]
    assert (judged["id"], judged["matched"]) == (subscription.public_id, False)
    assert [(each["name"], each["met"]) for each in judged["conditions"]][-1] == ("operation", False)


def test_an_endpoint_without_a_subscription_gets_nothing(api: Api) -> None:
    assert explain(api, make_event(), make_endpoint())["verdict"] == "no_subscription"


def test_what_matches_now_says_what_was_other_then(api: Api) -> None:
    event = make_event(received_at=timezone.now() - HOUR)
    endpoint = make_subscription().endpoint
    found = explain(api, event, endpoint)
    assert (found["verdict"], found["state_then"], found["state_now"]) == ("not_then", None, {"state": "active", "reason": ""})
    assert found["subscriptions"][0]["changed_since"].endswith("Z")
    moment = timezone.now() - 2 * HOUR
    Endpoint.objects.update(created_at=moment, state_changed_at=moment)
    assert explain(api, event, endpoint)["state_then"] == {"state": "active", "reason": ""}


def test_an_explanation_is_about_one_endpoint(api: Api) -> None:
    event = make_event()
    for query in ("", "?endpoint=", "?endpoint=x", f"?endpoint=evt_{NOWHERE}"):
        assert api.get(f"events/{event.public_id}/explain{query}").problem == (400, "invalid_query")
    assert api.get(f"events/{event.public_id}/explain?endpoint=ep_{NOWHERE}").problem == (404, "not_found")
    assert api.get(f"events/evt_{NOWHERE}/explain?endpoint={make_endpoint().public_id}").problem == (404, "not_found")
