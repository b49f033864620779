"""Replays on the pages and in the admin: the count first, then the order, and calling it off."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from delivery.models import Delivery, Replay
from delivery.replay import start
from delivery.replay.running import run
from jetrelay.dashboard.deliveries.filters import Filters
from jetrelay.dashboard.replays import views
from jetrelay.dashboard.replays.progress import progress
from subscriptions.models import Membership
from tests.builders import id_of, make_delivery, make_endpoint, make_event, make_member, make_replay, make_subscription, make_tenant

pytestmark = pytest.mark.django_db

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
NEW, LIST = "/replays/new/", "/admin/delivery/delivery/"


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.fixture
def onlooker() -> Client:
    client = Client()
    user = make_member(make_tenant(), Membership.Role.VIEWER, is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=("view_delivery", "view_replay")))
    client.force_login(user)
    return client


def text(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def finish() -> Replay:
    while run(lambda seconds: False):
        pass
    return Replay.objects.get()


# --- Asking ------------------------------------------------------------------------------------------------------------


def test_it_counts_before_it_asks(boss: Client) -> None:
    endpoint = make_endpoint(name="<b>One")
    rows = [make_delivery(endpoint=endpoint, state=DEAD) for _ in range(3)] + [make_delivery(state=DEAD)]
    url = f"{NEW}?action=replay&delivery_state=dead&endpoint={endpoint.public_id}"
    html = text(boss.get(url))
    assert "3 match" in html
    assert "&lt;b&gt;One" in html
    assert not Replay.objects.exists()
    data = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html.partition('method="post" action="/replays/new/"')[2]))
    html = text(boss.post(NEW, data | {"rate_per_s": "100"}, follow=True))
    assert "3 to replay" in html
    made = Replay.objects.get()
    assert (made.action, made.endpoint, made.delivery_state, made.rate_per_s, made.created_by) == ("replay", endpoint, DEAD, 100, "ada")
    assert finish().done == 3
    assert [row.refreshed().state for row in rows] == [PENDING] * 3 + [DEAD]


def test_it_shows_an_empty_form_first(boss: Client) -> None:
    html = text(boss.get(NEW))
    assert "Recover" in html
    assert "errorlist" not in html


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"action": "replay", "since": "2026-07-04T12:00", "until": "2026-07-04T11:00"}, "ends before it begins"),
        ({"action": "replay", "since": "soon"}, "This is not a time"),
        ({"action": "replay", "collections": "a.*.b"}, "is not a collection"),
        ({"action": "replay", "endpoint": "x"}, "No endpoint has the id"),
        ({"action": "replay", "event": f"evt_{'0' * 32}"}, "it may have been pruned"),
        ({"action": "replay", "delivery_state": "lost"}, "lost is not one of the available choices"),
        ({"action": "recover"}, "Say which endpoint"),
        ({"action": "erase"}, "erase is not one of the available choices"),
    ],
)
def test_it_says_at_the_field_what_is_wrong(boss: Client, query: dict[str, str], words: str) -> None:
    for response in (boss.get(NEW, query), boss.post(NEW, query)):
        html = text(response)
        assert words in html
        assert 'id="matches"' not in html
    assert not Replay.objects.exists()


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "fast"])
def test_it_says_that_a_rate_will_not_do_and_asks_again(boss: Client, rate: str) -> None:
    make_delivery(state=DEAD)
    html = text(boss.post(NEW, {"action": "replay", "rate_per_s": rate}))
    assert "errorlist" in html
    assert "1 match" in html
    assert not Replay.objects.exists()


def test_it_recovers_from_the_page(boss: Client) -> None:
    age = timedelta(hours=1)
    event = make_event(id=id_of(age), received_at=timezone.now() - age)
    endpoint = make_subscription().endpoint
    since = f"{timezone.now() - age * 2:%Y-%m-%dT%H:%M:%S}"
    data = {"action": "recover", "endpoint": endpoint.public_id, "since": since, "collections": "app.bsky.feed.*, app.bsky.graph.follow"}
    assert "1 matches" in text(boss.get(NEW, data))
    boss.post(NEW, data)
    assert Replay.objects.get().collections == ["app.bsky.feed.*", "app.bsky.graph.follow"]
    run(lambda seconds: True)
    assert Delivery.objects.get().event == event


def test_it_says_that_there_is_nothing_to_do(boss: Client) -> None:
    assert "There is nothing to do" in text(boss.get(NEW, {"action": "dismiss"}))


# --- Ways there --------------------------------------------------------------------------------------------------------


def test_dead_letters_are_a_page_with_ways_to_replay_and_to_dismiss_them(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    assert 'href="/deliveries/?state=dead">Dead letters' in text(boss.get("/deliveries/"))
    html = text(boss.get(f"/deliveries/?state=dead&endpoint={row.endpoint.public_id}"))
    assert "<h1>Dead letters</h1>" in html
    for action in ("replay", "dismiss"):
        url = f"/replays/new/?action={action}&amp;delivery_state=dead&amp;endpoint={row.endpoint.public_id}"
        assert f'href="{url}"' in html
        assert "1 match" in text(boss.get(url.replace("&amp;", "&")))


def test_an_event_can_be_replayed_to_all_that_got_it(boss: Client) -> None:
    row = make_delivery(state=DELIVERED)
    make_delivery(state=DELIVERED, event=row.event)
    url = f"{NEW}?action=replay&amp;event={row.event.public_id}"
    assert url in text(boss.get(f"/deliveries/{row.public_id}/"))
    assert "2 match" in text(boss.get(url.replace("&amp;", "&")))
    assert url in text(boss.get(f"/deliveries/?q={row.event.public_id}"))


def test_a_search_for_one_delivery_has_nothing_to_replay_in_bulk() -> None:
    assert Filters.read({"q": f"dlv_{'0' * 32}"}).to_replay is None
    assert Filters.read({"q": f"ep_{'0' * 32}"}).to_replay == f"action=replay&endpoint=ep_{'0' * 32}"
    assert Filters.read({"state": "delivered"}).to_dismiss is None


def test_those_who_may_not_are_neither_shown_the_way_nor_let_through(onlooker: Client) -> None:
    wish = start(Replay(tenant=make_tenant()))
    row = make_delivery(state=DEAD)
    assert "/replays/new/" not in text(onlooker.get("/deliveries/?state=dead"))
    assert "Cancel" not in text(onlooker.get("/replays/"))
    assert onlooker.get(NEW).status_code == 403
    assert onlooker.post(NEW, {"action": "replay"}).status_code == 403
    assert onlooker.post(f"/replays/{wish.public_id}/cancel/").status_code == 403
    for action in ("replay_matching", "dismiss_matching", "dismiss_selected"):
        onlooker.post(LIST, {"action": action, "apply": "1", "_selected_action": [row.pk]})
    onlooker.post("/admin/delivery/replay/", {"action": "cancel_selected", "_selected_action": [wish.pk]})
    assert Replay.objects.get().running
    assert row.refreshed().state == DEAD


def test_strangers_are_sent_to_sign_in(client: Client) -> None:
    for url in (NEW, "/replays/", "/replays/progress/"):
        assert client.get(url).status_code == 302


# --- Progress ----------------------------------------------------------------------------------------------------------


def test_it_shows_progress_and_renews_it_only_while_something_runs(boss: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(3):
        make_delivery(state=DEAD)
    wish = start(Replay(delivery_state=DEAD, rate_per_s=0.5), by="<i>ada")
    run(lambda seconds: True)
    with django_assert_max_num_queries(5):
        html = text(boss.get("/replays/progress/", headers={"HX-Request": "true"}))
    for shown in ("1 of 3", "0.5/s", "&lt;i&gt;ada", "Running", 'hx-get="/replays/progress/"', f"/replays/{wish.public_id}/cancel/"):
        assert shown in html
    assert "<html" not in html
    html = text(boss.post(f"/replays/{wish.public_id}/cancel/", follow=True))
    assert "is cancelled" in html
    assert "Cancelled" in html
    assert "hx-get" not in html
    assert "was over already" in text(boss.post(f"/replays/{wish.public_id}/cancel/", follow=True))
    assert Replay.objects.get().ended_by == "ada"


def test_a_replay_has_a_page_that_says_what_was_asked_and_how_far_it_is(boss: Client, django_assert_max_num_queries: Any) -> None:
    endpoint, now = make_endpoint(name="<b>Mine"), timezone.now()
    wish = make_replay(
        endpoint=endpoint, delivery_state=DEAD, expected=1000, done=240, skipped=10, looked_at=400, rate_per_s=5, collections=["app.<i>*"],
        created_at=now - timedelta(seconds=60), since=now - timedelta(days=1), created_by="<i>ada",
    )  # fmt: skip
    with django_assert_max_num_queries(5):
        html = text(boss.get(f"/replays/{wish.public_id}/"))
    for shown in (
        "&lt;b&gt;Mine", f"/endpoints/{endpoint.public_id}/", "app.&lt;i&gt;*", "&lt;i&gt;ada", "5 a second, at most", "240 of 1,000 done", "about 2 min left",
        'max="100" value="25"', "the event has been pruned", f'hx-get="/replays/{wish.public_id}/progress/"', f"/replays/{wish.public_id}/cancel/",
    ):  # fmt: skip
        assert shown in html
    response = boss.post(f"/replays/{wish.public_id}/cancel/", {"next": f"/replays/{wish.public_id}/"}, follow=True)
    assert response.redirect_chain == [(f"/replays/{wish.public_id}/", 302)]
    html = text(boss.get(f"/replays/{wish.public_id}/progress/", headers={"HX-Request": "true"}))
    assert "Cancelled by" in html
    assert "hx-get" not in html
    assert "<html" not in html
    assert boss.get(f"/replays/rpl_{'0' * 32}/").status_code == 404


@pytest.mark.parametrize(
    ("over", "percent", "said"),
    [
        ({"expected": 100}, 0, "a worker takes it up within seconds"),
        ({"expected": 100, "age_s": 31}, 0, "no worker has taken it up yet: is one running?"),
        ({"expected": 100, "looked_at": 50, "done": 40, "skipped": 10, "age_s": 10}, 50, "about 10 s left"),
        ({"expected": 100, "looked_at": 50, "done": 50, "age_s": 10, "rate_per_s": 0.5}, 50, "about 1 min left"),
        ({"expected": 100, "looked_at": 50, "done": 50, "rate_per_s": 10, "age_s": 1}, 50, "about 5 s left"),
        ({"expected": 1000, "looked_at": 999, "done": 999, "age_s": 10}, 99, "nearly done"),
        ({"expected": 0, "expected_more": True, "looked_at": 9, "done": 5, "age_s": 10}, None, "cannot be told"),
        ({"expected": 10, "done": 9, "state": "finished", "age_s": 90, "ended": True}, 100, "took 1 min"),
        ({"expected": 10, "done": 5, "state": "cancelled", "age_s": 90, "ended": True}, 50, "took 1 min"),
        ({"expected": 10, "looked_at": 20, "done": 15, "age_s": 10}, 100, "nearly done"),
    ],
)
def test_it_estimates_how_long_a_replay_takes(over: dict[str, Any], percent: int | None, said: str) -> None:
    now = timezone.now()
    ended = {"ended_at": now} if over.pop("ended", False) else {}
    row = Replay(created_at=now - timedelta(seconds=over.pop("age_s", 0)), **ended, **over)
    found = progress(row, now)
    assert found.percent == percent
    assert said in found.words


def test_replays_are_listed_in_pages_those_that_run_first(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "PAGE", 2)
    running = make_replay()
    over = [make_replay(state="finished") for _ in range(3)]
    html = text(boss.get("/replays/"))
    assert re.findall(r'<tr id="(rpl_\w+)"', html) == [row.public_id for row in (running, over[2], over[1])]
    assert f'href="/replays/?before={over[1].public_id}"' in html
    html = text(boss.get(f"/replays/?before={over[1].public_id}"))
    assert re.findall(r'<tr id="(rpl_\w+)"', html) == [over[0].public_id]
    assert "hx-get" not in html
    assert "There are no older ones" in text(boss.get(f"/replays/?before={over[0].public_id}"))
    assert "is not a replay&#x27;s id" in text(boss.get("/replays/?before=x"))


def test_a_replay_says_where_to_see_what_came_of_it(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    wish = start(Replay(action="dismiss", endpoint=row.endpoint))
    finish()
    html = text(boss.get(f"/replays/{wish.public_id}/"))
    url = f"/deliveries/?state=cancelled&amp;endpoint={row.endpoint.public_id}"
    assert f'href="{url}"' in html
    assert row.public_id in text(boss.get(url.replace("&amp;", "&")))


def test_it_says_what_replays_are_for_while_there_is_none(boss: Client) -> None:
    assert "Nothing has been replayed in bulk yet" in text(boss.get("/replays/"))


# --- The admin ---------------------------------------------------------------------------------------------------------


def test_the_admin_replays_all_that_match_its_filters(boss: Client) -> None:
    rows = [make_delivery(state=state) for state in (DEAD, DEAD, DELIVERED)]
    url = f"{LIST}?state=dead"
    html = text(boss.post(url, {"action": "replay_matching"}))
    assert "<strong>2</strong> match" in html
    assert "State: <bdi>dead</bdi>" in html
    html = text(boss.post(url, {"action": "replay_matching", "apply": "1", "rate_per_s": "50"}, follow=True))
    assert "has been asked for: 2 deliveries" in html
    made = finish()
    assert (made.done, made.rate_per_s, made.created_by) == (2, 50, "ada")
    assert [row.refreshed().state for row in rows] == [PENDING, PENDING, DELIVERED]


def test_the_admin_dismisses_all_that_match_its_filters(boss: Client) -> None:
    rows = [make_delivery(state=DEAD) for _ in range(2)]
    url = f"{LIST}?endpoint={rows[0].endpoint.public_id}"
    assert "Dead deliveries become cancelled" in text(boss.post(url, {"action": "dismiss_matching"}))
    boss.post(url, {"action": "dismiss_matching", "apply": "1"})
    finish()
    assert [row.refreshed().state for row in rows] == [CANCELLED, DEAD]


def test_the_admin_replays_an_event_that_was_looked_up(boss: Client) -> None:
    row = make_delivery(state=DELIVERED)
    make_delivery(state=DELIVERED)
    boss.post(f"{LIST}?q={row.event.public_id}", {"action": "replay_matching", "apply": "1"})
    assert (finish().done, row.refreshed().state) == (1, PENDING)


@pytest.mark.parametrize("query", ["time=soon", f"q=dlv_{'0' * 32}", "q=nonsense", "last_status=500"])
def test_the_admin_refuses_filters_that_a_replay_does_not_have(boss: Client, query: str) -> None:
    html = text(boss.post(f"{LIST}?{query}", {"action": "replay_matching", "apply": "1"}, follow=True))
    assert "This cannot be done for these filters" in html
    assert not Replay.objects.exists()


def test_the_admin_says_what_is_wrong_and_asks_again(boss: Client) -> None:
    make_delivery(state=DEAD)
    html = text(boss.post(LIST, {"action": "replay_matching", "apply": "1", "rate_per_s": "0"}))
    assert "A rate limit is" in html
    assert "<strong>1</strong> match" in html
    assert not Replay.objects.exists()


def test_the_admin_dismisses_the_selected(boss: Client) -> None:
    rows = [make_delivery(state=state) for state in (DEAD, DELIVERED)]
    data: dict[str, Any] = {"action": "dismiss_selected", "_selected_action": [row.pk for row in rows]}
    asked = text(boss.post(LIST, data))
    assert "1 dead delivery will be dismissed." in asked
    assert "Selected: 1 delivered, 1 dead. Only dead ones are dismissed." in asked
    assert rows[0].refreshed().state == DEAD
    assert "1 dismissed" in text(boss.post(LIST, data | {"apply": "1"}, follow=True))
    assert [row.refreshed().state for row in rows] == [CANCELLED, DELIVERED]
    assert "None of these is dead, so none can be dismissed." in text(boss.post(LIST, data | {"_selected_action": [rows[1].pk]}))
    assert "nothing was dismissed" in text(boss.post(LIST, data | {"_selected_action": [rows[1].pk], "apply": "1"}, follow=True))


def test_the_admin_lists_replays_and_cancels_them(boss: Client) -> None:
    make_delivery(state=DEAD)
    wish = start(Replay(delivery_state=DEAD, endpoint=make_endpoint()), by="bob")
    for url in ("/admin/delivery/replay/", f"/admin/delivery/replay/?q={wish.public_id}", reverse("admin:delivery_replay_change", args=[wish.pk])):
        assert wish.public_id in text(boss.get(url))
    assert wish.public_id not in text(boss.get("/admin/delivery/replay/?q=x"))
    data = {"action": "cancel_selected", "_selected_action": [wish.pk]}
    assert "1 running replay of 1 selected will be cancelled." in text(boss.post("/admin/delivery/replay/", data))
    assert wish.refreshed().running
    html = text(boss.post("/admin/delivery/replay/", data | {"apply": "1"}, follow=True))
    assert "1 cancelled. What they have done so far stays done." in html
    assert (wish.refreshed().state, wish.ended_by) == ("cancelled", "ada")
