"""One attempt: the request made again as the receiver got it, what may be seen of it, and a command that sends it once more."""

import html
import json
import re
import shutil
import subprocess
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from delivery import endpoints
from delivery.models import Attempt, Delivery, Event
from delivery.retry import Policy
from jetrelay.dashboard import words
from jetrelay.dashboard.deliveries import curl
from jetrelay.dashboard.deliveries.sent import Header, Sent, sent, timestamp_of
from subscriptions.models import Endpoint, Membership
from tests.builders import make_attempt, make_delivery, make_endpoint, make_event, make_member, make_source, make_tenant
from tests.draining import drain_all, endpoint_at, owe, replying
from tests.receiver import Received, Receiver

pytestmark = pytest.mark.django_db

DEAD, DELIVERED, PENDING = Delivery.State.DEAD, Delivery.State.DELIVERED, Delivery.State.PENDING
EXTRA = "X-Api-Key: key-of-the-receiver\nX-Region: eu`id`"
VIEWER = Membership.Role.VIEWER
# What can stand in a command, what is too large for one, and what no terminal should be given.
BODIES = [b'{"n": 1}', b'@it\'s "$HOME" `id` \\ \n\t!', "«ü»שלום".encode(), "\u202e".encode(), b'"%b"' % (b"x" * curl.MAX_INLINE), b"\xff\x00\x1b[201~"]
HOSTILE = [b"<script>alert(1)</script>", '{"a": "</pre><b>\u202e"}'.encode(), b"\xff\xfe<img src=x>", b"\x00\x1b]0;x\x07", b"[" * 100_000]


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def url_of(attempt: Attempt) -> str:
    return f"/deliveries/{attempt.delivery.public_id}/attempts/{attempt.public_id}/"


def page(client: Client, attempt: Attempt) -> str:
    response = client.get(url_of(attempt))
    assert response.status_code == 200, response
    return response.content.decode()


def block(page: str, id: str) -> str:
    """The text of a <pre>, as a reader would copy it."""
    found = re.search(rf'<pre [^>]*id="{id}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found, id
    return html.unescape(found[1])


def headers_in(text: str) -> dict[str, str]:
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in text.splitlines()[1:])}


def got(request: Received, masked: dict[str, str]) -> dict[str, str]:
    return {name: masked.get(name, value) for name, value in request.headers.items()}


# --- As it was sent, compared with what a receiver got ----------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("scheme", Endpoint.SignatureScheme.values)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_it_shows_the_request_that_the_receiver_got(scheme: str, batch_size: int, receiver: Receiver, boss: Client) -> None:
    endpoint = endpoint_at(
        receiver, signature_scheme=scheme, bearer_token="bearer-of-the-receiver", extra_headers=EXTRA, batch_size=batch_size, batch_wait_ms=0
    )
    owe(endpoint, 3, ["a", "b"])
    drain_all()
    assert len(receiver.requests) == 3 // batch_size
    masked = {"authorization": "Bearer ***", "x-api-key": "***", "x-region": "***"}
    by_body = {request.body: request for request in receiver.requests}
    for attempt in Attempt.objects.all():
        shown = page(boss, attempt)
        request = by_body[block(shown, "request-body").encode()]
        headers = block(shown, "request-headers")
        assert headers.splitlines()[0] == "POST /hook HTTP/1.1"
        assert list(headers_in(headers).items()) == list(got(request, masked).items())
        assert "of-the-receiver" not in shown
        assert "eu`id`" not in shown
        assert boss.get(f"{url_of(attempt)}body/").content == request.body


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("body", BODIES)
def test_the_command_sends_the_same_once_more(body: bytes, receiver: Receiver, boss: Client, tmp_path: Any) -> None:
    endpoint = endpoint_at(receiver, bearer_token="bearer-of-the-receiver", extra_headers=EXTRA, url=f"{receiver.url}?a={{1,2}}&b=[3-4]'&c=$HOME")
    make_delivery(endpoint=endpoint, event=make_event(body=body))
    drain_all()
    attempt = Attempt.objects.get()
    command = block(page(boss, attempt), "command")
    assert ("--data-raw" in command) == (body in BODIES[:3])
    (tmp_path / f"{attempt.public_id}.body").write_bytes(boss.get(f"{url_of(attempt)}body/").content)
    environment = {"JETRELAY_TOKEN": "bearer-of-the-receiver", "JETRELAY_X_API_KEY": "key-of-the-receiver", "JETRELAY_X_REGION": "eu`id`"}
    assert all(f'"${name}"' in command for name in environment)
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=environment | {"PATH": "/usr/bin:/bin"}, check=True, capture_output=True, timeout=30)
    first, second = receiver.requests
    assert (second.path, second.body) == (first.path, first.body)
    assert second.headers == first.headers


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_it_says_what_went_along_in_one_request_and_no_other(receiver: Receiver, boss: Client) -> None:
    """The same events go to two endpoints, and twice to one of them: their batches have one digest."""
    receiver.answer = replying(500)
    one, two = (endpoint_at(receiver, batch_size=4, batch_wait_ms=0, retry_schedule_s=[0, 3600]) for _ in range(2))
    events = [make_event(body=b'{"n":%d}' % number) for number in range(3)]
    for endpoint in (one, two):
        for event in events:
            make_delivery(endpoint=endpoint, event=event)
    drain_all()
    first = Attempt.objects.filter(delivery__endpoint=one, number=1).order_by("id")
    assert first.count() == 3
    assert Attempt.objects.filter(batch=first[0].batch, number=1).count() == 6
    shown = page(boss, first[1])
    assert "Sent together with 2 other events" in shown
    assert json.loads(block(shown, "request-body")) == [{"n": 0}, {"n": 1}, {"n": 2}]
    others = [attempt.delivery.public_id for attempt in (first[0], first[2])]
    assert re.findall(r'id="to-(dlv_\w+)" href="/deliveries/\1/"', shown) == others
    assert all(f'href="/events/{event.public_id}/"' in shown for event in (events[0], events[2]))
    assert "sent together with 2 other events" in boss.get(f"/deliveries/{first[1].delivery.public_id}/").content.decode()


# --- What it cannot know ------------------------------------------------------------------------------------------------


def test_it_says_that_the_endpoint_is_as_it_is_now(boss: Client) -> None:
    attempt = make_attempt()
    assert "from the endpoint as it is now" in page(boss, attempt)
    Endpoint.objects.update(url="https://elsewhere.example:443/new?x=1")
    headers = block(page(boss, attempt), "request-headers")
    assert headers.startswith("POST /new?x=1 HTTP/1.1\nHost: elsewhere.example\nAccept: */*\n")


def test_it_does_not_make_up_a_batch_that_lacks_an_event(boss: Client) -> None:
    batch, at = new_batch(), timezone.now()
    kept, gone = (make_attempt(batch=batch, started_at=at, delivery=make_delivery(endpoint=same)) for same in [make_endpoint()] * 2)
    Event.objects.filter(pk=gone.delivery.event_id)._raw_delete("default")
    for attempt in (kept, gone):
        shown = page(boss, attempt)
        assert "the request cannot be made again" in shown
        assert 'id="request-body"' not in shown
        assert boss.get(f"{url_of(attempt)}body/").status_code == 404


def test_it_does_not_take_a_part_of_a_batch_for_the_whole(boss: Client) -> None:
    attempt = make_attempt(batch=new_batch())
    assert "An event that went along, or its delivery, has been pruned" in page(boss, attempt)


def test_it_signs_nothing_with_the_secret_of_a_deleted_endpoint(boss: Client) -> None:
    attempt = make_attempt(delivery=make_delivery(state=DELIVERED))
    endpoints.delete(attempt.delivery.endpoint)
    shown = page(boss, attempt)
    assert "The endpoint is deleted" in shown
    assert "webhook-signature" not in shown
    assert "request-body" in shown


def test_it_says_that_nothing_was_sent(boss: Client) -> None:
    assert "There was none" in page(boss, make_attempt(status=None, error="missing_event"))
    assert "It never left" in page(boss, make_attempt(status=None, error="connect"))
    assert "It never left" not in page(boss, make_attempt(status=None, error="timeout"))


def test_it_says_that_a_secret_that_cannot_sign_does_not(boss: Client) -> None:
    attempt = make_attempt(delivery=make_delivery(endpoint=make_endpoint(secret="whsec_no base64!")))
    assert "The headers cannot be made again: the secret is not base64" in page(boss, attempt)


def test_the_time_in_the_headers_is_when_the_hosts_address_was_known() -> None:
    at = timezone.now().replace(microsecond=900_000)
    assert timestamp_of(make_attempt(started_at=at)) == int(at.timestamp())
    assert timestamp_of(make_attempt(started_at=at, dns_ms=150)) == int(at.timestamp()) + 1


# --- Who sees what -------------------------------------------------------------------------------------------------------


def test_a_signature_is_for_those_who_may_replay(boss: Client) -> None:
    for scheme, header in (("standard", "webhook-signature"), ("timestamped", "X-Webhook-Signature"), ("hookstream", "X-Hookstream-Signature")):
        endpoint = make_endpoint(signature_scheme=scheme, tenant=make_tenant(slug=scheme))
        attempt = make_attempt(delivery=make_delivery(endpoint=endpoint))
        seen: dict[str, str] = {}
        for role in (VIEWER, Membership.Role.MEMBER):
            client = Client()
            client.force_login(make_member(endpoint.tenant, role))
            shown = page(client, attempt)
            seen[role] = headers_in(block(shown, "request-headers"))[header.lower()]
            assert ("JETRELAY_SIGNATURE" in block(shown, "command")) == (role == VIEWER)
        assert seen[VIEWER] == "***"
        assert len(seen[Membership.Role.MEMBER]) > 40


def test_an_attempt_is_found_under_its_own_delivery_alone(boss: Client) -> None:
    attempt, other = make_attempt(), make_attempt()
    assert boss.get(f"/deliveries/{other.delivery.public_id}/attempts/{attempt.public_id}/").status_code == 404
    assert boss.get(f"/deliveries/{other.delivery.public_id}/attempts/{attempt.public_id}/body/").status_code == 404


def test_the_events_of_a_batch_are_linked_for_those_who_may_see_them() -> None:
    """A subscription to another tenant's source is the operator's to make."""
    endpoint, theirs = make_endpoint(), make_source(tenant=make_tenant(slug="other"))
    theirs = type(theirs).objects.create(kind="api", name="theirs", tenant=make_tenant(slug="other"))
    at, events = timezone.now(), [make_event(), make_event(source=theirs, type="their.type")]
    batch = new_batch()
    attempts = [make_attempt(batch=batch, started_at=at, delivery=make_delivery(endpoint=endpoint, event=event)) for event in events]
    client = Client()
    client.force_login(make_member(endpoint.tenant))
    shown = page(client, attempts[0])
    assert f'href="/events/{events[1].public_id}/"' not in shown
    assert attempts[1].delivery.public_id in shown
    assert f'href="/events/{events[0].public_id}/"' in page(client, attempts[1])


# --- Anyone's text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"<script>alert(1)</script>", '{"a": "</pre><b>\u202e"}'.encode(), b"\xff\xfe<img src=x>", b"\x00\x1b]0;x\x07", b"[" * 100_000]
)
def test_it_shows_hostile_bodies_and_answers_as_text(body: bytes, boss: Client) -> None:
    headers = "HTTP/1.1 200 <script>\r\nX-A: </pre><script>alert(1)</script>\u202e"
    attempt = make_attempt(delivery=make_delivery(event=make_event(body=body)), response_body=body[:4096], response_headers=headers, error_detail="<script>")
    shown = page(boss, attempt)
    assert not re.search(r"<script(?! src)|<img src=x|</pre><b>", shown)
    response = boss.get(f"{url_of(attempt)}body/")
    assert (response.content, response["Content-Type"], response["X-Content-Type-Options"]) == (body, "application/octet-stream", "nosniff")
    assert response["Content-Disposition"] == f'attachment; filename="{attempt.public_id}.body"'
    assert "default-src 'self'" in response["Content-Security-Policy"]


def test_it_says_that_a_body_is_not_utf_8_and_offers_the_bytes(boss: Client) -> None:
    shown = page(boss, make_attempt(delivery=make_delivery(event=make_event(body=b"\xff"))))
    assert "The body is not UTF-8" in shown
    assert "too odd for a command line" in shown


def test_a_command_quotes_what_anybody_wrote() -> None:
    made = Sent("https://a.example/'; id #", [Header("X-$(id)", "", "JETRELAY_X__ID_"), Header("X-B", "a'b")], b"'$(id)")
    assert curl.command(made, "f").splitlines() == [
        """curl --globoff --request POST 'https://a.example/'"'"'; id #' \\""",
        """  --header 'X-$(id): '"$JETRELAY_X__ID_" \\""",
        """  --header 'X-B: a'"'"'b' \\""",
        """  --header 'Expect:' \\""",
        """  --data-raw ''"'"'$(id)'""",
    ]


# --- The rest of the page --------------------------------------------------------------------------------------------------


def test_it_shows_the_answer_and_the_way_to_other_attempts(boss: Client, django_assert_max_num_queries: Any) -> None:
    row = make_delivery(state=DEAD, attempt_count=3)
    attempts = [
        make_attempt(delivery=row, number=number, status=503, response_body=b"x" * 4096, response_headers="X-Trace: 7", dns_ms=1, total_ms=20)
        for number in (1, 2, 3)
    ]
    with django_assert_max_num_queries(13):
        shown = page(boss, attempts[1])
    for words_shown in ("503 Service Unavailable", "its own log knows why", "X-Trace: 7", "Its first 4.1 kB are kept", "DNS 1.0 ms"):
        assert words_shown in shown
    for other in (attempts[0], attempts[2]):
        assert f'href="{url_of(other)}"' in shown
    assert "data-replay>Replay the delivery" in shown


def test_it_warns_of_a_time_that_receivers_refuse(boss: Client) -> None:
    now = timezone.now()
    assert "more than five minutes old" in page(boss, make_attempt(started_at=now - timedelta(minutes=6)))
    assert "more than five minutes old" not in page(boss, make_attempt(started_at=now))


def test_it_reads_no_more_for_a_batch_than_for_one(boss: Client, django_assert_max_num_queries: Any) -> None:
    endpoint, at, batch = make_endpoint(), timezone.now(), new_batch()
    attempts = [make_attempt(batch=batch, started_at=at, delivery=make_delivery(endpoint=endpoint)) for _ in range(10)]
    with django_assert_max_num_queries(14):
        page(boss, attempts[0])
    with django_assert_max_num_queries(8):
        boss.get(f"/deliveries/{attempts[0].delivery.public_id}/")


def test_what_was_sent_is_told_without_a_page() -> None:
    attempt = make_attempt(delivery=make_delivery(event=make_event(body=b"{}")))
    made = sent(attempt, attempt.delivery, signed=True)
    assert made
    assert (made.body, made.url, made.problem) == (b"{}", attempt.delivery.endpoint.url, "")


@pytest.mark.parametrize(
    ("tries", "policy", "said"),
    [
        (0, Policy([30, 300, 1800]), "If that fails, again after 30 s, 5 min and 30 min; then it is dead."),
        (2, Policy([30, 300, 1800]), "If that fails, again after 30 min; then it is dead."),
        (3, Policy([30, 300, 1800]), "If that fails, it is dead: its retries are used up."),
        (0, Policy([0.5] * 8), "If that fails, again after 0.5 s, 0.5 s, 0.5 s, 0.5 s, 0.5 s, 0.5 s and 2 more; then it is dead."),
        (0, Policy([60], transient_only=True), "If that fails, again after 1 min; then it is dead. A plain refusal (such as 400) ends it at once."),
    ],
)
def test_it_says_what_follows_the_next_attempt(tries: int, policy: Policy, said: str) -> None:
    assert words.after_that(make_delivery(tries=tries), policy) == said
    assert words.after_that(make_delivery(tries=tries, state=DEAD), policy) == ""


def new_batch() -> Any:
    return make_event().pk
