"""The page of the endpoints: how they stand, and what may be asked of them there."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from delivery.models import AttemptTally
from jetrelay.dashboard import words
from jetrelay.dashboard.endpoints import listing
from subscriptions.models import Endpoint, Membership
from tests.builders import make_delivery, make_endpoint, make_health, make_member
from tests.receiver import Receiver

pytestmark = pytest.mark.django_db

State = Endpoint.State


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def page(client: Client) -> str:
    response = client.get("/endpoints/")
    assert response.status_code == 200
    return response.content.decode()


def ask(client: Client, act: str, endpoint: Endpoint) -> str:
    response = client.post(f"/endpoints/{endpoint.public_id}/{act}/", follow=True)
    assert response.redirect_chain == [("/endpoints/", 302)]
    return response.content.decode()


def offered(html: str) -> set[str]:
    return {act for act in ("pause", "resume", "enable", "reset_breaker", "test") if f"/{act}/" in html}


@pytest.mark.parametrize(
    ("state", "acts"),
    [
        (State.ACTIVE, {"pause", "test"}),
        (State.PAUSED, {"resume", "test"}),
        (State.DISABLED, {"enable", "test"}),
        (State.UNVERIFIED, {"test"}),
    ],
)
def test_it_offers_what_the_state_allows(state: State, acts: set[str], boss: Client) -> None:
    endpoint = make_endpoint(state=state)
    assert offered(page(boss)) == acts
    make_health(endpoint=endpoint)
    assert offered(page(boss)) == acts | {"reset_breaker"}


@pytest.mark.parametrize(
    ("over", "tone", "shown"),
    [
        ({}, "bad", "Breaker open until"),
        ({"open_until": None}, "wait", "Breaker closed, after 7 failures in a row"),
        ({"open_until": None, "ramp": 4}, "wait", "Breaker recovering: 4 at once"),
        ({"open_until": timezone.now()}, "wait", "Breaker open: one probe"),
    ],
)
def test_it_shows_how_an_endpoint_stands(over: dict[str, Any], tone: str, shown: str, boss: Client) -> None:
    make_health(**over)
    html = page(boss)
    assert f'<span class="badge {tone}">' in html
    for words_ in (shown, "failing since", "last failure: <bdi>503 Service Unavailable"):
        assert words_ in html


def listed(client: Client, query: str) -> list[str]:
    """The names in the list, in their order."""
    response = client.get(f"/endpoints/?{query}")
    return [row.endpoint.name for row in response.context["rows"]]


def test_it_finds_endpoints_by_name_url_and_id(boss: Client) -> None:
    mine = make_endpoint(name="Orders", url="https://shop.example/hook")
    make_endpoint(name="Search")
    for search in ("order", "SHOP.EXAMPLE", mine.public_id, str(mine.pk)):
        assert listed(boss, urlencode({"q": search})) == ["Orders"], search
    assert listed(boss, "q=nothing-like-it") == []
    assert "No endpoint matches" in boss.get("/endpoints/?q=nothing-like-it").content.decode()


def test_it_lists_those_in_a_state_and_those_that_fail(boss: Client) -> None:
    make_endpoint(name="paused", state=State.PAUSED)
    make_health(endpoint=make_endpoint(name="failing"))
    make_endpoint(name="well")
    assert listed(boss, "state=paused") == ["paused"]
    assert listed(boss, "state=failing") == ["failing"]
    assert listed(boss, "state=active") == ["failing", "well"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=asleep", "There is no state “asleep”"),
        ("state=deleted", "There is no state “deleted”"),
        ("after=x", "“x” is not an endpoint&#x27;s id"),
    ],
)
def test_it_says_what_of_the_url_it_did_not_understand(query: str, said: str, boss: Client) -> None:
    make_endpoint(name="Mine")
    html = boss.get(f"/endpoints/?{query}").content.decode()
    assert said in html
    assert "Mine" in html


def test_it_goes_through_all_of_them_page_by_page_even_past_one_that_is_deleted(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    names = ["a", "b", "b", "c", "d"]
    made = [make_endpoint(name=name) for name in names]
    found, query = [], ""
    for number in range(3):
        response = boss.get(f"/endpoints/?{query}")
        found += [row.endpoint.pk for row in response.context["rows"]]
        query = response.context["next"]
        if number == 0:
            made[1].__class__.objects.filter(pk=made[1].pk).update(state=State.DELETED)
    assert found == [each.pk for each in made]
    assert query == ""
    assert "There are no more" in boss.get(f"/endpoints/?after={made[-1].public_id}").content.decode()


def test_it_shows_how_the_last_hour_went_and_the_last_day(boss: Client) -> None:
    endpoint, now = make_endpoint(), timezone.now()
    for age, outcome, attempts in ((0, "delivered", 3), (0, "retry", 1), (0, "cancelled", 50), (5, "dead", 6), (30, "delivered", 1000)):
        AttemptTally.objects.create(endpoint=endpoint, minute=now - timedelta(hours=age), outcome=outcome, attempts=attempts)
    AttemptTally.objects.create(endpoint=make_endpoint(), minute=now, outcome="dead", attempts=99)
    trend = next(row.trend for row in boss.get("/endpoints/").context["rows"] if row.endpoint.pk == endpoint.pk)
    assert trend.success == 0.75
    assert (trend.attempts, trend.failures) == (10, 7)
    assert (trend.delivered[-1], trend.failed[-1], trend.failed[-6]) == (3, 1, 6)
    # What is over is not read again; what is under way is.
    AttemptTally.objects.create(endpoint=endpoint, minute=now - timedelta(hours=9), outcome="dead", attempts=1)
    AttemptTally.objects.filter(endpoint=endpoint, outcome="retry").update(attempts=3)
    trend = next(row.trend for row in boss.get("/endpoints/").context["rows"] if row.endpoint.pk == endpoint.pk)
    assert (trend.attempts, trend.failures, trend.success) == (12, 9, 0.5)
    html = page(boss)
    assert "50 %" in html
    assert "9 failed" in html
    assert '<svg class="spark"' in html


def test_names_and_urls_are_text_whatever_stands_in_them(boss: Client) -> None:
    make_endpoint(name="<script>alert(1)</script>\u202e", url="javascript:alert(1)", state_reason="<img src=x>")
    html = page(boss)
    assert "<script>alert" not in html
    assert "<img" not in html.replace('<img src="/static', "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\u202e</bdi>" in html
    assert 'href="javascript' not in html
    assert "<bdi>javascript:alert(1)</bdi>" in html


def test_an_act_leads_back_to_the_page_that_asked_for_it(boss: Client) -> None:
    url = f"/endpoints/{make_endpoint().public_id}/pause/"
    assert boss.post(url, {"next": "/endpoints/?state=active&q=a"})["Location"] == "/endpoints/?state=active&q=a"
    assert boss.post(url, {"next": "https://evil.example/"})["Location"] == "/endpoints/"


def test_it_reads_the_page_in_few_queries_however_many_endpoints(boss: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(5):
        make_delivery(endpoint=make_health().endpoint)
        make_endpoint()
    with django_assert_max_num_queries(6):
        page(boss)


def test_it_pauses_resumes_enables_and_resets(boss: Client) -> None:
    endpoint = make_health(endpoint=make_endpoint(name="Mine")).endpoint
    assert "Mine: paused." in ask(boss, "pause", endpoint)
    assert (endpoint.refreshed().state, endpoint.state_reason) == (State.PAUSED, "paused by ada on the endpoints page")
    assert "Mine: breaker reset." in ask(boss, "reset_breaker", endpoint)
    assert "Mine: resumed." in ask(boss, "resume", endpoint)
    Endpoint.objects.update(state=State.DISABLED)
    assert "Mine: enabled." in ask(boss, "enable", endpoint)
    assert endpoint.refreshed().state == State.ACTIVE
    assert "only paused endpoints can be" in ask(boss, "resume", endpoint)
    assert list(LogEntry.objects.order_by("pk").values_list("change_message", flat=True)) == ["Paused.", "Breaker reset.", "Resumed.", "Enabled."]


def test_it_sends_a_test_event_and_shows_what_came(boss: Client, receiver: Receiver) -> None:
    assert "The answer was 200 OK, “ok”." in ask(boss, "test", make_endpoint(url=receiver.url))
    assert len(receiver.requests) == 1


def test_it_asks_only_by_post_with_a_token_from_those_who_may(boss: Client) -> None:
    endpoint = make_endpoint()
    url = f"/endpoints/{endpoint.public_id}/pause/"
    assert boss.get(url).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(url).status_code == 403
    onlooker = Client()
    onlooker.force_login(make_member(endpoint.tenant, Membership.Role.VIEWER))
    assert onlooker.post(url).status_code == 403
    assert offered(page(onlooker)) == set()
    assert Client().post(url)["Location"] == "/login/?next=/"
    assert endpoint.refreshed().state == State.ACTIVE


def test_it_knows_no_deleted_endpoint_and_no_other_act(boss: Client) -> None:
    endpoint = make_endpoint(name="Gone", state=State.DELETED)
    assert "Gone" not in page(boss)
    assert boss.post(f"/endpoints/{endpoint.public_id}/resume/").status_code == 404
    assert boss.post(f"/endpoints/{make_endpoint().public_id}/explode/").status_code == 404
    assert boss.post("/endpoints/ep_1/pause/").status_code == 404


def test_it_says_what_happens_to_a_delivery_of_a_deleted_endpoint() -> None:
    row = make_delivery(endpoint=make_endpoint(state=State.DELETED))
    assert words.next_step(row, timezone.now()) == "is cancelled soon: its endpoint is deleted"
