"""The list of events and its filters, and the page of one event."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from delivery.models import Delivery, Event
from jetrelay.dashboard.events import search, verdicts
from jetrelay.dashboard.events.filters import Filters
from jetrelay.dashboard.events.search import PAGE, Search
from subscriptions.ids import first_id, moment_of, new_id
from subscriptions.models import Endpoint, EndpointPastState, Membership
from tests.builders import (
    DID,
    id_of,
    make_api_event,
    make_api_source,
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_member,
    make_source,
    make_subscription,
    make_tenant,
)

pytestmark = pytest.mark.django_db

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
HOUR = timedelta(hours=1)
HOSTILE = "<script>alert(1)</script>\u202e<img src=x onerror=alert(1)>javascript:alert(1)'\""


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, path: str = "", **query: Any) -> str:
    response = client.get(f"/events/{path}{'?' + urlencode(query) if query else ''}")
    assert response.status_code == 200, response
    return str(response.content.decode())


def listed(html: str, events: list[Event]) -> list[Event]:
    """Those of the events that the page lists, in the order of the page."""
    found = [(html.find(f'<tr id="{event.public_id}"'), event) for event in events]
    return [event for at, event in sorted(found, key=lambda each: each[0]) if at >= 0]


def aged(age: timedelta, **over: Any) -> Event:
    """An event that came so long ago, by its id as well."""
    moment = timezone.now() - age
    return make_event(id=id_of(age), received_at=moment, occurred_at=moment, **over)


# --- The list ------------------------------------------------------------------------------------------------------


def test_it_lists_events_newest_first_in_pages(boss: Client) -> None:
    events = [make_event() for _ in range(PAGE + 1)]
    html = page(boss)
    assert listed(html, events) == events[:0:-1]
    assert f'href="?before={events[1].public_id}"' in html
    older = page(boss, before=events[1].public_id)
    assert listed(older, events) == [events[0]]
    assert ">Newest</a>" in older
    assert "There are no older ones" in page(boss, before=events[0].public_id)


def test_it_says_what_to_do_while_nothing_is_stored(boss: Client) -> None:
    html = page(boss)
    assert "Nothing is stored yet" in html
    assert 'href="/endpoints/"' in html


FILTERED = [
    ({"type": "app.bsky.feed.post"}, "post"),
    ({"type": "app.bsky.feed.*"}, "post other"),
    ({"type": "app.bsky.fee.*"}, ""),
    ({"type": "order.*"}, "order"),
    ({"type": "*"}, "post other order upper"),
    ({"type": "APP.bsky.feed.*"}, "upper"),
    ({"subject": DID}, "post upper"),
    ({"subject": "did:plc:other"}, "other"),
    ({"kind": "api"}, "order"),
    ({"operation": "delete"}, "other"),
    ({"operation": "delete", "kind": "api"}, ""),
    ({"subject": DID, "type": "app.bsky.*"}, "post"),
    ({"q": "needle"}, "other"),
    ({"q": "Needle"}, ""),
    ({"q": "100%"}, "order"),
    ({"q": "100_"}, ""),
    ({"q": "%"}, "order"),
    ({"q": "_"}, "order post upper other"),
    ({"q": "a\\b"}, "upper"),
    ({"q": "\\"}, "upper"),
    ({"q": "\0"}, "other"),
    ({"q": "é"}, "upper"),
    ({"q": "'; DROP"}, ""),
    ({"q": " end"}, "order"),
]


@pytest.fixture
def filtered() -> dict[str, Event]:
    return {
        "post": make_event(body=b'{"time_us": 1}'),
        "other": make_event(type="app.bsky.feed.like", operation="delete", subject="did:plc:other", body=b'{"a_b": "needle\0"}\xff'),
        "order": make_api_event(body=b'{"share_of": "100% end"}'),
        "upper": make_event(type="APP.bsky.feed.post", body='{"x_y": "a\\b é"}'.encode()),
    }


@pytest.mark.parametrize(("query", "names"), FILTERED)
def test_it_filters(query: dict[str, str], names: str, boss: Client, filtered: dict[str, Event]) -> None:
    html = page(boss, **query)
    assert {name for name, event in filtered.items() if listed(html, [event])} == set(names.split())
    assert "note warning" not in html
    if not names:
        assert "No event matches these filters" in html


def test_it_filters_by_source(boss: Client) -> None:
    streamed, posted = make_event(), make_api_event()
    html = page(boss, source=posted.source.public_id)
    assert listed(html, [streamed, posted]) == [posted]
    assert f'<option value="{posted.source.public_id}" selected>' in html


def test_it_filters_by_time(boss: Client) -> None:
    events = [aged(age) for age in (timedelta(days=2), 2 * HOUR, timedelta(minutes=30), timedelta(minutes=1))]
    day, half, now = (timezone.now() - timedelta(days=1), timezone.now() - HOUR / 2 - timedelta(seconds=2), timezone.now())
    for query, found in (
        ({"last": "1d"}, events[:0:-1]),
        ({"last": "1h"}, events[:1:-1]),
        ({"last": "5m"}, events[3:]),
        ({"from": f"{day:%Y-%m-%dT%H:%M:%S}"}, events[:0:-1]),
        ({"to": f"{day:%Y-%m-%d %H:%M}"}, events[:1]),
        ({"from": f"{day:%Y-%m-%d}", "to": f"{half:%Y-%m-%dT%H:%M:%SZ}"}, [events[1]]),
        ({"from": f"{day:%Y-%m-%dT%H:%M}", "last": "1h"}, events[:1:-1]),
        ({"from": f"{now:%Y-%m-%dT%H:%M:%S}"}, []),
        ({"to": "1971-01-01"}, []),
        ({"from": "9998-12-31"}, []),
    ):
        assert listed(page(boss, **query), events) == found, query


def test_it_keeps_the_other_filters_where_a_time_is_chosen_and_on_older_pages(boss: Client) -> None:
    events = [make_event(subject="did:plc:é&x") for _ in range(PAGE + 1)]
    subject = quote("did:plc:é&x", safe="")
    html = page(boss, subject="did:plc:é&x", **{"from": "2001-01-01"})
    assert f'href="?subject={subject}&amp;last=1h"' in html
    assert f'href="?subject={subject}&amp;from=2001-01-01T00%3A00%3A00&amp;before={events[1].public_id}"' in html
    assert f'href="/tail/?subject={subject}"' in html


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"type": "a b"}, "is not a collection"),
        ({"type": "\0"}, "is not a collection"),
        ({"subject": "a\0b"}, "No subject is like this one"),
        ({"subject": "x" * 3000}, "No subject is like this one"),
        ({"kind": "lost"}, "There is no kind “lost”"),
        ({"operation": "lost"}, "There is no operation “lost”"),
        ({"last": "2h"}, "There is no span of time “2h”"),
        ({"source": "x"}, "“x” is not a source&#x27;s id"),
        ({"from": "yesterday"}, "“yesterday” is not a time"),
        ({"from": "2026-02-30"}, "is not a time"),
        ({"to": "1960-01-01 00:00"}, "is not a time"),
        ({"to": "2026-01-01T00:00+05:00"}, "is not a time"),
        ({"before": "x"}, "“x” is not an event&#x27;s id"),
        ({"q": "x" * 201}, "Only the first 200 characters"),
    ],
)
def test_it_says_which_part_of_the_url_it_did_not_understand(query: dict[str, str], words: str, boss: Client) -> None:
    event = make_event(body=b"x" * 300)
    html = page(boss, **query)
    assert words in html
    assert listed(html, [event]) == [event]


def test_it_goes_to_an_event_by_its_id(boss: Client) -> None:
    event = make_event()
    assert boss.get(f"/events/?q=+{event.public_id}")["Location"] == f"/events/{event.public_id}/"
    html = page(boss, q=f"evt_{new_id().hex}")
    assert "No event has the id" in html
    # A part of an id is text like any other.
    assert "No event matches" in page(boss, q=event.public_id[:20])


def test_it_says_of_each_event_what_became_of_it(boss: Client) -> None:
    one, other = make_event(), make_event()
    for state in (DELIVERED, DELIVERED, DEAD):
        make_delivery(event=one, state=state)
    make_delivery(event=other)
    html = page(boss)
    row = html[html.index(f'<tr id="{one.public_id}"') :]
    row = row[: row.index("</tr>")]
    assert [words in row for words in ("2 delivered", "1 dead", "pending")] == [True, True, False]
    assert "1 pending" in html


def test_it_asks_the_database_little_for_a_page(boss: Client, django_assert_num_queries: Any) -> None:
    for _ in range(3):
        make_delivery(event=make_event(source=make_api_source(tenant=make_tenant(slug="other"), name=f"source {new_id().hex[-4:]}")))
    with django_assert_num_queries(6):
        # The session and its user, the list of sources, the events, their sources, what became of them.
        page(boss)
    with django_assert_num_queries(7):
        # And how far to look.
        page(boss, kind="commit")
    member = sign_in(make_member(make_tenant(slug="other")))
    with django_assert_num_queries(9):
        # And whose member it is, and which sources are theirs.
        page(member, kind="commit")


# --- How far it looks ----------------------------------------------------------------------------------------------


@pytest.fixture
def shortsighted(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(search, "MAX_LOOKED_AT", 4)
    return 4


def test_it_looks_no_further_than_so_many_rows_and_goes_on_from_there(boss: Client, shortsighted: int) -> None:
    events = [make_event(operation="delete" if number in (0, 5) else "create") for number in range(9)]
    html = page(boss, operation="delete")
    assert listed(html, events) == [events[5]]
    assert "Looked at 4 events, back to" in html
    assert f"{moment_of(events[5].pk):%Y-%m-%d %H:%M:%S}" in html
    assert f'href="?operation=delete&amp;before={events[5].public_id}">Look further back' in html
    second = page(boss, operation="delete", before=events[5].public_id)
    assert listed(second, events) == []
    assert "None of these matches" in second
    last = page(boss, operation="delete", before=events[1].public_id)
    assert listed(last, events) == [events[0]]
    assert "Looked at" not in last


def test_it_looks_at_the_rows_of_a_subject_alone(boss: Client, shortsighted: int) -> None:
    wanted = make_event(subject="did:plc:rare", operation="delete")
    for _ in range(9):
        make_event()
    assert listed(page(boss, subject="did:plc:rare", operation="delete"), [wanted]) == [wanted]
    assert "Looked at 4 events" in page(boss, subject=DID, operation="delete")


def test_it_looks_at_fewer_where_bodies_are_large(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_LOOKED_AT", 16)
    monkeypatch.setattr(search, "MAX_READ", 4_000)
    events = [make_event(body=b"x" * 900 + b"needle") for _ in range(20)]
    html = page(boss, q="no such")
    assert "Looked at 4 events" in html
    assert f"before={events[16].public_id}" in html
    assert listed(page(boss, q="needle"), events) == events[:15:-1]
    # Other filters do not read them; and one body is always looked at, however large.
    assert "Looked at 16 events" in page(boss, operation="delete")
    monkeypatch.setattr(search, "MAX_READ", 1)
    assert "Looked at 1 event," in page(boss, q="no such")


def test_a_page_of_everything_has_no_end_of_looking(boss: Client, shortsighted: int) -> None:
    events = [make_event() for _ in range(9)]
    assert listed(page(boss), events) == events[::-1]


def test_it_looks_at_the_rows_of_a_time_alone(boss: Client, shortsighted: int) -> None:
    wanted = aged(2 * HOUR, operation="delete")
    for _ in range(9):
        make_event()
    until = timezone.now() - HOUR
    assert listed(page(boss, operation="delete", to=f"{until:%Y-%m-%d %H:%M:%S}"), [wanted]) == [wanted]


def test_a_member_looks_past_what_is_not_theirs(shortsighted: int) -> None:
    member = sign_in(make_member(make_tenant()))
    mine = make_api_event()
    theirs = [make_api_event(source=make_api_source(tenant=make_tenant(slug="other"))) for _ in range(6)]
    html = page(member)
    assert listed(html, [mine, *theirs]) == []
    assert "Looked at 4 events" in html
    html = page(member, before=theirs[2].public_id)
    assert listed(html, [mine, *theirs]) == [mine]
    assert theirs[0].source.public_id not in html


@pytest.mark.postgresql
def test_it_never_goes_by_the_index_of_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are in no order of time: all of a source's would be read."""
    monkeypatch.setattr(search, "MAX_LOOKED_AT", 1000)
    rare, common = make_api_source(), make_source()
    Event.objects.bulk_create(
        Event(source=common, dedup_key=b"%d" % number, type="a.b", occurred_at=timezone.now(), received_at=timezone.now(), body=b"x")
        for number in range(10_000)
    )
    make_api_event(source=rare)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE delivery_event")
    plan = Search(Filters(source=rare.pk), [make_tenant()]).matching[:51].explain()
    assert "delivery_event_pkey" in plan
    assert "event_dedup" not in plan


# --- One event -----------------------------------------------------------------------------------------------------


def test_it_shows_an_event_and_where_it_came_from(boss: Client) -> None:
    host = "wss://jetstream.example/xrpc/network.bsky.jetstream.subscribeEvents"
    event = aged(HOUR, origin=host, origin_cursor=1_795_888_016_987_268, body=b'{"b":1,\r\n"a":1.50}')
    html = page(boss, f"{event.public_id}/")
    shown = (DID, host, "Jetstream v2", "1795888016987268", bytes(event.dedup_key).hex(), "18 bytes", f'href="/events/?subject={quote(DID, safe="")}"')
    assert [words for words in shown if words not in html] == []
    # Indented, and as it is.
    assert escape('{\n  "b": 1,\n  "a": 1.5\n}') in html
    assert escape('{"b":1,\r\n"a":1.50}') in html
    v1 = make_event(origin="wss://jetstream.example/subscribe")
    assert "Jetstream v1" in page(boss, f"{v1.public_id}/")


def test_it_says_who_posted_an_event(boss: Client) -> None:
    html = page(boss, f"{make_api_event(origin='key_0197').public_id}/")
    assert "Posted with" in html
    assert "key_0197" in html
    assert "Jetstream v" not in html


def test_it_gives_the_body_byte_for_byte_as_a_file(boss: Client) -> None:
    body = b'\n{"a": "<script>"}\r\n\0\xff'
    event = make_event(body=body)
    response = boss.get(f"/events/{event.public_id}/body/")
    assert response.content == body
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == f'attachment; filename="{event.public_id}.json"'
    assert response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("body", [f'{{"text": "{HOSTILE} \\ud800"}}'.encode(), HOSTILE.encode() + b"\xff\xfe\0", b"[" * 50_000, b"", b"\xed\xa0\x80"])
def test_it_shows_hostile_events_as_text(body: bytes, boss: Client) -> None:
    event = make_event(body=body, type=HOSTILE, subject=HOSTILE, operation="<b>", kind="<i>", origin=HOSTILE)
    endpoint = make_endpoint(name=HOSTILE[:100], state_reason=HOSTILE)
    make_subscription(endpoint=endpoint, collections=[HOSTILE])
    delivery = make_delivery(event=event, state=DEAD, endpoint=make_endpoint(name=HOSTILE[:100]))
    make_attempt(delivery=delivery, status=None, error=HOSTILE[:32], error_detail=HOSTILE)
    for html in (page(boss), page(boss, f"{event.public_id}/"), page(boss, q=HOSTILE), page(boss, subject=HOSTILE, type=HOSTILE)):
        for piece in ("<script>alert", "<img src=x", "<b>", "<i>", 'href="javascript'):
            assert piece not in html
    html = page(boss, f"{event.public_id}/")
    assert f"<bdi>{escape(HOSTILE)}</bdi>" in html
    assert ("The body is not UTF-8" in html) == (body[-1:] in (b"\0", b"\x80"))


def test_it_answers_404_for_an_event_that_is_not_there_or_not_theirs(boss: Client) -> None:
    member, theirs = sign_in(make_member(make_tenant())), make_api_event(source=make_api_source(tenant=make_tenant(slug="other")))
    for path in ("", "endpoints/", "body/"):
        assert boss.get(f"/events/evt_{'0' * 32}/{path}").status_code == 404
        assert boss.get(f"/events/{theirs.public_id}/{path}").status_code == 200
        assert member.get(f"/events/{theirs.public_id}/{path}").status_code == 404
    assert "No event has the id" in page(member, q=theirs.public_id)


# --- Its endpoints -------------------------------------------------------------------------------------------------


def piece(html: str, endpoint: Endpoint) -> str:
    start = html.index(f'<li id="at-{endpoint.public_id}"')
    return html[start : html.find('<li id="at-', start + 1)]


def test_it_tells_every_endpoint_with_its_verdict_and_what_to_do(boss: Client) -> None:
    event = aged(HOUR)
    dead, delivered, pending = (make_delivery(event=event, state=state, attempt_count=1, last_status=503).endpoint for state in (DEAD, DELIVERED, PENDING))
    attempt = make_attempt(delivery=Delivery.objects.get(endpoint=dead), status=503)
    late, deletes, none = make_subscription().endpoint, make_subscription(operations=["delete"]).endpoint, make_endpoint()
    gone = make_endpoint(state=Endpoint.State.DELETED)
    html = page(boss, f"{event.public_id}/")
    delivery_page = f"/deliveries/{Delivery.objects.get(endpoint=dead).public_id}/"
    since = quote(f"{event.received_at:%Y-%m-%dT%H:%M:%S}")
    for endpoint, shown, hidden in (
        (
            dead,
            ["Dead", "503 Service Unavailable", f'href="{delivery_page}"', f'href="{delivery_page}#{attempt.public_id}"', f'action="{delivery_page}replay/"'],
            ["Recover"],
        ),
        (delivered, ["Delivered", "data-replay"], []),
        (pending, ["Pending", "Owed, and due at"], ["data-replay"]),
        (
            late,
            ["Matches, not owed", "made after the event came", f'href="/replays/new/?action=recover&amp;endpoint={late.public_id}&amp;since={since}"'],
            ["data-replay"],
        ),
        (deletes, ["Not matched", "operation is create, and delete is wanted", f'href="/endpoints/{deletes.public_id}/"'], ["Recover what"]),
        (none, ["No subscription"], ["<details"]),
    ):
        part = piece(html, endpoint)
        assert [words for words in shown if words not in part] == []
        assert [words for words in hidden if words in part] == []
    assert gone.public_id not in html
    assert html.index(dead.public_id) < html.index('id="others"') < html.index(late.public_id)
    assert f'href="/replays/new/?action=replay&amp;event={event.public_id}"' in html


def test_it_says_in_which_state_an_endpoint_was_then(boss: Client) -> None:
    event, now = make_event(), timezone.now()
    endpoint = make_delivery(event=event).endpoint
    EndpointPastState.objects.create(endpoint=endpoint, state="paused", reason="for lunch", from_at=now - HOUR, to_at=now + HOUR)
    Endpoint.objects.filter(pk=endpoint.pk).update(created_at=now - HOUR, state_changed_at=now + HOUR)
    assert "It was paused then (for lunch)." in page(boss, f"{event.public_id}/")


def test_it_replays_to_one_and_comes_back(boss: Client) -> None:
    delivery = make_delivery(state=DEAD)
    url = f"/events/{delivery.event.public_id}/"
    back = f"{url}#at-{delivery.endpoint.public_id}"
    assert f'name="next" value="{back}"' in page(boss, url.removeprefix("/events/"))
    response = boss.post(f"/deliveries/{delivery.public_id}/replay/", {"next": back})
    assert response["Location"] == back
    assert "Back in the queue" in boss.get(url).content.decode()


def test_it_renews_itself_while_something_is_pending(boss: Client) -> None:
    delivery = make_delivery()
    url = f"/events/{delivery.event.public_id}/"
    renewal = f'hx-get="{url}endpoints/?endpoint={delivery.endpoint.public_id}"'
    query = f"endpoints/?endpoint={delivery.endpoint.public_id}"
    html = boss.get(f"{url}{query}").content.decode()
    assert renewal in html
    assert "<html" not in html
    Delivery.objects.update(state=DELIVERED)
    assert renewal not in boss.get(f"{url}{query}").content.decode()


def test_it_shows_endpoints_in_pages(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "PAGE", 2)
    event = make_event()
    owed = [make_delivery(event=event).endpoint for _ in range(3)][::-1]
    others = [make_endpoint() for _ in range(3)][::-1]

    def shown(**query: Any) -> list[Endpoint]:
        html = page(boss, f"{event.public_id}/", **query)
        return [each for each in (*owed, *others) if f'<li id="at-{each.public_id}"' in html]

    html = page(boss, f"{event.public_id}/")
    assert shown() == [*owed[:2], *others[:2]]
    assert f'href="?owed_after={owed[1].public_id}#owed"' in html
    assert f'href="?others_after={others[1].public_id}#others"' in html
    assert shown(owed_after=owed[1].public_id) == [owed[2], *others[:2]]
    assert shown(others_after=others[1].public_id) == [*owed[:2], others[2]]
    assert shown(endpoint=others[2].public_id) == [others[2]]
    assert shown(endpoint=owed[2].public_id) == [owed[2]]
    assert "No endpoint has this id" in page(boss, f"{event.public_id}/", endpoint=f"ep_{new_id().hex}")
    assert "“x” is not an endpoint&#x27;s id" in page(boss, f"{event.public_id}/", endpoint="x")


def test_it_shows_the_latest_attempts(boss: Client) -> None:
    delivery = make_delivery(state=DEAD, attempt_count=8)
    attempts = [make_attempt(delivery=delivery, number=number, status=500) for number in range(1, 9)]
    html = page(boss, f"{delivery.event.public_id}/")
    assert [f"#{attempt.public_id}" in html for attempt in attempts] == [False] * 3 + [True] * 5
    assert "3 earlier attempts" in html


@pytest.mark.parametrize("count", [1, 12])
def test_it_asks_the_database_little_however_many_endpoints_there_are(count: int, boss: Client, django_assert_num_queries: Any) -> None:
    event = make_event()
    for _ in range(count):
        make_attempt(delivery=make_delivery(event=event, endpoint=make_subscription().endpoint))
        make_subscription(endpoint=make_subscription().endpoint)
    with django_assert_num_queries(10):
        # The session and its user, the event, what became of it, two lists of endpoints, and the four of `why_all`.
        page(boss, f"{event.public_id}/")


def test_a_member_sees_their_endpoints_alone_and_a_viewer_no_button() -> None:
    event = make_event()
    mine, theirs = (make_delivery(event=event, state=DEAD, endpoint=make_endpoint(tenant=make_tenant(slug=slug))).endpoint for slug in ("mine", "theirs"))
    unowed = make_endpoint(tenant=theirs.tenant)
    for role, acts in ((Membership.Role.MEMBER, True), (Membership.Role.VIEWER, False)):
        client = sign_in(make_member(mine.tenant, role))
        html = page(client, f"{event.public_id}/")
        assert mine.public_id in html
        assert [each for each in (theirs, unowed) if each.public_id in html or each.name in html] == []
        assert "1 dead" in html
        assert ("data-replay" in html) == acts
        assert ("/replays/new/" in html) == acts
        assert "1 dead" in page(client)
        for name in ("endpoint", "owed_after", "others_after"):
            assert f'<li id="at-{theirs.public_id}"' not in page(client, f"{event.public_id}/", **{name: theirs.public_id})


def test_a_moment_and_the_first_id_of_it_are_each_others_inverse() -> None:
    now = timezone.now()
    moment = now.replace(microsecond=now.microsecond // 1000 * 1000)
    assert moment_of(first_id(now)) == moment
    # Of an id that is no time it says something all the same.
    assert moment_of(UUID(int=(1 << 128) - 1)).year == 9999
