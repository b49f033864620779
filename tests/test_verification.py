"""Challenges and test events, against a real receiver."""

import copy
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from delivery import signing, verification
from delivery.models import Attempt, Delivery
from delivery.verification import RETRY_AFTER_S, NotAsked, challenge, check_move, needs_verification, send_test, verify
from subscriptions.models import AuditEntry, Endpoint
from tests.api import api_of
from tests.builders import make_endpoint, make_tenant
from tests.receiver import Handler, Received, Receiver
from tests.threads import Elsewhere

pytestmark = pytest.mark.django_db

UNVERIFIED, ACTIVE = Endpoint.State.UNVERIFIED, Endpoint.State.ACTIVE
TOKEN, KEY = "a-very-secret-token", "an-extra-secret-key"


def echo_word(handler: Handler, received: Received) -> None:
    handler.reply(200, json.loads(received.body)["challenge"].encode())


def echo_json(handler: Handler, received: Received) -> None:
    handler.reply(202, json.dumps({"ok": True, "challenge": json.loads(received.body)["challenge"]}).encode())


def echo_everything(handler: Handler, received: Received) -> None:
    handler.reply(200, json.dumps(dict(received.headers)).encode())


def answering(status: int, body: bytes) -> Any:
    return lambda handler, _: handler.reply(status, body)


def make_unverified(receiver: Receiver, **over: Any) -> Endpoint:
    return make_endpoint(**{"url": receiver.url, "state": UNVERIFIED} | over)


@pytest.mark.parametrize("answer", [echo_word, echo_json])
def test_it_activates_an_endpoint_that_answers_its_challenge(answer: Any, receiver: Receiver) -> None:
    receiver.answer = answer
    endpoint = make_unverified(receiver)
    outcome = verify(endpoint)
    assert (outcome.passed, outcome.words) == (True, "The challenge was answered. The endpoint is active now.")
    assert endpoint.refreshed().state == ACTIVE


@pytest.mark.parametrize("scheme", list(signing.Scheme))
def test_it_sends_a_challenge_as_a_delivery_would_go(scheme: signing.Scheme, receiver: Receiver) -> None:
    endpoint = make_unverified(receiver, signature_scheme=scheme.value, bearer_token=TOKEN, extra_headers=f"X-Key: {KEY}")
    challenge(endpoint)
    (received,) = receiver.requests
    assert json.loads(received.body).keys() == {"type", "challenge"}
    assert json.loads(received.body)["type"] == "endpoint.verification"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"].startswith("Jetrelay/")
    assert (received.headers["authorization"], received.headers["x-key"]) == (f"Bearer {TOKEN}", KEY)
    now = int(received.headers.get("webhook-timestamp") or received.headers.get("x-webhook-timestamp") or 0)
    signing.verify([endpoint.secret], received.headers, received.body, now, scheme)


def test_it_never_sends_the_same_challenge_twice(receiver: Receiver) -> None:
    endpoint = make_unverified(receiver)
    challenge(endpoint)
    challenge(endpoint)
    assert len({json.loads(received.body)["challenge"] for received in receiver.requests}) == 2
    assert len({received.webhook_id for received in receiver.requests}) == 2


@pytest.mark.parametrize(
    ("status", "body", "came"),
    [
        (404, b"no such page", "The answer was 404 Not Found, “no such page”. Nothing answers at this path"),
        (200, b"", "The answer was 200 OK with an empty body."),
        (200, b'{"challenge": 1}', 'The answer was 200 OK, “{"challenge": 1}”.'),
        (200, b"[" * 3000, "The answer was 200 OK, “" + "[" * 200 + "…”."),
        (302, b"", "The answer was 302 Found with an empty body. Redirects are never followed"),
        (200, b"a\x00b\n\xffc\xe2\x80\xae", "The answer was 200 OK, “a b \ufffdc”."),
    ],
)
def test_it_says_what_was_expected_and_what_came(status: int, body: bytes, came: str, receiver: Receiver) -> None:
    receiver.answer = answering(status, body)
    endpoint = make_unverified(receiver)
    outcome = verify(endpoint)
    assert not outcome.passed
    assert outcome.words.startswith('Expected a 2xx answer with the challenge as its body, or as {"challenge": "…"} in JSON. ')
    assert came in outcome.words
    assert outcome.status == status
    assert endpoint.refreshed().state == UNVERIFIED


def test_it_takes_no_echo_with_an_error_for_an_answer(receiver: Receiver) -> None:
    receiver.answer = lambda handler, received: handler.reply(500, json.loads(received.body)["challenge"].encode())
    assert not verify(make_unverified(receiver)).passed


def test_it_names_what_kept_an_answer_from_coming(receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.abort()
    outcome = challenge(make_unverified(receiver))
    assert (outcome.passed, outcome.status, outcome.error) == (False, None, "reset")
    assert "No answer came: connection broken" in outcome.words


def test_it_goes_through_the_same_door_as_deliveries(settings: Settings, receiver: Receiver) -> None:
    settings.JETRELAY_ALLOWED_NETWORKS = []
    for outcome in (challenge(make_unverified(receiver)), send_test(make_endpoint(url=receiver.url))):
        assert outcome.error == "refused_address"
        assert "JETRELAY_ALLOWED_NETWORKS can open its network" in outcome.words
    assert receiver.requests == []


def test_it_reaches_the_operators_own_url(settings: Settings, receiver: Receiver) -> None:
    settings.JETRELAY_ALLOWED_NETWORKS = []
    settings.WEBHOOK_URL = receiver.url
    assert send_test(make_endpoint(url=receiver.url, origin="environment")).passed


@pytest.mark.parametrize("timeout_s", [0.2, 300])
def test_it_waits_no_longer_than_the_endpoint_would_or_than_a_person_would(timeout_s: float, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MAX_WAIT_S", 0.3)
    receiver.answer = lambda handler, _: handler.reply(200 if receiver.closing.wait(60) else 500)
    assert send_test(make_endpoint(url=receiver.url, timeout_s=timeout_s)).error == "timeout"


def test_it_challenges_a_url_that_is_to_change_before_the_change_is_made(receiver: Receiver) -> None:
    receiver.answer = echo_word
    endpoint = make_endpoint(url="https://before.example/")
    endpoint.url = receiver.url
    assert verify(endpoint).passed
    assert (endpoint.refreshed().url, endpoint.state) == ("https://before.example/", ACTIVE)


def test_it_does_not_activate_what_was_changed_while_it_answered(receiver: Receiver) -> None:
    receiver.answer = echo_word
    endpoint = make_unverified(receiver)
    Endpoint.objects.filter(pk=endpoint.pk).update(url="https://elsewhere.example/")
    outcome = verify(endpoint)
    assert (outcome.passed, outcome.words) == (False, "The challenge was answered, but the endpoint was changed meanwhile: try again.")
    assert endpoint.refreshed().state == UNVERIFIED


@pytest.mark.parametrize("state", [Endpoint.State.PAUSED, Endpoint.State.DISABLED])
def test_it_leaves_endpoints_held_that_people_hold(state: Endpoint.State, receiver: Receiver) -> None:
    receiver.answer = echo_word
    endpoint = make_unverified(receiver, state=state)
    assert verify(endpoint).passed
    assert endpoint.refreshed().state == state


def test_it_sends_nothing_to_what_is_deleted_or_cannot_be_signed_for(receiver: Receiver) -> None:
    deleted = make_endpoint(url=receiver.url, state=Endpoint.State.DELETED, secret="")
    broken = make_endpoint(url=receiver.url, secret="whsec_a")
    assert send_test(deleted).words == "Nothing was sent: the endpoint is deleted."
    assert challenge(broken).words == "Nothing was sent: the secret is not base64."
    assert receiver.requests == []


# --- Test events -------------------------------------------------------------------------------------------------------


def test_it_sends_a_test_event_and_says_how_it_went(receiver: Receiver) -> None:
    receiver.answer = answering(201, b"thank you")
    endpoint = make_endpoint(url=receiver.url)
    outcome = send_test(endpoint)
    assert (outcome.passed, outcome.status, outcome.answer) == (True, 201, "thank you")
    assert outcome.words.startswith("The answer was 201 Created, “thank you”. ")
    assert "done after " in outcome.words
    assert outcome.timings
    (received,) = receiver.requests
    event = json.loads(received.body)
    assert (event["type"], event["data"]["endpoint"]) == ("jetrelay.test", endpoint.public_id)
    signing.verify([endpoint.secret], received.headers, received.body, int(received.headers["webhook-timestamp"]))


def test_it_stores_nothing_of_a_test_event(receiver: Receiver) -> None:
    send_test(make_endpoint(url=receiver.url))
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()


def test_it_fails_a_test_event_that_is_not_accepted(receiver: Receiver) -> None:
    receiver.answer = answering(503, b"")
    outcome = send_test(make_endpoint(url=receiver.url))
    assert not outcome.passed
    assert "503 Service Unavailable" in outcome.words


@pytest.mark.parametrize("send", [challenge, send_test])
def test_it_takes_tokens_out_of_answers_that_echo_them(send: Any, receiver: Receiver) -> None:
    receiver.answer = echo_everything
    outcome = send(make_endpoint(url=receiver.url, bearer_token=TOKEN, extra_headers=f"A-Key: Key {KEY}"))
    assert TOKEN not in f"{outcome}"
    assert KEY not in f"{outcome}"
    assert "Bearer ***" in outcome.answer or "***" in outcome.words


@pytest.mark.parametrize("required", [True, False])
def test_the_operator_decides_whether_others_have_to_answer(required: bool, settings: Settings) -> None:
    settings.JETRELAY_VERIFY_ENDPOINTS = required
    assert needs_verification() is required


# --- a share for each tenant -----------------------------------------------------------------------------------------


@pytest.fixture
def waiting(hanging: Receiver) -> Iterator[Endpoint]:
    """An endpoint of one tenant, whose tests wait for their answers: as many as one may have."""
    endpoint = make_endpoint(url=hanging.url, state=UNVERIFIED, tenant=make_tenant(slug="greedy"))
    endpoint.tenant  # noqa: B018 - read here, for the threads have connections of their own
    tests = [Elsewhere(lambda: challenge(endpoint)) for _ in range(10)]
    while sum(test.running for test in tests) > 2:
        threading.Event().wait(0.001)
    yield endpoint
    hanging.closing.set()
    found = [test.result() for test in tests]
    assert sum(outcome.busy for outcome in found) == 8


def test_one_tenant_has_a_part_of_the_tests_that_wait_and_hears_of_it(waiting: Endpoint, receiver: Receiver) -> None:
    refused = challenge(waiting)
    assert (refused.passed, refused.busy) == (False, True)
    assert "Nothing was sent" in refused.words
    moved = copy.copy(waiting)
    moved.url, waiting.state = receiver.url, ACTIVE
    with pytest.raises(NotAsked):
        check_move(waiting, moved)
    receiver.answer = echo_word
    assert challenge(make_unverified(receiver, tenant=make_tenant(slug="modest"))).passed


def test_the_api_says_when_to_try_again(waiting: Endpoint, fresh_api: None) -> None:
    api = api_of(waiting.tenant)
    for act in ("verify", "test"):
        answer = api.post(f"endpoints/{waiting.public_id}/{act}")
        assert (answer.problem, answer.headers["Retry-After"]) == ((503, "busy"), str(RETRY_AFTER_S))
    Endpoint.objects.filter(pk=waiting.pk).update(state=ACTIVE)
    answer = api.request("PATCH", f"endpoints/{waiting.public_id}", {"url": "http://127.0.0.1:9/other"})
    assert (answer.problem, answer.headers["Retry-After"]) == ((503, "busy"), str(RETRY_AFTER_S))
    assert not AuditEntry.objects.exists()
