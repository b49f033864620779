"""The page of one endpoint: how it does, what it is, and what may be asked of it there."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from delivery.models import AttemptTally, Delivery
from delivery.standing import Kind, Standing
from jetrelay.dashboard.endpoints import figures, terms
from subscriptions.models import AuditEntry, Endpoint, Membership, Subscription
from tests.builders import DID, make_api_source, make_delivery, make_endpoint, make_health, make_member, make_subscription
from tests.receiver import Handler, Received, Receiver

pytestmark = pytest.mark.django_db

State = Endpoint.State
PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)


@pytest.fixture
def grace(client: Client) -> Client:
    client.force_login(make_member(username="grace"))
    return client


def url_of(endpoint: Endpoint, rest: str = "") -> str:
    return f"/endpoints/{endpoint.public_id}/{rest}"


def page(client: Client, endpoint: Endpoint, rest: str = "") -> str:
    response = client.get(url_of(endpoint, rest))
    assert response.status_code == 200
    return str(response.content.decode())


# --- How it does -----------------------------------------------------------------------------------------------------


def test_it_says_what_failed_and_what_to_do_about_it(grace: Client) -> None:
    endpoint = make_health(reason="503").endpoint
    html = page(grace, endpoint)
    shown = ("Last failure: <strong><bdi>503 Service Unavailable</bdi>", "failing since", "its own log knows why", "Open: deliveries wait and use up")
    assert [words for words in shown if words not in html] == []


@pytest.mark.parametrize(
    ("kept", "words", "advice"),
    [
        ("404", "404 Not Found", "check the endpoint's URL"),
        ("599", "599", "The receiver failed"),
        ("timeout: took 30 s", "timed out: took 30 s", "raise the endpoint's timeout"),
        ("dns: ", "host name not found", "Check the host"),
        ("something: odd", "something: odd", ""),
        ("", "", ""),
    ],
)
def test_it_explains_a_failure_as_it_is_kept(kept: str, words: str, advice: str) -> None:
    row = make_health(reason=kept)
    found = terms.failure(Standing(Kind.FAILING, "", row.failing_since, kept))
    assert found[0] == words
    assert advice in found[1]
    assert bool(found[1]) == bool(advice)


def test_it_shows_what_is_owed_and_what_is_dead(grace: Client) -> None:
    endpoint, now = make_endpoint(), timezone.now()
    for late in (timedelta(minutes=7), timedelta(minutes=2)):
        make_delivery(endpoint=endpoint, due_at=now - late)
    make_delivery(endpoint=endpoint, state=DEAD)
    make_delivery(due_at=now - timedelta(days=9))
    html = page(grace, endpoint)
    assert "the oldest was due 7 min ago" in html
    assert f'?endpoint={endpoint.public_id}&amp;state=pending">2<' in html
    assert f'?endpoint={endpoint.public_id}&amp;state=dead">1<' in html
    Delivery.objects.filter(state=PENDING).update(due_at=now + timedelta(hours=1))
    assert "none is due yet" in page(grace, endpoint)


def test_it_measures_the_last_hour_by_the_histogram(grace: Client) -> None:
    endpoint, now = make_endpoint(), timezone.now()
    AttemptTally.objects.create(endpoint=endpoint, minute=now, outcome="delivered", attempts=90, ms_50=90)
    AttemptTally.objects.create(endpoint=endpoint, minute=now, outcome="dead", attempts=10, ms_1000=10)
    AttemptTally.objects.create(endpoint=endpoint, minute=now - timedelta(hours=2), outcome="dead", attempts=99, ms_over=99)
    AttemptTally.objects.create(endpoint=make_endpoint(), minute=now, outcome="dead", attempts=99, ms_over=99)
    html = page(grace, endpoint)
    assert "of 100 in the last hour" in html
    assert "90 %" in html
    assert figures.last_hour(endpoint.pk, now).p50_ms == pytest.approx(25 + 25 * 50 / 90)
    assert figures.last_hour(endpoint.pk, now).p95_ms == 750


def test_it_counts_answers_of_the_newest_deliveries_alone(grace: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = make_endpoint()
    make_delivery(endpoint=endpoint, last_status=500)
    for status, error in ((200, ""), (200, ""), (None, "timeout"), (None, "")):
        make_delivery(endpoint=endpoint, last_status=status, last_error=error)
    monkeypatch.setattr(figures, "ANSWERS_OF", 4)
    assert [(each.status, each.error, each.count) for each in figures.answers(endpoint.pk)] == [(200, "", 2), (None, "timeout", 1)]
    html = page(grace, endpoint)
    assert "each of its newest 4 deliveries" in html
    assert "timed out" in html
    assert "500 Internal Server Error</th>" not in html


def test_it_shows_the_newest_deliveries_and_the_past_states(grace: Client) -> None:
    endpoint, now = make_endpoint(), timezone.now()
    rows = [make_delivery(endpoint=endpoint) for _ in range(12)]
    endpoint.past_states.create(state="paused", reason="under <b>repair", from_at=now - timedelta(hours=3), to_at=now - timedelta(hours=1))
    html = page(grace, endpoint)
    assert [row.public_id in html for row in rows] == [False] * 2 + [True] * 10
    assert "for 2 h: <bdi>under &lt;b&gt;repair</bdi>" in html


def test_what_renews_itself_has_no_form_in_it(grace: Client) -> None:
    endpoint = make_health(endpoint=make_endpoint(name="Mine")).endpoint
    html = page(grace, endpoint, "doing/")
    assert 'hx-trigger="every 5s"' in html
    assert "Breaker open until" in html
    assert "<form" not in html
    assert "<html" not in html
    assert html.strip() in page(grace, endpoint).replace("<form", "").replace("\r", "") or 'id="doing"' in page(grace, endpoint)


def test_it_asks_little_of_the_database(grace: Client, django_assert_num_queries: Any) -> None:
    endpoint = make_health().endpoint
    for _ in range(3):
        make_subscription(endpoint=endpoint)
        make_delivery(endpoint=endpoint, last_status=200)
    # The session, its user, their memberships; the endpoint; its hour, its answers, its deliveries and their events, its past states.
    with django_assert_num_queries(9):
        page(grace, endpoint, "doing/")
    # And its subscriptions; its secrets, of which none is shown, are not read at all.
    with django_assert_num_queries(10):
        page(grace, endpoint)


# --- What it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({}, "Retries after 30 s, 5 min, 30 min, 2 h, then dead."),
        ({"retry_schedule_s": [0.5, 90, 90_061]}, "Retries after 0.5 s, 1 min 30 s, 1 d 1 h 1 min 1 s, then dead."),
        ({"retry_schedule_s": []}, "No retries: a delivery that fails is dead at once."),
        ({"retry_strategy": "fixed", "retry_first_s": 600, "retry_count": 3}, "Retries every 10 min, 3 times, then dead."),
        (
            {"retry_strategy": "exponential", "retry_first_s": 1, "retry_factor": 2, "retry_longest_s": 100, "retry_count": 9},
            "Retries after 1 s, 2 s, 4 s, 8 s, 16 s, 32 s and 3 more, the last after 1 min 40 s, then dead.",
        ),
        ({"retry_jitter_percent": 10}, "Each wait is up to 10 % longer, by chance."),
        ({"retry_on": "transient"}, "any other answer is final"),
    ],
)
def test_it_says_in_words_when_it_tries_again(over: dict[str, Any], said: str) -> None:
    assert said in terms.retries(make_endpoint(**over))


def test_it_says_in_words_what_holds_its_requests_back() -> None:
    over = {"timeout_s": 7.5, "max_in_flight": 1, "rate_limit_per_s": 0.1, "ordered": True, "batch_size": 9, "batch_wait_ms": 1500, "priority": 2}
    assert terms.limits(make_endpoint(**over)) == [
        "7.5 s for one attempt, DNS and connect included.",
        "1 request open at once.",
        "One request in 10 s.",
        "Each subject's events go one after the other, in stream order.",
        "Up to 9 events in one request; an event waits up to 1.5 s for others.",
        "High priority while this machine cannot keep up.",
    ]


def test_it_says_in_words_what_a_subscription_asks_for() -> None:
    narrow = make_subscription(collections=[f"a.b.c{n}" for n in range(8)], operations=["create"], dids=[DID], kinds=["commit", "identity"])
    assert terms.wish(narrow) == [
        ("Commits in", "a.b.c0, a.b.c1, a.b.c2, a.b.c3, a.b.c4, a.b.c5 and 2 more"),
        ("Operations", "create"),
        ("Also", "identity events"),
        ("Accounts", DID),
    ]
    assert terms.wish(make_subscription()) == [("Commits in", "everything"), ("Operations", "all"), ("Accounts", "all")]
    assert terms.wish(make_subscription(kinds=["account"])) == [("Only", "account events"), ("Accounts", "all")]
    assert terms.wish(make_subscription(source=make_api_source(), kinds=["api"], collections=["order.*"])) == [("Types", "order.*")]


def test_it_shows_anyones_text_as_text(grace: Client) -> None:
    endpoint = make_endpoint(name="<b>Mine\u202e", url="javascript:alert(1)", state_reason="<i>why")
    make_health(endpoint=endpoint, reason="<u>broken")
    Subscription.objects.create(endpoint=endpoint, source=make_api_source(name="<s>mine"), collections=["<em>"], kinds=["api"])
    html = page(grace, endpoint)
    for tag in ("<b>", "<i>", "<u>", "<s>", "<em>", 'href="javascript'):
        assert tag not in html
    assert "<h1><bdi>&lt;b&gt;Mine\u202e</bdi></h1>" in html


def test_it_shows_no_secret(grace: Client) -> None:
    endpoint = make_endpoint(bearer_token="a-secret-token", extra_headers="A-Key: a-secret-value")
    html = page(grace, endpoint)
    assert not [secret for secret in (endpoint.secret, "a-secret-token", "a-secret-value") if secret in html]


# --- What may be asked of it -----------------------------------------------------------------------------------------


def test_acts_come_back_to_its_page_and_are_written_down(grace: Client) -> None:
    endpoint = make_endpoint(name="Mine")
    for act, state in (("pause", State.PAUSED), ("disable", State.DISABLED), ("enable", State.ACTIVE)):
        assert url_of(endpoint, f"{act}/") in page(grace, endpoint)
        response = grace.post(url_of(endpoint, f"{act}/"), {"next": url_of(endpoint)}, follow=True)
        assert response.redirect_chain == [(url_of(endpoint), 302)]
        assert endpoint.refreshed().state == state
    found = AuditEntry.objects.order_by("id").values_list("tenant", "actor", "action", "target", "address")
    assert list(found) == [(endpoint.tenant_id, "user grace", f"endpoint.{act}", endpoint.public_id, "127.0.0.1") for act in ("pause", "disable", "enable")]


def test_it_shows_the_answer_to_a_test_event(grace: Client, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(422, b"<b>no such order")
    endpoint = make_endpoint(url=receiver.url)
    html = grace.post(url_of(endpoint, "test/"), headers={"HX-Request": "true", "HX-Target": "tried"}).content.decode()
    for said in ("<strong>422</strong> in ", " ms", "The answer was 422 Unprocessable", "&lt;b&gt;no such order</pre>"):
        assert said in html
    assert "<html" not in html
    html = grace.post(url_of(endpoint, "test/"), {"next": url_of(endpoint)}, follow=True).content.decode()
    assert "The answer was 422 Unprocessable" in html


def test_it_verifies_one_that_has_not_answered_yet(grace: Client, receiver: Receiver) -> None:
    def echo(handler: Handler, received: Received) -> None:
        handler.reply(200, received.body)

    endpoint = make_endpoint(url=receiver.url, state=State.UNVERIFIED)
    assert "has not answered its challenge" in page(grace, endpoint)
    assert "Expected a 2xx answer" in grace.post(url_of(endpoint, "verify/"), follow=True).content.decode()
    receiver.answer = echo
    assert "The endpoint is active now." in grace.post(url_of(endpoint, "verify/"), follow=True).content.decode()
    assert endpoint.refreshed().state == State.ACTIVE
    assert list(AuditEntry.objects.order_by("id").values_list("action", "detail")) == [("endpoint.verify", "failed"), ("endpoint.verify", "passed")]


def test_it_says_what_a_deletion_costs_and_does_it_when_that_is_confirmed(grace: Client) -> None:
    endpoint = make_subscription(endpoint=make_endpoint(name="Mine")).endpoint
    rows = [make_delivery(endpoint=endpoint) for _ in range(3)]
    html = page(grace, endpoint, "delete/")
    assert "<dt>Pending deliveries</dt><dd>3</dd>" in html
    assert "<dt>Active subscriptions</dt><dd>1</dd>" in html
    assert grace.post(url_of(endpoint, "delete/")).status_code == 200
    assert endpoint.refreshed().state == State.ACTIVE
    response = grace.post(url_of(endpoint, "delete/"), {"sure": "yes"}, follow=True)
    assert response.redirect_chain == [("/endpoints/", 302)]
    assert "Mine: deleted. Pending deliveries cancelled: 3." in response.content.decode()
    assert {row.refreshed().state for row in rows} == {CANCELLED}
    assert (endpoint.refreshed().state, endpoint.secret) == (State.DELETED, "")
    assert AuditEntry.objects.get().action == "endpoint.delete"
    assert grace.get(url_of(endpoint)).status_code == 404


def test_it_says_why_one_cannot_be_deleted(client: Client, settings: Settings) -> None:
    settings.WEBHOOK_URL = "https://a.example/"
    endpoint = make_endpoint(origin="environment")
    client.force_login(User.objects.create_superuser("ada"))
    html = page(client, endpoint, "delete/")
    assert "unset WEBHOOK_URL and start again" in html
    assert "Delete, for good" not in html
    assert "unset WEBHOOK_URL" in client.post(url_of(endpoint, "delete/"), {"sure": "yes"}, follow=True).content.decode()
    assert endpoint.refreshed().state == State.ACTIVE


def test_it_leads_to_recovering_what_was_missed(grace: Client) -> None:
    endpoint = make_subscription().endpoint
    html = page(grace, endpoint)
    assert 'action="/replays/new/"' in html
    since = re.findall('name="since" step="1" value="([^"]+)"', html)[0]
    counted = grace.get("/replays/new/", {"action": "recover", "endpoint": endpoint.public_id, "since": since})
    assert 'id="matches"' in counted.content.decode()


def test_a_viewer_reads_all_of_it_and_can_ask_for_nothing(client: Client) -> None:
    endpoint = make_subscription().endpoint
    client.force_login(make_member(endpoint.tenant, Membership.Role.VIEWER))
    html = page(client, endpoint)
    assert "Retries after" in html
    assert html.count("<form") == html.count('action="/logout/"') + html.count('action="/theme/"')
    for rest in ("edit/", "delete/", "secret/", "secret/rotate/", "signature/", "subscriptions/new/"):
        assert url_of(endpoint, rest) not in html
        assert client.get(url_of(endpoint, rest)).status_code == 403
