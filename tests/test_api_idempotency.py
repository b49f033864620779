"""`Idempotency-Key`: a POST that comes again is answered as it was the first time, and done once."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from delivery import verification
from jetrelay.api import idempotency
from jetrelay.api.models import IdempotentRequest
from subscriptions import keys
from subscriptions.ids import from_public
from subscriptions.models import ApiKey, Endpoint, Source
from tests.api import Answer, Api, api_of
from tests.builders import make_delivery, make_endpoint, make_event, make_source, make_tenant
from tests.receiver import Receiver
from tests.threads import Elsewhere

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

KEY = {"Idempotency-Key": "once"}
MINUTE = timedelta(minutes=1)


@pytest.fixture
def api() -> Api:
    return api_of()


def make(api: Api, name: str = "mine", **headers: str) -> Answer:
    return api.post("sources", {"name": name}, headers=KEY | headers)


def only_row() -> IdempotentRequest:
    return IdempotentRequest.objects.get()


def test_a_request_that_comes_again_is_answered_and_not_done_again(api: Api) -> None:
    first, again = make(api), make(api)
    assert (first.status, "Idempotent-Replayed" in first.headers) == (201, False)
    assert (again.status, again.content, again.headers["Idempotent-Replayed"]) == (201, first.content, "true")
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert Source.objects.filter(name="mine").count() == 1


def test_requests_without_a_key_are_each_done(api: Api) -> None:
    endpoint = make_endpoint()
    secrets = {api.post(f"endpoints/{endpoint.public_id}/rotate-secret", {"overlap_s": 0}).json["secret"] for _ in range(2)}
    assert len(secrets) == 2
    assert not IdempotentRequest.objects.exists()


def test_one_key_is_for_one_request(api: Api) -> None:
    make(api)
    for other in (make(api, "another"), api.post("endpoints", {"name": "mine"}, headers=KEY), api.post("sources", b'{"name":"mine"}', headers=KEY)):
        assert other.problem == (422, "idempotency_key_reused")
    assert api.post("keys?x=1", {}, headers=KEY).problem == (400, "unknown_query")
    assert not Source.objects.filter(name="another").exists()


def test_other_methods_take_no_key(api: Api) -> None:
    id = make(api).json["id"]
    assert api.patch(f"sources/{id}", {"name": "other"}, headers=KEY).json["name"] == "other"
    assert api.get("sources", headers=KEY).status == 200


@pytest.mark.parametrize("key", ["", "é", "a\x7f", "a\tb", "x" * 256])
def test_a_key_is_printable_and_bounded(key: str, api: Api) -> None:
    assert api.post("sources", {"name": "mine"}, headers={"Idempotency-Key": key}).problem == (400, "invalid_idempotency_key")
    assert not Source.objects.filter(name="mine").exists()


@pytest.mark.parametrize("key", ["a b", "x" * 255, "8e03978e-40d5-43dd-bc93-6894a57f9324", '"quoted"', "~!"])
def test_a_key_may_be_what_clients_make(key: str, api: Api) -> None:
    for _ in range(2):
        assert api.post("sources", {"name": "mine"}, headers={"Idempotency-Key": key}).status == 201


def test_an_error_leaves_the_key_free(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(api, "").problem == (422, "invalid")
    assert api.post("sources", b"{", headers=KEY).problem == (400, "invalid_json")
    assert api.post(f"endpoints/ep_{'0' * 32}/pause", headers=KEY).status == 404

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr("jetrelay.api.sources._save", fail)
        assert make(api).status == 500
    assert not IdempotentRequest.objects.exists()
    assert make(api).status == 201


def test_each_tenant_has_its_own_keys(api: Api) -> None:
    other = api_of(make_tenant(slug="other"))
    mine, theirs = make(api), make(other)
    assert (mine.status, theirs.status) == (201, 201)
    assert mine.json["id"] != theirs.json["id"]
    assert "Idempotent-Replayed" not in theirs.headers
    # Nor does it tell that there is such a key.
    assert make(other, "third").problem == (422, "idempotency_key_reused")


def test_an_answer_is_given_to_the_key_that_asked_and_to_no_other(api: Api) -> None:
    first, other = make(api), api_of(scopes=["keys:write", "endpoints:write"])
    answer = make(other)
    assert "Idempotent-Replayed" not in answer.headers
    # It is a request of its own, which finds that the name is taken.
    assert (first.status, answer.problem) == (201, (422, "invalid"))
    assert make(api).content == first.content


def test_no_key_gets_the_text_of_a_key_that_another_one_made(api: Api) -> None:
    body = {"name": "broad", "scopes": ["secrets:read", "stream:write"]}
    made = api.post("keys", body, headers=KEY)
    narrow = api_of(scopes=["keys:write"])
    answer = narrow.post("keys", body, headers=KEY)
    assert answer.problem == (422, "invalid")
    assert made.json["key"] not in answer.text


def test_a_secret_that_was_answered_is_told_to_no_other_key(api: Api) -> None:
    path = f"endpoints/{make_endpoint().public_id}"
    bodies: dict[str, Any] = {"reveal-secret": {}, "rotate-secret": {"overlap_s": 0}}
    told = {api.post(f"{path}/{act}", body, headers={"Idempotency-Key": act}).json["secret"] for act, body in bodies.items()}
    narrow = api_of(scopes=["endpoints:write"])
    assert narrow.post(f"{path}/reveal-secret", {}, headers={"Idempotency-Key": "reveal-secret"}).problem == (403, "missing_scope")
    again = narrow.post(f"{path}/rotate-secret", {"overlap_s": 0}, headers={"Idempotency-Key": "rotate-secret"})
    assert again.json["secret"] not in told
    assert "Idempotent-Replayed" not in again.headers


@pytest.mark.parametrize("overlap_s", [0, 3600])
def test_the_key_that_takes_the_askers_place_gets_no_answer_and_does_nothing_twice(overlap_s: int, api: Api) -> None:
    assert api.key is not None
    first = make(api)
    new = Api(api.post(f"keys/{api.key.public_id}/rotate", {"overlap_s": overlap_s}).json["key"])
    answer = make(new)
    assert answer.problem == (409, "idempotency_key_of_another")
    assert first.json["id"] not in answer.text
    assert Source.objects.filter(name="mine").count() == 1
    assert new.post("sources", {"name": "next"}, headers={"Idempotency-Key": "another"}).status == 201
    keys.forget()
    assert make(api).status == (201 if overlap_s else 401)


def test_the_key_after_that_one_does_nothing_twice_either(api: Api) -> None:
    made = api
    make(made)
    for _ in range(3):
        assert made.key is not None
        rotated = made.post(f"keys/{made.key.public_id}/rotate", {"overlap_s": 0}).json
        made = Api(rotated["key"])
        made.key = ApiKey.objects.get(pk=from_public(rotated["id"]) or "")
    assert make(made).problem == (409, "idempotency_key_of_another")
    assert Source.objects.filter(name="mine").count() == 1


def test_what_an_older_version_has_kept_is_given_to_nobody(api: Api) -> None:
    make(api)
    IdempotentRequest.objects.update(asker=None)
    assert make(api).problem == (409, "idempotency_key_of_another")
    assert Source.objects.filter(name="mine").count() == 1


def test_a_key_that_may_do_less_by_now_gets_no_answer_from_before(api: Api) -> None:
    assert api.key is not None
    make(api)
    ApiKey.objects.filter(pk=api.key.pk).update(scopes=["endpoints:write"])
    keys.forget()
    assert make(api).problem == (422, "idempotency_key_reused")


def test_a_request_that_is_under_way_is_waited_for(api: Api) -> None:
    first = make(api)
    IdempotentRequest.objects.update(status=None, answer="", taken_until=timezone.now() + MINUTE)
    answer = make(api)
    assert (answer.problem, answer.headers["Retry-After"]) == ((409, "request_under_way"), "1")
    assert make(api, "another").problem == (422, "idempotency_key_reused")
    assert Source.objects.filter(name="mine").values_list("pk", flat=True).count() == 1
    assert first.status == 201


@pytest.mark.parametrize("ends", [-timedelta(seconds=1), timedelta(hours=1)], ids=["in the past", "later than anybody takes it for"])
def test_what_was_forsaken_is_done_after_a_minute(ends: timedelta, api: Api) -> None:
    make(api)
    # Whoever did it died before its commit.
    Source.objects.filter(name="mine").delete()
    IdempotentRequest.objects.update(status=None, answer="", taken_until=timezone.now() + ends)
    again = make(api)
    assert (again.status, "Idempotent-Replayed" in again.headers) == (201, False)
    assert make(api).headers["Idempotent-Replayed"] == "true"


def test_a_forsaken_request_is_taken_over_by_one(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    make(api)
    Source.objects.filter(name="mine").delete()
    IdempotentRequest.objects.update(status=None, answer="", taken_until=timezone.now() - timedelta(seconds=1))
    seen: list[tuple[int, str]] = []
    save = Source.save

    def meanwhile(source: Source, *args: Any, **kwargs: Any) -> None:
        if not seen:
            seen.append(make(Api(api.text)).problem)
        save(source, *args, **kwargs)

    monkeypatch.setattr(Source, "save", meanwhile)
    assert make(api).status == 201
    assert seen == [(409, "request_under_way")]


def test_an_answer_is_kept_for_a_day(api: Api) -> None:
    make(api)
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(hours=23, minutes=59))
    assert make(api).headers["Idempotent-Replayed"] == "true"
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(hours=24, minutes=1))
    # It is done again: this name is taken.
    assert make(api).problem == (422, "invalid")


def test_requests_sweep_what_is_old(api: Api) -> None:
    tenant, old = make_tenant(slug="other"), timezone.now() - timedelta(days=2)
    IdempotentRequest.objects.bulk_create(IdempotentRequest(tenant=tenant, key=str(number), fingerprint=b"x", created_at=old) for number in range(25))
    make(api)
    assert IdempotentRequest.objects.count() == 1 + 25 - idempotency._SWEPT


def test_a_secret_in_an_answer_is_encrypted_at_rest_and_shown_again(api: Api) -> None:
    body = {"name": "x", "scopes": ["events:read"]}
    first = api.post("keys", body, headers=KEY)
    with connection.cursor() as cursor:
        cursor.execute("SELECT answer FROM api_idempotentrequest")
        ((kept,),) = cursor.fetchall()
    assert first.json["key"] not in kept
    assert first.json["id"] not in kept
    assert json.loads(only_row().answer)["key"] == first.json["key"]
    assert api.post("keys", body, headers=KEY).json == first.json
    assert ApiKey.objects.count() == 2


def test_every_kind_of_post_may_have_a_key(api: Api, receiver: Receiver) -> None:
    make_source()
    event = make_event()
    endpoint = make_endpoint(url=receiver.url)
    delivery = make_delivery(endpoint=endpoint, event=event, state=2)
    path = f"endpoints/{endpoint.public_id}"
    posts: list[tuple[str, Any]] = [
        ("endpoints", {"url": receiver.url}),
        ("subscriptions", {"endpoint": endpoint.public_id, "types": ["a"]}),
        ("subscriptions/preview", {"types": ["a"]}),
        ("replays", {"state": "dead"}),
        ("replays/preview", {"state": "dead"}),
        (f"deliveries/{delivery.public_id}/replay", {}),
        (f"events/{event.public_id}/replay", {}),
        (f"{path}/test", {}),
        (f"{path}/pause", {}),
        (f"{path}/rotate-secret", {}),
    ]
    for number, (where, body) in enumerate(posts):
        key = {"Idempotency-Key": f"number {number}"}
        first, again = (api.post(where, body, headers=key) for _ in range(2))
        assert (first.status // 100, where) == (2, where)
        assert (again.status, again.content, again.headers["Idempotent-Replayed"]) == (first.status, first.content, "true")
    # A challenge and a test event: each was sent once.
    assert len(receiver.requests) == 2


def test_an_endpoint_that_was_made_is_answered_with_what_its_challenge_gave(api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    first = api.post("endpoints", {"url": receiver.url}, headers=KEY)
    assert first.json["verification"]["passed"] is False
    assert api.post("endpoints", {"url": receiver.url}, headers=KEY).content == first.content

    def die(*_: Any) -> None:
        raise RuntimeError("the process ends while it asks the receiver")

    monkeypatch.setattr(verification, "verify", die)
    other = {"Idempotency-Key": "twice"}
    assert api.post("endpoints", {"url": receiver.url}, headers=other).status == 500
    # It was made and committed: the endpoint is there, its secret is shown, and nobody makes a second one.
    again = api.post("endpoints", {"url": receiver.url}, headers=other)
    assert (again.status, again.json["verification"], again.json["state"]) == (201, None, "unverified")
    assert Endpoint.objects.filter(pk__isnull=False).count() == 2
    assert again.json["secret"] == Endpoint.objects.latest("id").secret


def test_posting_events_has_its_own_way(api: Api) -> None:
    """There the key is the event's id, for as long as the event is kept."""
    for _ in range(2):
        assert api.post("events", {"type": "a", "data": 1}, headers=KEY).status == 202
    assert not IdempotentRequest.objects.exists()


# --- At the same time ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_requests_at_the_same_time_are_done_once(api: Api, receiver: Receiver) -> None:
    come, go = threading.Event(), threading.Event()

    def answer(handler: Any, _: Any) -> None:
        come.set()
        go.wait(30)
        handler.reply(200)

    receiver.answer = answer
    endpoint = make_endpoint(url=receiver.url)
    path = f"endpoints/{endpoint.public_id}/test"
    first = Elsewhere(lambda: Api(api.text).post(path, headers=KEY))
    assert come.wait(30)
    assert Elsewhere(lambda: Api(api.text).post(path, headers=KEY)).result().problem == (409, "request_under_way")
    go.set()
    done = first.result()
    again = api.post(path, headers=KEY)
    assert (done.status, again.content, again.headers["Idempotent-Replayed"]) == (200, done.content, "true")
    assert len(receiver.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_many_requests_at_the_same_time_make_one_row(api: Api) -> None:
    start = threading.Barrier(6)

    def post() -> Answer:
        start.wait(30)
        return Api(api.text).post("sources", {"name": "mine"}, headers=KEY)

    answers = [call.result() for call in [Elsewhere(post) for _ in range(6)]]
    made = {answer.content for answer in answers if answer.status == 201}
    assert len(made) == 1
    assert {answer.status for answer in answers} <= {201, 409}
    assert Source.objects.filter(name="mine").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_requests_that_come_at_once_one_is_done(api: Api) -> None:
    for number in range(12):
        together = threading.Barrier(2)

        def ask(name: str = f"round {number}", together: threading.Barrier = together) -> int:
            together.wait(30)
            return Api(api.text).post("sources", {"name": name}, headers={"Idempotency-Key": name}).status

        answers = [Elsewhere(ask) for _ in range(2)]
        assert {answer.result() for answer in answers} <= {201, 409}
        assert Source.objects.filter(name=f"round {number}").count() == 1
