import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from standardwebhooks import Webhook

from jetrelay.inbox import receive
from jetrelay.inbox.models import Inbox, InboxMessage
from subscriptions.models import Endpoint, new_secret
from tests.builders import make_endpoint

pytestmark = pytest.mark.django_db

BODY = json.dumps({"did": "did:plc:abc", "kind": "commit", "commit": {"collection": "app.bsky.feed.post", "operation": "create"}})


@pytest.fixture
def inbox() -> Inbox:
    return Inbox.objects.create(token="tok", endpoint=make_endpoint(origin=Endpoint.Origin.INBOX, bearer_token="very-secret-token"))


def post(client: Client, inbox: Inbox, body: str | bytes = BODY, *, signed: str = BODY, secret: str = "", at: Any = None, **headers: Any) -> Any:
    """POST as Jetrelay would, signed by the outside judge's library."""
    at = at or datetime.now(UTC)
    signature = Webhook(secret or inbox.endpoint.secret).sign("msg_1", at, signed)
    lines = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature} | headers
    return client.post(f"/inbox/{inbox.token}", body, content_type="application/json", headers=lines)


def test_it_accepts_what_is_signed_and_shows_it(client: Client, inbox: Inbox) -> None:
    response = post(client, inbox)
    assert (response.status_code, response.content) == (200, b"ok")
    html = client.get("/inbox/tok").content.decode()
    for shown in ("Verified", "app.bsky.feed.post", "create", "did:plc:abc", "msg_1"):
        assert shown in html
    assert InboxMessage.objects.get().body == BODY.encode()


def test_it_accepts_the_secret_before_a_rotation(client: Client, inbox: Inbox) -> None:
    old, endpoint = inbox.endpoint.secret, inbox.endpoint
    endpoint.previous_secret, endpoint.secret = old, new_secret()
    endpoint.previous_secret_expires_at = datetime.now(UTC) + timedelta(hours=1)
    endpoint.save()
    assert post(client, inbox, secret=old).status_code == 200


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({"signed": "other"}, "signature"),
        ({"secret": new_secret()}, "signature"),
        ({"at": datetime.now(UTC) - timedelta(minutes=10)}, "timestamp"),
        ({"webhook-signature": ""}, "webhook-signature"),
        ({"webhook-timestamp": "soon"}, "timestamp"),
    ],
)
def test_it_refuses_what_does_not_verify_and_keeps_it_to_look_at(client: Client, inbox: Inbox, over: dict[str, Any], reason: str) -> None:
    response = post(client, inbox, **over)
    assert response.status_code == 401
    assert reason in response.content.decode()
    assert not InboxMessage.objects.get().verified
    assert "Not verified" in client.get("/inbox/tok").content.decode()


def test_it_refuses_bodies_past_the_limit(client: Client, inbox: Inbox) -> None:
    assert post(client, inbox, b"x" * (1024 * 1024 + 1)).status_code == 413
    assert not InboxMessage.objects.exists()
    assert post(client, inbox, "x" * 1024 * 1024, signed="x" * 1024 * 1024).status_code == 200


@pytest.mark.parametrize(
    ("sent", "said"), [("Bearer very-secret-token", "the right token"), ("Bearer other-secret", "not this endpoint"), ("Basic c2VjcmV0", "not this endpoint")]
)
def test_it_never_stores_the_bearer_token(client: Client, inbox: Inbox, sent: str, said: str) -> None:
    post(client, inbox, Authorization=sent, Cookie="session=secret")
    stored = json.dumps(InboxMessage.objects.get().headers)
    assert said in stored
    assert sent not in stored
    assert "session=secret" not in stored
    assert "bearer token present" in client.get("/inbox/tok").content.decode()


def test_it_marks_repeats_of_a_webhook_id(client: Client, inbox: Inbox) -> None:
    for _ in range(2):
        post(client, inbox)
    post(client, inbox, **{"webhook-id": "msg_2"})
    assert client.get("/inbox/tok").content.decode().count("Repeat") == 1


def test_it_keeps_the_newest(client: Client, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "KEPT", 3)
    ids = [InboxMessage.objects.create(inbox=inbox, verified=True, verdict="", body=b"").pk for _ in range(5)]
    receive.forget_oldest(inbox)
    assert sorted(inbox.messages.values_list("pk", flat=True)) == ids[2:]


def test_it_forgets_the_oldest_as_messages_come(client: Client, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "KEPT", 5)
    for _ in range(41):
        post(client, inbox)
    inbox.refresh_from_db()
    assert inbox.received == 41
    assert inbox.messages.count() <= 5 + receive.FORGET_EVERY


def test_it_does_not_let_the_address_out(client: Client, inbox: Inbox) -> None:
    response = client.get("/inbox/tok")
    assert response["Referrer-Policy"] == "no-referrer"
    assert "noindex" in response["X-Robots-Tag"]
    assert response["Content-Security-Policy"].startswith("default-src 'self';")


def test_it_sends_the_messages_again_only_when_something_came(client: Client, inbox: Inbox) -> None:
    assert client.get("/inbox/tok/messages/?received=0").status_code == 204
    post(client, inbox)
    html = client.get("/inbox/tok/messages/?received=0").content.decode()
    assert 'hx-get="/inbox/tok/messages/?received=1"' in html
    assert "<html" not in html


def test_it_says_what_to_do_while_it_is_empty(client: Client, inbox: Inbox) -> None:
    assert "Nothing has arrived yet" in client.get("/inbox/tok").content.decode()


@pytest.mark.parametrize(
    "body", [b"\xff\x00\xfe", b"", b"[]", b'{"commit": 7, "did": {}}', b'{"did": "\\ud800", "commit": {"collection": "<script>alert(1)</script>"}}']
)
def test_it_shows_any_bytes(client: Client, inbox: Inbox, body: bytes) -> None:
    assert post(client, inbox, body).status_code == 401
    html = client.get("/inbox/tok").content.decode()
    assert "<script>alert" not in html


def test_it_stores_odd_headers(client: Client, inbox: Inbox) -> None:
    post(client, inbox, **{"webhook-id": "é\0" * 100, "X-Odd": "\xff"})
    assert len(InboxMessage.objects.get().webhook_id) == 100


def test_it_knows_no_other_token_and_no_other_method(client: Client, inbox: Inbox) -> None:
    assert client.get("/inbox/other").status_code == 404
    assert client.post("/inbox/other", b"x", content_type="application/json").status_code == 404
    assert client.put("/inbox/tok").status_code == 405


def test_it_takes_few_queries(client: Client, inbox: Inbox, django_assert_max_num_queries: Any) -> None:
    inbox.endpoint.refresh_from_db()
    Inbox.objects.update(received=1)
    with django_assert_max_num_queries(5):
        post(client, inbox)
    with django_assert_max_num_queries(2):
        client.get("/inbox/tok")


def test_it_is_gone_with_its_endpoint(client: Client, inbox: Inbox) -> None:
    Endpoint.objects.update(state=Endpoint.State.DELETED)
    assert post(client, inbox).status_code == 404
    assert client.get("/inbox/tok").status_code == 404
