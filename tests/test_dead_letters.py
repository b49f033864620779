"""The list of deliveries by its filters, and dead letters in bulk: ticked, counted, then replayed or dismissed."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from delivery import endpoints, replay
from delivery.models import Delivery, Event
from jetrelay.dashboard.deliveries import finding, outcomes, views
from jetrelay.dashboard.deliveries.filters import Filters
from jetrelay.dashboard.deliveries.finding import PAGE, find
from subscriptions.models import Endpoint, Membership
from tests.builders import id_of, make_delivery, make_endpoint, make_event, make_member, make_tenant

pytestmark = pytest.mark.django_db

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
LIST, SELECTED = "/deliveries/", "/deliveries/selected/"


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def member_of(tenant: Any, role: str = Membership.Role.MEMBER) -> Client:
    client = Client()
    client.force_login(make_member(tenant, role))
    return client


def text(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def listed(html: str) -> list[str]:
    return re.findall(r'<tr id="(dlv_\w+)"', html)


def ids(*rows: Delivery) -> list[str]:
    return [row.public_id for row in rows]


def make_old(age: timedelta, **over: Any) -> Delivery:
    return make_delivery(id=id_of(age), created_at=timezone.now() - age, **over)


# --- Filters ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        ("500", ["500"]),
        ("5xx", ["500", "503"]),
        ("5XX", ["500", "503"]),
        ("4xx", ["404"]),
        ("timed out", ["timeout"]),
        (" Timed  Out ", ["timeout"]),
        ("timeout", ["timeout"]),
        ("could not connect", ["connect"]),
        ("none", ["none"]),
    ],
)
def test_it_filters_by_the_last_outcome(outcome: str, found: list[str], boss: Client) -> None:
    rows = {name: make_delivery(state=DEAD, last_status=int(name)) for name in ("404", "500", "503")}
    # A status may have come before the connection broke.
    rows |= {name: make_delivery(state=DEAD, last_error=name, last_status=500 if name == "reset" else None) for name in ("timeout", "connect", "reset")}
    rows["none"] = make_delivery()
    html = text(boss.get(LIST, {"outcome": outcome}))
    assert listed(html) == ids(*(rows[name] for name in reversed(found)))


def test_it_knows_every_outcome_that_it_offers() -> None:
    assert all(outcomes.read(words) for words in outcomes.OFFERED)
    assert [outcomes.read(text) for text in ("", "lost", "0xx", "50", "5000", "٥٠٠", "5xx'")] == [None] * 7


@pytest.mark.parametrize("type", ["app.bsky.feed.post", "app.bsky.feed.*", "app.*"])
def test_it_filters_by_type_with_wildcards(type: str, boss: Client) -> None:
    wanted = make_delivery()
    make_delivery(event=make_event(type="app_bsky.feed.post"))
    make_delivery(event=make_event(type="APP.bsky.feed.post"))
    assert listed(text(boss.get(LIST, {"type": type}))) == ids(wanted)


def test_it_filters_by_kind_where_events_have_no_type(boss: Client) -> None:
    wanted = make_delivery(event=make_event(kind="identity", type=""))
    make_delivery()
    html = text(boss.get(LIST, {"type": "identity"}))
    assert listed(html) == ids(wanted)
    assert "replay-all" not in html


def test_it_filters_by_time_from_a_moment_on_and_before_one(boss: Client) -> None:
    rows = [make_old(timedelta(hours=hours)) for hours in (3, 2, 1)]
    at = [f"{row.created_at:%Y-%m-%dT%H:%M:%S}" for row in rows]
    late = f"{rows[1].created_at + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"
    assert listed(text(boss.get(LIST, {"since": at[1]}))) == ids(rows[2], rows[1])
    assert listed(text(boss.get(LIST, {"until": late}))) == ids(rows[1], rows[0])
    html = text(boss.get(LIST, {"since": at[1], "until": late}))
    assert listed(html) == ids(rows[1])
    assert f'name="since" step="1" value="{at[1]}"' in html


def test_it_goes_on_with_the_same_filters(boss: Client) -> None:
    endpoint = make_endpoint()
    rows = [make_delivery(endpoint=endpoint, state=DEAD, last_status=500) for _ in range(PAGE + 1)]
    make_delivery(endpoint=endpoint, state=DEAD, last_status=404)
    query = f"state=dead&endpoint={endpoint.public_id}&type=app.*&outcome=5xx&since=2026-01-01T00%3A00%3A00"
    html = text(boss.get(f"{LIST}?{query}"))
    assert listed(html) == ids(*rows[:0:-1])
    assert Filters.read({"outcome": "500", "since": "2026-01-01 00:00"}).query() == "outcome=500&since=2026-01-01T00%3A00%3A00"
    older = re.search(r'rel="next" href="([^"]+)"', html)
    assert older
    assert listed(text(boss.get(LIST + older[1].replace("&amp;", "&")))) == ids(rows[0])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"outcome": "lost"}, "“lost” is not an outcome"),
        ({"since": "soon"}, "This is not a time"),
        ({"until": "9999-12-31"}, "This is not a time"),
        ({"since": "2026-02-02", "until": "2026-02-01"}, "ends before it begins"),
        ({"type": "a.*.b"}, "is not a collection"),
        ({"before": "x"}, "not a delivery"),
        ({"outcome": "<script>"}, "“&lt;script&gt;” is not an outcome"),
    ],
)
def test_it_says_what_of_the_url_it_did_not_understand(query: dict[str, str], words: str, boss: Client) -> None:
    assert words in text(boss.get(LIST, query))


# --- Endpoints to choose from ------------------------------------------------------------------------------------------------


def test_it_finds_endpoints_by_a_part_of_their_name(boss: Client) -> None:
    shop, other, billing = (make_endpoint(name=name) for name in ("Shop <orders>", "Elsewhere", "Billing orders"))
    rows = [make_delivery(endpoint=endpoint) for endpoint in (shop, other, billing)]
    html = text(boss.get(LIST, {"endpoint": "ORDERS"}))
    assert listed(html) == ids(rows[2], rows[0])
    assert '<input name="endpoint" value="ORDERS"' in html
    html = text(boss.get(LIST, {"endpoint": "shop"}))
    assert listed(html) == ids(rows[0])
    # A name that one alone has is as good as its id.
    assert f'value="{shop.public_id}" selected' in html
    assert f"endpoint={shop.public_id}" in html


def test_it_has_a_field_where_there_are_too_many_for_a_list(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "ENDPOINTS_SHOWN", 2)
    rows = [make_delivery(endpoint=make_endpoint(name=f"Number {number}")) for number in range(4)]
    html = text(boss.get(LIST))
    assert '<select name="endpoint">' not in html
    assert html.count('<option value="ep_') == 2
    last = rows[3].endpoint
    html = text(boss.get(LIST, {"endpoint": last.public_id}))
    assert listed(html) == ids(rows[3])
    assert f'name="endpoint" value="{last.public_id}"' in html
    assert listed(text(boss.get(LIST, {"endpoint": "number 3"}))) == ids(rows[3])


def test_it_shows_which_endpoint_is_chosen_even_if_it_is_deleted(boss: Client) -> None:
    row = make_delivery(state=DELIVERED, endpoint=make_endpoint(name="Gone"))
    endpoints.delete(row.endpoint)
    html = text(boss.get(LIST, {"endpoint": row.endpoint.public_id}))
    assert f'<option value="{row.endpoint.public_id}" selected>Gone' in html
    assert listed(html) == ids(row)
    assert f'href="/endpoints/{row.endpoint.public_id}/"' not in html


def test_a_name_leads_to_no_endpoint_of_others() -> None:
    mine, _ = (make_delivery(endpoint=make_endpoint(name="orders", tenant=make_tenant(slug=slug))) for slug in ("a", "b"))
    assert listed(text(member_of(mine.endpoint.tenant).get(LIST, {"endpoint": "orders"}))) == ids(mine)
    assert "No endpoint is called" in text(member_of(make_tenant(slug="c")).get(LIST, {"endpoint": "orders"}))


def test_a_row_leads_to_its_event_and_its_endpoint(boss: Client) -> None:
    row = make_delivery()
    html = text(boss.get(LIST))
    assert f'href="/events/{row.event.public_id}/"' in html
    assert f'href="/endpoints/{row.endpoint.public_id}/"' in html


# --- How far it looks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["superuser", "member"])
def test_it_looks_through_so_many_and_says_how_far_it_came(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "WINDOW", (2, 3))
    endpoint = make_endpoint()
    rows = [make_delivery(endpoint=endpoint, state=DEAD, last_status=500 if number < 2 else 404) for number in range(9)]
    client = member_of(endpoint.tenant)
    if who == "superuser":
        client.force_login(User.objects.create_superuser("ada"))
    html = text(client.get(LIST, {"outcome": "500"}))
    assert listed(html) == []
    assert "None matches among the newest 5, back to" in html
    further = re.search(r'id="further-back" rel="next" href="([^"]+)"', html)
    assert further
    assert further[1] == f"?outcome=500&amp;before={rows[4].public_id}"
    html = text(client.get(LIST + further[1].replace("&amp;", "&")))
    assert listed(html) == ids(rows[1], rows[0])
    assert "Look further back" not in html


def test_it_tells_the_time_to_which_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "WINDOW", (1,))
    rows = [make_old(timedelta(hours=hours)) for hours in (3, 2)]
    found = find(Filters.read({"state": "dead"}), None)
    assert found.rows == []
    assert find(Filters.read({"state": "delivered"}), None).back_to == datetime.fromtimestamp((rows[1].pk.int >> 80) / 1000, UTC)


def test_dead_letters_are_found_by_their_index_however_many_others_there_are(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "WINDOW", (1, 1))
    dead = make_delivery(state=DEAD)
    for _ in range(5):
        make_delivery(endpoint=dead.endpoint, state=DELIVERED)
    assert listed(text(boss.get(LIST, {"state": "dead"}))) == ids(dead)


def test_it_asks_little_however_much_is_filtered(boss: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(4):
        make_delivery(state=DEAD, last_status=500, endpoint=make_endpoint(name=f"orders {number}"))
    with django_assert_max_num_queries(9):
        text(boss.get(LIST, {"state": "dead"}))
    # On PostgreSQL the planner is told what to do, in a transaction of its own.
    with django_assert_max_num_queries(13):
        text(boss.get(LIST, {"state": "dead", "outcome": "500", "type": "app.*", "since": "2026-01-01"}))
    with django_assert_max_num_queries(10):
        text(boss.get(LIST, {"state": "dead", "endpoint": "orders", "outcome": "500"}))


# --- Dismissed, or cancelled -----------------------------------------------------------------------------------------------


def test_what_was_dismissed_is_called_so_and_what_a_deletion_cancelled_is_not(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    waiting = make_delivery(endpoint=row.endpoint)
    replay.dismiss([row.pk])
    html = text(boss.get(LIST, {"state": "cancelled"}))
    assert "Dismissed</span>" in html
    endpoints.delete(row.endpoint)
    rows = dict(re.findall(r'<tr id="(dlv_\w+)".*?</svg>\s*(\w+)</span>', text(boss.get(LIST, {"state": "cancelled"})), re.DOTALL))
    assert rows == {row.public_id: "Dismissed", waiting.public_id: "Cancelled"}
    assert "Dismissed" in text(boss.get(f"/deliveries/{row.public_id}/"))


# --- Dead letters in bulk ----------------------------------------------------------------------------------------------------


def test_it_counts_the_dead_of_each_endpoint_and_leads_to_them(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "DEAD_LIMIT", 2)
    bad, worse, well = (make_endpoint(name=name) for name in ("<b>Bad", "Worse", "Well"))
    for endpoint in (bad, worse, worse, worse):
        make_delivery(state=DEAD, endpoint=endpoint)
    make_delivery(state=DELIVERED, endpoint=well)
    found = re.findall(r'id="dead-of-(ep_\w+)" href="([^"]+)"><bdi>([^<]*)</bdi></a> <strong>([^<]*)<', text(boss.get(LIST, {"state": "dead"})))
    assert found == [
        (each.public_id, f"?state=dead&amp;endpoint={each.public_id}", name, count)
        for each, name, count in [(worse, "Worse", "2+"), (bad, "&lt;b&gt;Bad", "1")]
    ]
    assert "dead-at" not in text(boss.get(LIST, {"state": "dead", "endpoint": bad.public_id}))


@pytest.mark.parametrize(("action", "state", "told"), [("replay", PENDING, "2 back in the queue."), ("dismiss", CANCELLED, "2 dismissed")])
def test_it_counts_what_is_ticked_and_then_does_it(action: str, state: int, told: str, boss: Client) -> None:
    rows = [make_delivery(state=DEAD) for _ in range(3)]
    html = text(boss.get(LIST, {"state": "dead"}))
    assert html.count('type="checkbox" name="delivery"') == 3
    chosen = {"action": action, "delivery": ids(*rows[:2]), "next": "/deliveries/?state=dead&outcome=500"}
    html = text(boss.get(SELECTED, chosen))
    assert f"<h1>{action.capitalize()} 2 deliveries?</h1>" in html
    assert [row.refreshed().state for row in rows] == [DEAD] * 3
    data: dict[str, Any] = {"delivery": re.findall(r'type="hidden" name="delivery" value="(\w+)"', html)}
    data |= dict(re.findall(r'type="hidden" name="(action|next)" value="([^"]*)"', html.partition("</main>")[0].replace("&amp;", "&")))
    response = boss.post(SELECTED, data, follow=True)
    assert response.redirect_chain == [("/deliveries/?state=dead&outcome=500", 302)]
    assert told in text(response)
    assert [row.refreshed().state for row in rows] == [state, state, DEAD]


def test_it_says_what_is_left_out_and_why(boss: Client) -> None:
    good, pruned, deleted, again = (make_delivery(state=DEAD) for _ in range(4))
    Event.objects.filter(pk=pruned.event_id)._raw_delete("default")
    endpoints.delete(deleted.endpoint)
    Delivery.objects.filter(pk=again.pk).update(state=DELIVERED)
    chosen = [*ids(good, pruned, deleted), f"dlv_{'0' * 32}", "nonsense"]
    html = text(boss.get(SELECTED, {"action": "replay", "delivery": chosen}))
    for words in ("Replay 1 delivery?", "1 left out: without its event", "1 left out: of an endpoint that is deleted", "1 left out: not there"):
        assert words in html
    html = text(boss.post(SELECTED, {"action": "replay", "delivery": chosen}, follow=True))
    assert "1 back in the queue. 3 could not be." in html
    assert [row.refreshed().state for row in (good, pruned, deleted)] == [PENDING, DEAD, DEAD]
    html = text(boss.get(SELECTED, {"action": "dismiss", "delivery": ids(again)}))
    assert "Nothing to dismiss" in html
    assert "1 left out: not dead (any more)" in html


def test_it_says_that_nothing_is_selected(boss: Client) -> None:
    for response in (boss.get(SELECTED), boss.post(SELECTED, {"action": "dismiss"})):
        assert "Nothing is selected" in text(response)


def test_nobody_selects_what_is_not_theirs_to_change() -> None:
    mine, theirs = (make_delivery(state=DEAD, endpoint=make_endpoint(tenant=make_tenant(slug=slug))) for slug in ("a", "b"))
    client = member_of(mine.endpoint.tenant)
    html = text(client.get(SELECTED, {"action": "replay", "delivery": ids(mine, theirs)}))
    assert "Replay 1 delivery?" in html
    assert "1 left out: not there" in html
    client.post(SELECTED, {"action": "replay", "delivery": ids(mine, theirs)})
    assert [row.refreshed().state for row in (mine, theirs)] == [PENDING, DEAD]
    both = make_member(mine.endpoint.tenant)
    Membership.objects.create(tenant=theirs.endpoint.tenant, user=both, role=Membership.Role.VIEWER)
    client.force_login(both)
    html = text(client.get(LIST, {"state": "dead"}))
    assert listed(html) == ids(theirs)
    assert 'type="checkbox" name="delivery"' not in html
    assert client.post(SELECTED, {"action": "dismiss", "delivery": ids(theirs)}).status_code == 403
    assert theirs.refreshed().state == DEAD


def test_a_viewer_has_nothing_to_tick() -> None:
    row = make_delivery(state=DEAD)
    client = member_of(row.endpoint.tenant, Membership.Role.VIEWER)
    assert "checkbox" not in text(client.get(LIST, {"state": "dead"}))
    assert client.get(SELECTED, {"delivery": row.public_id}).status_code == 403


def test_it_goes_nowhere_else_from_a_selection(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    response = boss.post(SELECTED, {"action": "replay", "delivery": row.public_id, "next": "https://evil.example/"})
    assert response["Location"] == "/deliveries/?state=dead"
    assert "evil.example" not in text(boss.get(SELECTED, {"next": "//evil.example/"})).partition("</main>")[0]


def test_it_ticks_all_on_the_page_by_a_link(boss: Client) -> None:
    make_delivery(state=DEAD)
    assert 'href="?state=dead&amp;select=page"' in text(boss.get(LIST, {"state": "dead"}))
    html = text(boss.get(LIST, {"state": "dead", "select": "page"}))
    assert re.search(r'name="delivery" value="dlv_\w+" form="selection" checked', html)


def test_a_row_that_was_replayed_keeps_its_columns(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    url, headers = f"/deliveries/{row.public_id}/replay/", {"HX-Request": "true", "HX-Target": row.public_id}
    before = text(boss.get(LIST, {"state": "dead"})).partition(f'<tr id="{row.public_id}"')[2].partition("</tr>")[0]
    after = text(boss.post(url, {"selecting": "1"}, headers=headers))
    assert before.count("<td") == after.count("<td") == 9


def test_what_no_replay_can_be_told_offers_none_of_all(boss: Client) -> None:
    make_delivery(state=DEAD, last_error="timeout")
    html = text(boss.get(LIST, {"state": "dead", "outcome": "timed out"}))
    assert "replay-all" not in html
    assert "select them page by page" in html
    query = Filters.read({"state": "dead", "type": "app.*", "since": "2026-01-01"}).to_dismiss
    assert query == "action=dismiss&delivery_state=dead&collections=app.%2A&since=2026-01-01T00%3A00%3A00"
    assert Endpoint.objects.count() == 1
