"""The page of the endpoints: how they stand, and what may be asked of them there."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from jetrelay.dashboard import words
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


def test_it_reads_the_page_in_few_queries_however_many_endpoints(boss: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(5):
        make_delivery(endpoint=make_health().endpoint)
        make_endpoint()
    with django_assert_max_num_queries(4):
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
