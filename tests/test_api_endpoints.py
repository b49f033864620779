"""`/endpoints`: registered, challenged, changed, held, tried, rotated and deleted by programs."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from delivery.models import Delivery, EndpointHealth
from subscriptions.models import AuditEntry, ConfigVersion, Endpoint, Subscription, new_secret
from tests.api import Api, api_of
from tests.builders import make_delivery, make_endpoint, make_health, make_source, make_subscription
from tests.draining import replying
from tests.receiver import Handler, Received, Receiver

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

State = Endpoint.State
URL = "https://receiver.example/hook"
SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture
def api() -> Api:
    return api_of()


@pytest.fixture
def unchallenged(settings: Settings) -> None:
    settings.JETRELAY_VERIFY_ENDPOINTS = False


@pytest.fixture
def echoing(receiver: Receiver) -> Receiver:
    """A receiver that answers challenges."""
    receiver.answer = echo
    return receiver


def echo(handler: Handler, received: Received) -> None:
    handler.reply(200, json.dumps({"challenge": json.loads(received.body).get("challenge")}).encode())


def only_endpoint() -> Endpoint:
    return Endpoint.objects.get()


def audit() -> list[tuple[str, str]]:
    return list(AuditEntry.objects.order_by("id").values_list("action", "target"))


# --- Registering ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchallenged")
def test_an_endpoint_needs_a_url_and_no_more(api: Api) -> None:
    version = ConfigVersion.current()
    made = api.post("endpoints", {"url": "HTTPS://Receiver.example/hook"})
    endpoint = only_endpoint()
    assert made.status == 201
    assert made.json == {
        "id": endpoint.public_id,
        "name": "receiver.example",
        "url": URL,
        "signature_scheme": "standard",
        "has_bearer_token": False,
        "header_names": [],
        "timeout_s": 30.0,
        "max_in_flight": 32,
        "rate_limit_per_s": None,
        "priority": "normal",
        "ordered": False,
        "batch_size": 1,
        "batch_wait_ms": 1000,
        "retry": {
            "strategy": "schedule",
            "schedule_s": [30, 300, 1800, 7200],
            "first_s": 30.0,
            "factor": 4.0,
            "step_s": 300.0,
            "longest_s": 7200.0,
            "count": 5,
            "jitter_percent": 10,
            "on": "any",
        },
        "subscriptions": [],
        "state": "active",
        "state_reason": "",
        "state_changed_at": made.json["state_changed_at"],
        "health": {"status": "well", "words": "closed", "failing_since": None, "last_failure": ""},
        "created_at": made.json["created_at"],
        "secret": endpoint.secret,
        "verification": None,
    }
    assert made.json["created_at"].endswith("Z")
    assert ConfigVersion.current() > version
    assert audit() == [("endpoint.create", endpoint.public_id)]


EVERYTHING: Mapping[str, Any] = {
    "name": "Mine",
    "signature_scheme": "hookstream",
    "timeout_s": 7.5,
    "max_in_flight": 3,
    "rate_limit_per_s": 0.5,
    "priority": "high",
    "ordered": True,
    "batch_size": 50,
    "batch_wait_ms": 0,
    "retry": {
        "strategy": "exponential",
        "schedule_s": [1, 2.5],
        "first_s": 1,
        "factor": 3,
        "step_s": 5,
        "longest_s": 60,
        "count": 9,
        "jitter_percent": 25,
        "on": "transient",
    },
}


@pytest.mark.usefixtures("unchallenged")
def test_every_setting_is_kept_and_shown(api: Api) -> None:
    hidden = {"secret": SECRET, "bearer_token": "a-token", "headers": {"X-Key": "a-value", "X-Other": "b-value"}}
    made = api.post("endpoints", {"url": URL, **EVERYTHING, **hidden})
    assert made.status == 201
    assert {name: made.json[name] for name in EVERYTHING} == EVERYTHING
    assert (made.json["has_bearer_token"], made.json["header_names"]) == (True, ["X-Key", "X-Other"])
    endpoint = only_endpoint()
    assert (endpoint.secret, endpoint.bearer_token, endpoint.extra_headers) == (SECRET, "a-token", "X-Key: a-value\nX-Other: b-value")
    path = f"endpoints/{endpoint.public_id}"
    for answer in (api.get(path), api.get("endpoints"), api.patch(path, {"name": "x"}), api.post(f"{path}/pause")):
        assert all(text not in answer.text for text in (SECRET, "a-token", "a-value", "b-value"))
        assert "X-Other" in answer.text
    # Shown once, to whoever made it.
    assert made.json["secret"] == SECRET
    assert "a-token" not in made.text


@pytest.mark.usefixtures("unchallenged")
def test_an_endpoint_comes_with_its_subscriptions(api: Api) -> None:
    stream = make_source()
    wishes = [
        {"collections": ["app.bsky.feed.*"], "operations": ["create"]},
        {"types": ["order.*"]},
        {"source": stream.public_id, "collections": ["*"], "active": False},
    ]
    made = api.post("endpoints", {"url": URL, "subscriptions": wishes})
    shown = made.json["subscriptions"]
    assert [(each["source_kind"], each["collections"], each["types"], each["active"]) for each in reversed(shown)] == [
        ("jetstream", ["app.bsky.feed.*"], None, True),
        ("api", None, ["order.*"], True),
        ("jetstream", ["*"], None, False),
    ]
    assert {each["endpoint"] for each in shown} == {made.json["id"]}
    assert api.get("subscriptions").json["data"] == shown


@pytest.mark.usefixtures("unchallenged")
@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({"collections": ["a b"]}, "/subscriptions/1/collections/0"),
        ({"collections": ["a"], "types": ["b"]}, "/subscriptions/1/types"),
        ({"source": "src_" + "0" * 32, "collections": ["*"]}, "/subscriptions/1/source"),
        ({"source": "api", "dids": ["did:plc:x"]}, "/subscriptions/1/dids"),
        ({}, "/subscriptions/1/collections"),
        ({"endpoint": "ep_" + "0" * 32}, "/subscriptions/1/endpoint"),
        (1, "/subscriptions/1"),
    ],
)
def test_one_bad_subscription_makes_no_endpoint(wish: Any, pointer: str, api: Api) -> None:
    make_source()
    answer = api.post("endpoints", {"url": URL, "subscriptions": [{"types": ["a"]}, wish]})
    assert (answer.problem, answer.pointers) == ((422, "invalid"), [pointer])
    assert not Endpoint.objects.exists()
    assert not Subscription.objects.exists()
    assert audit() == []


def test_an_endpoint_that_answers_its_challenge_receives_at_once(api: Api, echoing: Receiver) -> None:
    made = api.post("endpoints", {"url": echoing.url, "secret": SECRET, "bearer_token": "a-token", "headers": {"X-Key": "a-value"}})
    (request,) = echoing.requests
    assert json.loads(request.body)["type"] == "endpoint.verification"
    assert (request.headers["authorization"], request.headers["x-key"]) == ("Bearer a-token", "a-value")
    assert (made.status, made.json["state"]) == (201, "active")
    verification = made.json["verification"]
    assert (verification["passed"], verification["status"], verification["error"]) == (True, 200, None)
    assert set(verification["timings_ms"]) == {"dns", "connect", "tls", "first_byte", "total"}


def test_an_endpoint_that_does_not_answer_is_made_and_receives_nothing(api: Api, receiver: Receiver) -> None:
    made = api.post("endpoints", {"url": receiver.url, "subscriptions": [{"types": ["*"]}]})
    assert (made.status, made.json["state"], made.json["verification"]["passed"]) == (201, "unverified", False)
    assert "Expected a 2xx answer with the challenge" in made.json["verification"]["words"]
    assert made.json["secret"].startswith("whsec_")
    assert api.post("events", {"type": "a", "data": 1}).json["deliveries"] == 0
    path = f"endpoints/{made.json['id']}"
    assert api.post(f"{path}/verify").json["passed"] is False
    receiver.answer = echo
    assert api.post(f"{path}/verify").json["passed"] is True
    assert api.get(path).json["state"] == "active"
    assert api.post("events", {"type": "a", "data": 1}).json["deliveries"] == 1


def test_an_endpoint_must_not_lead_into_private_networks(api: Api, settings: Settings) -> None:
    """It is registered like any other, and its challenge never leaves: the address is checked where the socket opens."""
    made = api.post("endpoints", {"url": "http://10.1.2.3/hook"})
    assert (made.json["state"], made.json["verification"]["error"]) == ("unverified", "refused_address")


# --- Reading -------------------------------------------------------------------------------------------------------


def test_endpoints_are_listed_by_state_and_deleted_ones_are_gone(api: Api) -> None:
    rows = {state: make_endpoint(state=state) for state in State}
    assert api.get("endpoints").ids == [rows[state].public_id for state in reversed(State) if state != State.DELETED]
    for state in ("active", "paused", "disabled", "unverified"):
        assert api.get(f"endpoints?state={state}").ids == [rows[State(state)].public_id]
    for state in ("deleted", "Active", ""):
        assert api.get(f"endpoints?state={state}").problem == (400, "invalid_query")
    for method, end in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/reveal-secret"),
        ("POST", "/rotate-secret"),
        ("POST", "/test"),
    ):
        assert api.request(method, f"endpoints/{rows[State.DELETED].public_id}{end}", {} if method == "PATCH" else b"").status == 404


def test_it_says_how_an_endpoint_stands(api: Api) -> None:
    health = make_health()
    shown = api.get(f"endpoints/{health.endpoint.public_id}").json["health"]
    assert (shown["status"], shown["last_failure"]) == ("open", "503 Service Unavailable")
    assert shown["failing_since"].endswith("Z")
    EndpointHealth.objects.update(open_until=None, trips=0, paused_until=timezone.now() + timedelta(minutes=1))
    assert api.get(f"endpoints/{health.endpoint.public_id}").json["health"]["status"] == "asked_to_wait"


# --- Changing ------------------------------------------------------------------------------------------------------


def test_a_change_changes_what_it_names_and_nothing_else(api: Api) -> None:
    endpoint = make_endpoint(url=URL, bearer_token="a-token", extra_headers="X-Key: a-value", state=State.PAUSED)
    path, version = f"endpoints/{endpoint.public_id}", ConfigVersion.current()
    before = api.get(path).json
    for name, value in EVERYTHING.items():
        after = api.patch(path, {name: value}).json
        assert after == before | {name: value}
        before = after
    assert ConfigVersion.current() > version
    endpoint.refresh_from_db()
    assert (endpoint.bearer_token, endpoint.extra_headers, endpoint.state) == ("a-token", "X-Key: a-value", "paused")
    for number in ("rate_limit_per_s", "bearer_token"):
        api.patch(path, {number: None})
    assert (endpoint.refreshed().rate_limit_per_s, endpoint.bearer_token) == (None, "")
    assert api.patch(path, {"headers": {"X-New": "1"}}).json["header_names"] == ["X-New"]
    assert api.patch(path, {"headers": {}}).json["header_names"] == []
    assert api.patch(path, {"retry": {"count": 2}}).json["retry"] == EVERYTHING["retry"] | {"count": 2}
    assert ("endpoint.change", endpoint.public_id) in audit()
    assert all("value" not in detail for detail in AuditEntry.objects.values_list("detail", flat=True))


def test_what_does_not_go_together_changes_nothing(api: Api) -> None:
    endpoint = make_endpoint()
    path = f"endpoints/{endpoint.public_id}"
    for change, pointer in (
        ({"batch_size": 2, "retry": {"schedule_s": []}}, "/batch_size"),
        ({"retry": {"strategy": "linear", "first_s": 100, "longest_s": 10}}, "/retry/longest_s"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers"),
        ({"headers": {"X-A": ""}}, "/headers/X-A"),
        ({"headers": {"X A": "b"}}, "/headers/X A"),
        ({"headers": {"X-A: b": "c"}}, "/headers/X-A: b"),
        ({"headers": {"": "c"}}, "/headers/"),
        ({"headers": {"a/b~c": "c", "X": "y\nZ: 1"}}, "/headers/X"),
        ({"headers": {f"X-{number}": "v" for number in range(21)}}, "/headers"),
        ({"secret": SECRET}, "/secret"),
        ({"state": "active"}, "/state"),
        ({"id": "x"}, "/id"),
        ({"subscriptions": []}, "/subscriptions"),
    ):
        answer = api.patch(path, {"name": "changed"} | change)
        assert (answer.problem, answer.pointers) == ((422, "invalid"), [pointer]), change
    assert endpoint.refreshed().name != "changed"
    assert audit() == []


def test_a_new_url_has_to_answer_before_it_is_taken_over(api: Api, echoing: Receiver) -> None:
    endpoint = make_endpoint(url="http://127.0.0.1:9/old")
    path = f"endpoints/{endpoint.public_id}"
    with Receiver() as silent:
        answer = api.patch(path, {"url": silent.url, "name": "moved"})
        assert (answer.problem, answer.pointers) == ((422, "not_verified"), ["/url"])
        assert "the old one stays" in answer.json["detail"]
        assert len(silent.requests) == 1
    assert (endpoint.refreshed().url, endpoint.state, endpoint.name != "moved") == ("http://127.0.0.1:9/old", "active", True)
    # With what goes along with it: the new URL's own token.
    moved = api.patch(path, {"url": echoing.url, "bearer_token": "new-token"})
    assert (moved.status, moved.json["url"], moved.json["state"]) == (200, echoing.url, "active")
    assert echoing.requests[0].headers["authorization"] == "Bearer new-token"
    assert api.patch(path, {"url": echoing.url}).status == 200
    assert len(echoing.requests) == 1


def test_an_unverified_endpoint_may_move_and_is_challenged_later(api: Api, echoing: Receiver) -> None:
    endpoint = make_endpoint(state=State.UNVERIFIED)
    moved = api.patch(f"endpoints/{endpoint.public_id}", {"url": echoing.url})
    assert (moved.json["url"], moved.json["state"], echoing.requests) == (echoing.url, "unverified", [])


@pytest.mark.usefixtures("unchallenged")
def test_nobody_is_challenged_where_the_operator_says_so(api: Api, receiver: Receiver) -> None:
    endpoint = make_endpoint()
    assert api.patch(f"endpoints/{endpoint.public_id}", {"url": receiver.url}).json["url"] == receiver.url
    assert receiver.requests == []


@pytest.mark.parametrize("origin", [Endpoint.Origin.ENVIRONMENT, Endpoint.Origin.INBOX])
def test_the_operators_url_is_changed_by_the_operator(origin: str, api: Api, echoing: Receiver) -> None:
    """Or a tenant could have a request sent to a private address."""
    endpoint = make_endpoint(origin=origin, url="http://127.0.0.1:8000/inbox/x")
    answer = api.patch(f"endpoints/{endpoint.public_id}", {"url": echoing.url})
    assert (answer.problem, answer.pointers, echoing.requests) == ((409, "operators_url"), ["/url"], [])
    assert api.patch(f"endpoints/{endpoint.public_id}", {"name": "mine"}).json["name"] == "mine"


# --- Acts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "moves", "stays"),
    [
        ("pause", {State.ACTIVE: State.PAUSED}, {State.PAUSED}),
        ("resume", {State.PAUSED: State.ACTIVE}, {State.ACTIVE}),
        ("disable", {State.ACTIVE: State.DISABLED, State.PAUSED: State.DISABLED}, {State.DISABLED}),
        ("enable", {State.DISABLED: State.ACTIVE}, {State.ACTIVE}),
        ("reset-breaker", {}, set(State)),
    ],
)
def test_an_act_moves_from_the_states_that_may_be_left_so(act: str, moves: dict[State, State], stays: set[State], api: Api) -> None:
    for state in State:
        if state == State.DELETED:
            continue
        AuditEntry.objects.all().delete()
        endpoint = make_endpoint(state=state)
        answer = api.post(f"endpoints/{endpoint.public_id}/{act}")
        if state in moves or state in stays:
            assert (answer.status, answer.json["state"]) == (200, moves.get(state, state))
            # What is so already is no deed.
            assert audit() == ([(f"endpoint.{act}", endpoint.public_id)] if state in moves else [])
        else:
            assert answer.problem == (409, "wrong_state")
            assert state.label.lower() in answer.json["detail"]
            assert endpoint.refreshed().state == state
            assert audit() == []


def test_an_act_says_who_did_it_and_why(api: Api) -> None:
    endpoint = make_endpoint()
    path = f"endpoints/{endpoint.public_id}"
    assert api.key
    assert api.post(f"{path}/pause", {"reason": "for lunch"}).json["state_reason"] == f"paused by key {api.key}: for lunch"
    assert api.post(f"{path}/resume").json["state_reason"] == ""
    assert api.post(f"{path}/disable").json["state_reason"] == f"disabled by key {api.key}"
    assert AuditEntry.objects.first().actor == f"key {api.key}"  # type: ignore[union-attr]
    for body, pointer in (({"reason": "x" * 151}, "/reason"), ({"why": "x"}, "/why"), ({"reason": "a\nb"}, "/reason"), ({"reason": 1}, "/reason")):
        assert api.post(f"{path}/disable", body).pointers == [pointer]
    assert api.post(f"{path}/enable", {"reason": "x"}).pointers == ["/reason"]


def test_a_breaker_is_reset(api: Api) -> None:
    health = make_health()
    answer = api.post(f"endpoints/{health.endpoint.public_id}/reset-breaker")
    assert answer.json["health"] == {"status": "recovering", "words": "recovering: 1 at once", "failing_since": None, "last_failure": ""}
    assert audit() == [("endpoint.reset-breaker", health.endpoint.public_id)]


@pytest.mark.parametrize("state", [State.ACTIVE, State.PAUSED, State.UNVERIFIED])
def test_a_test_event_tells_what_the_receiver_answers(state: State, api: Api, receiver: Receiver) -> None:
    endpoint = make_endpoint(url=receiver.url, state=state, bearer_token="a-token")
    receiver.answer = lambda handler, received: handler.reply(418, f"got {received.headers['authorization']}".encode())
    answer = api.post(f"endpoints/{endpoint.public_id}/test")
    assert (answer.status, answer.json["passed"], answer.json["status"]) == (200, False, 418)
    assert "a-token" not in answer.text
    assert json.loads(receiver.requests[0].body)["type"] == "jetrelay.test"
    assert not Delivery.objects.exists()
    receiver.answer = replying(204)
    assert api.post(f"endpoints/{endpoint.public_id}/test").json["passed"] is True
    assert endpoint.refreshed().state == state
    assert audit() == [("endpoint.test", endpoint.public_id)] * 2


# --- Secrets -------------------------------------------------------------------------------------------------------


def test_a_secret_is_rotated_with_an_overlap(api: Api) -> None:
    endpoint = make_endpoint()
    path, old = f"endpoints/{endpoint.public_id}", endpoint.secret
    rotated = api.post(f"{path}/rotate-secret", {"overlap_s": 60})
    assert set(rotated.json) == {"secret", "previous_secret_expires_at"}
    assert endpoint.refreshed().secrets_at(timezone.now()) == [rotated.json["secret"], old]
    assert api.post(f"{path}/rotate-secret").problem == (409, "not_rotatable")
    assert api.post(f"{path}/reveal-secret").json == rotated.json | {"previous_secret": old}
    ended = api.post(f"{path}/rotate-secret", {"overlap_s": 0})
    assert ended.json["previous_secret_expires_at"] is None
    assert endpoint.refreshed().secrets_at(timezone.now()) == [ended.json["secret"]]
    for overlap in (-1, 30 * 86_400 + 1, "60", 1.5, True, None):
        assert api.post(f"{path}/rotate-secret", {"overlap_s": overlap}).pointers == ["/overlap_s"]
    assert [action for action, _ in audit()] == ["endpoint.rotate-secret", "endpoint.reveal-secret", "endpoint.rotate-secret"]


def test_a_secret_is_revealed_to_who_may_see_it_and_that_is_written_down(api: Api) -> None:
    endpoint = make_endpoint(secret=SECRET, previous_secret=new_secret(), previous_secret_expires_at=timezone.now() - timedelta(hours=1))
    path = f"endpoints/{endpoint.public_id}/reveal-secret"
    assert api_of(without="secrets:read").post(path).problem == (403, "missing_scope")
    assert audit() == []
    # The one before has ended: it signs nothing any more.
    assert api.post(path).json == {"secret": SECRET, "previous_secret": None, "previous_secret_expires_at": None}
    (entry,) = AuditEntry.objects.all()
    assert (entry.action, entry.target, entry.address, entry.tenant) == ("endpoint.reveal-secret", endpoint.public_id, "127.0.0.1", endpoint.tenant)
    assert SECRET not in entry.detail


# --- Deleting ------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_deleted_and_what_it_was_owed_is_cancelled(api: Api) -> None:
    endpoint = make_subscription().endpoint
    owed = make_delivery(endpoint=endpoint)
    path = f"endpoints/{endpoint.public_id}"
    assert api.delete(path).json == {"id": endpoint.public_id, "cancelled": 1, "finished": True}
    assert (endpoint.refreshed().state, endpoint.secret, owed.refreshed().state) == (State.DELETED, "", Delivery.State.CANCELLED)
    assert (api.get(path).status, api.delete(path).status, api.get("subscriptions").ids) == (404, 404, [])
    # Its deliveries still show.
    assert api.get("deliveries").ids == [owed.public_id]
    assert audit() == [("endpoint.delete", endpoint.public_id)]


def test_the_operators_endpoint_stays(api: Api, settings: Settings) -> None:
    settings.WEBHOOK_URL = URL
    endpoint = make_endpoint(origin=Endpoint.Origin.ENVIRONMENT)
    assert api.delete(f"endpoints/{endpoint.public_id}").problem == (409, "not_deletable")
    assert (endpoint.refreshed().state, audit()) == (State.ACTIVE, [])
