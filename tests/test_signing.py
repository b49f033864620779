"""Signatures, judged by the published vectors and by the `standardwebhooks` and `svix` packages."""

import hashlib
import hmac
import json
import secrets
from base64 import b64encode
from time import time
from typing import Any

import pytest
from django.test import Client
from standardwebhooks import Webhook, WebhookVerificationError
from svix.webhooks import Webhook as SvixWebhook

from delivery.signing import TOLERANCE_S, InvalidSignature, Scheme, Signer, key, sign, verify
from jetrelay.inbox.models import Inbox, InboxMessage
from subscriptions.models import Endpoint, new_secret
from tests.builders import make_endpoint
from tests.whole import SHARED

VECTORS = SHARED.parent / "signatures" / "published_vectors.json"

# The example of the Standard Webhooks libraries (libraries/javascript/src/webhook.test.ts).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed(secrets: list[str], body: bytes = BODY, webhook_id: str = ID, timestamp: int = TIMESTAMP) -> dict[str, str]:
    signature = sign([key(secret) for secret in secrets], webhook_id, timestamp, body)
    return {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def published(provider: str) -> list[dict[str, Any]]:
    if not VECTORS.exists():
        pytest.skip("wants the published vectors, which are not part of the project")
    return [vector for vector in json.loads(VECTORS.read_text()) if vector["provider"] == provider]


# --- signing -------------------------------------------------------------------------------------------------------


def test_it_makes_the_signature_of_the_reference_libraries() -> None:
    assert sign([key(SECRET)], ID, TIMESTAMP, BODY) == SIGNATURE


@pytest.mark.parametrize("provider", ["standard_webhooks", "svix"])
def test_it_makes_every_published_signature(provider: str) -> None:
    vectors = published(provider)
    assert vectors or provider == "svix"
    for vector in vectors:
        headers = {name.lower().replace("svix-", "webhook-"): value for name, value in vector["headers"].items()}
        made = sign([key(vector["secret"])], headers["webhook-id"], int(headers["webhook-timestamp"]), vector["body"].encode())
        assert made in headers["webhook-signature"].split(" "), vector["source"]
        verify([vector["secret"]], headers, vector["body"].encode(), vector["now"])


@pytest.mark.parametrize(
    "body",
    ["", "{}", '{"text": "Ein Wörtchen, 日本語, 🎈, שלום"}', "a.b.c\r\n\t", "x" * 100_000],
    ids=["empty", "small", "unicode", "dots", "large"],
)
def test_it_is_understood_by_the_standard_library_of_receivers(body: str) -> None:
    secret = new_secret()
    headers = signed([secret], body.encode(), "evt_0197", int(time()))
    Webhook(secret).verify(body, headers, json_parse=False)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_it_takes_secrets_of_every_allowed_size(size: int) -> None:
    secret = "whsec_" + b64encode(secrets.token_bytes(size)).decode()
    Webhook(secret).verify(BODY, signed([secret], timestamp=int(time())))


def test_it_understands_what_the_standard_library_signs() -> None:
    from datetime import UTC, datetime

    secret, now = new_secret(), int(time())
    signature = Webhook(secret).sign(ID, datetime.fromtimestamp(now, UTC), BODY.decode())
    verify([secret], {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": signature}, BODY, now)


def test_it_signs_once_for_each_of_two_secrets() -> None:
    new, old = new_secret(), new_secret()
    headers = signed([new, old], timestamp=int(time()))
    assert headers["webhook-signature"].split(" ") == [
        signed([secret], timestamp=int(headers["webhook-timestamp"]))["webhook-signature"] for secret in (new, old)
    ]
    for secret in (new, old):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


def test_it_signs_bytes_that_are_not_text() -> None:
    body = bytes(range(256))
    verify([SECRET], signed([SECRET], body), body, TIMESTAMP)
    with pytest.raises(InvalidSignature):
        verify([SECRET], signed([SECRET], body), body[::-1], TIMESTAMP)


def test_it_reads_a_secret_with_the_prefix_and_without() -> None:
    assert key(SECRET) == key(SECRET.removeprefix("whsec_"))
    assert len(key(SECRET)) == 24


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_abc", "hunter2!", "whsec_ü"])
def test_it_says_when_a_secret_is_not_base64(secret: str) -> None:
    with pytest.raises(ValueError):
        key(secret)


# --- verifying -----------------------------------------------------------------------------------------------------


def test_it_accepts_what_it_signed() -> None:
    verify([SECRET], signed([SECRET]), BODY, TIMESTAMP)


def test_it_accepts_any_case_of_header_names() -> None:
    verify([SECRET], {name.title(): value for name, value in signed([SECRET]).items()}, BODY, TIMESTAMP)


def test_it_accepts_any_of_several_secrets() -> None:
    verify([new_secret(), SECRET], signed([SECRET]), BODY, TIMESTAMP)
    verify([SECRET], signed([new_secret(), SECRET]), BODY, TIMESTAMP)


@pytest.mark.parametrize("signature", ["v1a,AAAA v2,BBBB " + SIGNATURE, SIGNATURE + " garbage", "nonsense " + SIGNATURE])
def test_it_passes_over_signatures_it_does_not_know(signature: str) -> None:
    verify([SECRET], signed([SECRET]) | {"webhook-signature": signature}, BODY, TIMESTAMP)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": ID + "x"},
        {"webhook-id": ID.lower()},
        {"webhook-timestamp": str(TIMESTAMP + 1)},
        {"webhook-signature": SIGNATURE.replace("v1,", "v2,")},
        {"webhook-signature": SIGNATURE.removeprefix("v1,")},
        {"webhook-signature": SIGNATURE[:-2]},
        {"webhook-signature": SIGNATURE.replace("g0hM", "G0hM")},
        {"webhook-signature": SIGNATURE.lower()},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "ü" * 50},
    ],
    ids=repr,
)
def test_it_refuses_a_changed_header(change: dict[str, str]) -> None:
    with pytest.raises(InvalidSignature, match="matches none"):
        verify([SECRET], signed([SECRET]) | change, BODY, TIMESTAMP)


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY[:-1], BODY.replace(b"2", b"3", 1), BODY.upper()])
def test_it_refuses_a_changed_body(body: bytes) -> None:
    with pytest.raises(InvalidSignature, match="matches none"):
        verify([SECRET], signed([SECRET]), body, TIMESTAMP)


def test_it_refuses_another_secret() -> None:
    with pytest.raises(InvalidSignature, match="matches none"):
        verify([new_secret()], signed([SECRET]), BODY, TIMESTAMP)


def test_it_refuses_everything_when_there_is_no_secret() -> None:
    with pytest.raises(InvalidSignature):
        verify([], signed([SECRET]), BODY, TIMESTAMP)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, ""])
def test_it_names_a_missing_header(name: str, value: str | None) -> None:
    headers = {other: given for other, given in signed([SECRET]).items() if other != name}
    with pytest.raises(InvalidSignature, match=f"missing header: {name}"):
        verify([SECRET], headers if value is None else headers | {name: value}, BODY, TIMESTAMP)


@pytest.mark.parametrize("timestamp", ["soon", "-1", "1.5", "1e9", "1614265330 ", "9" * 16, "١٢٣"])
def test_it_refuses_a_timestamp_that_is_no_number_of_seconds(timestamp: str) -> None:
    with pytest.raises(InvalidSignature, match="not a number of seconds"):
        verify([SECRET], signed([SECRET]) | {"webhook-timestamp": timestamp}, BODY, TIMESTAMP)


@pytest.mark.parametrize("off_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1, 10**9])
def test_it_refuses_a_request_of_another_time(off_s: int) -> None:
    with pytest.raises(InvalidSignature, match="300 s away"):
        verify([SECRET], signed([SECRET]), BODY, TIMESTAMP + off_s)


@pytest.mark.parametrize("off_s", [-TOLERANCE_S, TOLERANCE_S])
def test_it_accepts_a_clock_that_is_a_little_off(off_s: int) -> None:
    verify([SECRET], signed([SECRET]), BODY, TIMESTAMP + off_s)


# --- schemes -------------------------------------------------------------------------------------------------------

NEW, OLD = new_secret(), new_secret()


def lines(scheme: Scheme, secrets: list[str], body: bytes = BODY, timestamp: int = TIMESTAMP, **over: Any) -> dict[str, str]:
    """The headers of one request, by name."""
    return dict(line.split(": ", 1) for line in Signer(scheme, secrets, **over).headers(ID, timestamp, body))


def mac(secret: str, content: bytes) -> str:
    """Reckoned as a receiver does that was given the secret's text."""
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def test_it_has_the_schemes_that_an_endpoint_may_choose() -> None:
    assert {scheme.value for scheme in Scheme} == set(Endpoint.SignatureScheme.values)


def test_it_writes_the_headers_of_each_scheme() -> None:
    assert lines(Scheme.STANDARD, [SECRET]) == {"webhook-id": ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}
    assert lines(Scheme.TIMESTAMPED, [NEW]) == {
        "webhook-id": ID,
        "X-Webhook-Timestamp": str(TIMESTAMP),
        "X-Webhook-Signature": "v1=" + mac(NEW, f"{TIMESTAMP}.".encode() + BODY),
    }
    assert lines(Scheme.HOOKSTREAM, [NEW]) == {"webhook-id": ID, "X-Hookstream-Signature": "sha256=" + mac(NEW, BODY)}


@pytest.mark.parametrize("judge", [Webhook, SvixWebhook])
@pytest.mark.parametrize("body", [b"{}", BODY, '{"text": "Wörtchen 🎈"}'.encode()])
def test_it_is_understood_by_receivers_with_either_secret_during_an_overlap(judge: Any, body: bytes) -> None:
    now = int(time())
    headers = lines(Scheme.STANDARD, [NEW, OLD], body, now, overlap_ends=now + 3600)
    for secret in (NEW, OLD):
        judge(secret).verify(body, headers)
    after = lines(Scheme.STANDARD, [NEW, OLD], body, now, overlap_ends=now)
    judge(NEW).verify(body, after)
    for secret, got in ((OLD, after), (new_secret(), headers)):
        with pytest.raises(WebhookVerificationError):
            judge(secret).verify(body, got)


# GitHub, Bitbucket and Notion sign as Hookstream does, under another header; Mux signs time and body as we do.
@pytest.mark.parametrize("provider", ["github", "bitbucket", "notion"])
def test_it_makes_the_published_signatures_over_the_body(provider: str) -> None:
    vectors = published(provider)
    assert vectors
    for vector in vectors:
        (signature,) = vector["headers"].values()
        assert lines(Scheme.HOOKSTREAM, [vector["secret"]], vector["body"].encode())["X-Hookstream-Signature"] == signature, vector["source"]


def test_it_makes_the_published_signature_over_time_and_body() -> None:
    vectors = published("mux")
    assert vectors
    for vector in vectors:
        timestamp, signature = vector["headers"]["Mux-Signature"].removeprefix("t=").split(",")
        made = lines(Scheme.TIMESTAMPED, [vector["secret"]], vector["body"].encode(), int(timestamp))
        assert made["X-Webhook-Signature"] == signature, vector["source"]


@pytest.mark.parametrize(
    ("at", "standard", "timestamped", "hookstream"),
    [(TIMESTAMP - 1, [NEW, OLD], [NEW, OLD], OLD), (TIMESTAMP, [NEW], [NEW], NEW), (TIMESTAMP + 1, [NEW], [NEW], NEW)],
)
def test_it_signs_for_the_old_secret_until_the_overlap_ends(at: int, standard: list[str], timestamped: list[str], hookstream: str) -> None:
    def made(scheme: Scheme) -> dict[str, str]:
        return lines(scheme, [NEW, OLD], timestamp=at, overlap_ends=TIMESTAMP)

    assert made(Scheme.STANDARD)["webhook-signature"] == " ".join(sign([key(secret)], ID, at, BODY) for secret in standard)
    assert made(Scheme.TIMESTAMPED)["X-Webhook-Signature"] == ",".join("v1=" + mac(secret, f"{at}.".encode() + BODY) for secret in timestamped)
    assert made(Scheme.HOOKSTREAM)["X-Hookstream-Signature"] == "sha256=" + mac(hookstream, BODY)


def test_it_wants_base64_only_where_the_key_is_in_it() -> None:
    for scheme in (Scheme.TIMESTAMPED, Scheme.HOOKSTREAM):
        assert lines(scheme, ["not base64!"])
    for live in (["not base64!"], [NEW, "not base64!"]):
        with pytest.raises(ValueError, match="not base64"):
            Signer(Scheme.STANDARD, live)


@pytest.mark.parametrize("scheme", list(Scheme))
def test_it_accepts_what_it_signed_under_each_scheme(scheme: Scheme) -> None:
    for live in ([NEW], [NEW, OLD]):
        headers = {name.upper(): value for name, value in lines(scheme, live).items()}
        verify([NEW, OLD], headers, BODY, TIMESTAMP, scheme)
        with pytest.raises(InvalidSignature, match="matches none"):
            verify([NEW, OLD], headers, BODY + b" ", TIMESTAMP, scheme)
        with pytest.raises(InvalidSignature, match="matches none"):
            verify([new_secret()], headers, BODY, TIMESTAMP, scheme)
        with pytest.raises(InvalidSignature, match="matches none"):
            verify([], headers, BODY, TIMESTAMP, scheme)


@pytest.mark.parametrize("scheme", list(Scheme))
def test_it_accepts_no_scheme_for_another(scheme: Scheme) -> None:
    for other in set(Scheme) - {scheme}:
        with pytest.raises(InvalidSignature, match="missing header"):
            verify([NEW], lines(other, [NEW]), BODY, TIMESTAMP, scheme)


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        (Scheme.TIMESTAMPED, "webhook-id"),
        (Scheme.TIMESTAMPED, "X-Webhook-Timestamp"),
        (Scheme.TIMESTAMPED, "X-Webhook-Signature"),
        (Scheme.HOOKSTREAM, "webhook-id"),
        (Scheme.HOOKSTREAM, "X-Hookstream-Signature"),
    ],
)
def test_it_names_a_missing_header_of_each_scheme(scheme: Scheme, name: str) -> None:
    headers = lines(scheme, [NEW])
    del headers[name]
    with pytest.raises(InvalidSignature, match=f"missing header: {name}$"):
        verify([NEW], headers, BODY, TIMESTAMP, scheme)


def test_it_reads_the_time_of_the_timestamped_scheme() -> None:
    headers = lines(Scheme.TIMESTAMPED, [NEW])
    verify([NEW], headers, BODY, TIMESTAMP + TOLERANCE_S, Scheme.TIMESTAMPED)
    with pytest.raises(InvalidSignature, match="X-Webhook-Timestamp is more than 300 s away"):
        verify([NEW], headers, BODY, TIMESTAMP + TOLERANCE_S + 1, Scheme.TIMESTAMPED)
    with pytest.raises(InvalidSignature, match="X-Webhook-Timestamp is not a number of seconds"):
        verify([NEW], headers | {"X-Webhook-Timestamp": "soon"}, BODY, TIMESTAMP, Scheme.TIMESTAMPED)
    with pytest.raises(InvalidSignature, match="matches none"):
        verify([NEW], headers | {"X-Webhook-Timestamp": str(TIMESTAMP + 1)}, BODY, TIMESTAMP, Scheme.TIMESTAMPED)


def test_it_reads_a_list_of_signatures_with_spaces_in_it() -> None:
    headers = lines(Scheme.TIMESTAMPED, [OLD, NEW])
    headers["X-Webhook-Signature"] = headers["X-Webhook-Signature"].replace(",", ", ")
    verify([NEW], headers, BODY, TIMESTAMP, Scheme.TIMESTAMPED)


def test_it_knows_no_time_where_none_is_signed() -> None:
    verify([NEW], lines(Scheme.HOOKSTREAM, [NEW]), BODY, TIMESTAMP + 10**9, Scheme.HOOKSTREAM)


# --- the built-in inbox, which verifies ----------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("scheme", list(Scheme))
def test_the_inbox_knows_the_scheme_of_its_endpoint(scheme: Scheme, client: Client) -> None:
    endpoint = make_endpoint(origin=Endpoint.Origin.INBOX, signature_scheme=scheme.value, extra_headers="X-Api-Key: k3y-of-the-endpoint")
    Inbox.objects.create(token="tok", endpoint=endpoint)
    for signed_with in Scheme:
        headers = lines(signed_with, [endpoint.secret], timestamp=int(time())) | {"X-Api-Key": "k3y-of-the-endpoint"}
        response = client.post("/inbox/tok", BODY, content_type="application/json", headers=headers)
        assert response.status_code == (200 if signed_with is scheme else 401)
    for message in InboxMessage.objects.all():
        assert message.headers["X-Api-Key"] == "(hidden)"
        assert message.webhook_id == ID
