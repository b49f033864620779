"""The live tail: every event once, in whatever order it is committed, and no more than somebody can read."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from delivery.models import Event
from jetrelay.dashboard.events import search
from jetrelay.dashboard.tail import arrivals
from jetrelay.dashboard.tail.arrivals import MOST_AT_FIRST, MOST_NEW, Cursor
from subscriptions.ids import first_id, moment_of
from tests.builders import id_of, make_api_event, make_api_source, make_event, make_member, make_source, make_tenant

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
HOSTILE = "<script>alert(1)</script>\u202e<img src=x onerror=alert(1)>"


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


class Tail:
    """Somebody with the page open: asks as its poller would."""

    def __init__(self, client: Client, **query: str) -> None:
        self.client, self.query = client, query
        self.html = self.ask("/tail/")

    def ask(self, url: str, **headers: str) -> str:
        response = self.client.get(f"{url}?{urlencode(self.query)}", headers=headers)
        assert response.status_code == 200, response
        html = str(response.content.decode())
        for name in ("after", "seen"):
            found = re.search(f'name="{name}" value="([^"]*)"', html)
            self.query[name] = found[1] if found else ""
        self.html = html
        return html

    def poll(self) -> list[str]:
        """The ids of what is new, from the top."""
        self.ask("/tail/new/", **{"HX-Request": "true", "HX-Target": "poller"})
        return self.shown()

    def shown(self) -> list[str]:
        return re.findall('<li id="(evt_[0-9a-f]{32})"', self.html)

    def skipped(self) -> str:
        found = re.search('<li class="skipped">([^<]*)</li>', self.html)
        return found[1] if found else ""


def ids(events: list[Event]) -> list[str]:
    return [event.public_id for event in events]


def late(by: timedelta, **over: Any) -> Event:
    """An event that was made before others and is committed after them."""
    return make_event(id=id_of(by), **over)


# --- What is new ---------------------------------------------------------------------------------------------------


def test_it_begins_with_the_newest(boss: Client) -> None:
    events = [make_event() for _ in range(MOST_AT_FIRST + 1)]
    tail = Tail(boss)
    assert tail.shown() == ids(events[:0:-1])
    assert tail.skipped() == ""
    assert tail.poll() == []


def test_it_shows_each_new_event_once_on_top(boss: Client) -> None:
    make_event()
    tail = Tail(boss)
    for _ in range(3):
        new = [make_event(), make_event()]
        assert tail.poll() == ids(new[::-1])
        assert '<ol hx-swap-oob="afterbegin:#arrivals">' in tail.html
    assert tail.poll() == []
    # Nothing to put there, and yet the next poll.
    assert "<ol" not in tail.html
    assert 'hx-get="/tail/new/"' in tail.html


def test_it_begins_where_there_is_nothing(boss: Client) -> None:
    tail = Tail(boss)
    assert "Nothing has come yet" in tail.html
    assert tail.poll() == []
    event = make_event()
    assert tail.poll() == ids([event])


def test_it_shows_an_event_that_is_committed_after_later_ones(boss: Client) -> None:
    tail = Tail(boss)
    first = make_event()
    assert tail.poll() == ids([first])
    for by in (SECOND, 2 * SECOND, 4 * SECOND):
        straggler = late(by)
        assert tail.poll() == ids([straggler])
    assert tail.poll() == []
    # What is older than a few seconds was shown at the time, or passed over.
    late(arrivals.LOOK_BACK + 3 * SECOND)
    assert tail.poll() == []


def test_it_keeps_the_cursor_short(boss: Client) -> None:
    """Of what is older than the seconds that are looked at again, nothing has to be known."""
    old = [make_event(id=id_of(number * SECOND)) for number in range(60, 10, -1)]
    tail = Tail(boss)
    make_event()
    tail.poll()
    assert len(tail.query["seen"]) == 8
    assert moment_of(UUID(hex=tail.query["after"][4:])) > moment_of(old[-1].pk)


def test_it_goes_by_the_clock_that_is_behind(boss: Client) -> None:
    """Ids from a clock that is ahead do not hide those that come after them."""
    tail = Tail(boss)
    ahead = make_event(id=first_id(timezone.now() + timedelta(hours=1)))
    assert tail.poll() == ids([ahead])
    here = make_event()
    assert tail.poll() == ids([here])
    assert tail.poll() == []


# --- Too many ------------------------------------------------------------------------------------------------------


def test_it_skips_what_is_too_much_and_says_so(boss: Client) -> None:
    tail = Tail(boss)
    events = [make_event() for _ in range(MOST_NEW + 3)]
    assert tail.poll() == ids(events[: -MOST_NEW - 1 : -1])
    assert tail.skipped() == "3 skipped: too many to show"
    # Under the rows that came after those that are skipped.
    assert tail.html.index("3 skipped") > tail.html.index(events[-MOST_NEW].public_id)
    assert tail.poll() == []
    assert tail.skipped() == ""
    straggler = make_event()
    assert tail.poll() == ids([straggler])


def test_it_does_not_count_as_skipped_what_was_shown_before(boss: Client) -> None:
    tail = Tail(boss)
    for _ in range(10):
        make_event()
    assert len(tail.poll()) == 10
    for _ in range(MOST_NEW + 1):
        make_event()
    assert len(tail.poll()) == MOST_NEW
    assert tail.skipped() == "1 skipped: too many to show"


def test_it_shows_a_straggler_even_while_it_skips(boss: Client) -> None:
    tail = Tail(boss)
    events = [make_event() for _ in range(MOST_NEW + 3)]
    tail.poll()
    straggler = make_event(id=UUID(int=events[-2].pk.int + 1))
    assert tail.poll() == ids([straggler])


def test_it_counts_and_looks_no_further_than_to_a_bound(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (search, arrivals):
        monkeypatch.setattr(module, "MAX_LOOKED_AT", 40)
    plain, filtered, other = Tail(boss), Tail(boss, operation="create"), Tail(boss, operation="delete")
    events = [make_event() for _ in range(50)]
    for tail in (plain, filtered):
        assert tail.poll() == ids(events[: -MOST_NEW - 1 : -1])
        assert tail.skipped() == "More than 15 skipped: too many to show"
    assert other.poll() == []
    assert other.skipped() == "Some were passed over: too many to look at"


# --- Filters, and what is understood ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"type": "app.bsky.feed.*"}, "liked"),
        ({"subject": "did:plc:x"}, "liked"),
        ({"operation": "delete"}, "deleted"),
        ({"kind": "api"}, "posted"),
        ({"kind": "commit", "operation": "create"}, "liked"),
    ],
)
def test_it_filters_what_arrives(query: dict[str, str], wanted: str, boss: Client) -> None:
    tail = Tail(boss, **query)
    events = {
        "liked": make_event(type="app.bsky.feed.like", subject="did:plc:x"),
        "deleted": make_event(type="app.bsky.graph.follow", operation="delete"),
        "posted": make_api_event(),
    }
    assert tail.poll() == ids([events[wanted]])
    assert Tail(boss, **query).shown() == ids([events[wanted]])
    assert f"/tail/new/?{urlencode(query)}".replace("&", "&amp;") in tail.html


def test_it_filters_by_source(boss: Client) -> None:
    tail = Tail(boss, source=make_api_source().public_id)
    make_event()
    posted = make_api_event()
    assert tail.poll() == ids([posted])


def test_it_has_no_filters_for_what_has_been(boss: Client) -> None:
    event = make_event()
    tail = Tail(boss, q="no such text", last="5m", to="2001-01-01", before=event.public_id)
    assert tail.shown() == ids([event])
    assert 'hx-get="/tail/new/"' in tail.html


def test_it_shows_a_member_what_is_theirs() -> None:
    client = Client()
    client.force_login(make_member(make_tenant()))
    tail = Tail(client)
    theirs = make_api_event(source=make_api_source(tenant=make_tenant(slug="other")))
    mine, shared = make_api_event(), make_event()
    assert tail.poll() == ids([shared, mine])
    assert theirs.public_id not in tail.html


@pytest.mark.parametrize(
    ("query", "words"),
    [({"after": "x"}, "“x” is not an event&#x27;s id"), ({"seen": "xyz"}, "may be shown twice"), ({"type": "a b"}, "is not a collection")],
)
def test_it_says_which_part_of_the_url_it_did_not_understand(query: dict[str, str], words: str, boss: Client) -> None:
    event = make_event()
    tail = Tail(boss, **query)
    assert words in tail.html
    assert tail.shown() == ids([event])


def test_it_takes_no_longer_list_of_what_is_seen_than_it_makes() -> None:
    assert Cursor.read({"seen": "0" * 8 * 500}).problem == ""
    assert Cursor.read({"seen": "0" * 8 * 501}).problem
    assert Cursor.read({"seen": "0" * 7}).problem


def test_it_shows_hostile_events_as_text(boss: Client) -> None:
    tail = Tail(boss)
    make_event(type=HOSTILE, subject=HOSTILE, operation="<b>", source=make_source(name=HOSTILE))
    assert len(tail.poll()) == 1
    for html in (tail.html, Tail(boss).html, Tail(boss, subject=HOSTILE).html):
        assert [piece for piece in ("<script>alert", "<img src=x", "<b>") if piece in html] == []


# --- Paused, and without script ------------------------------------------------------------------------------------


def test_it_stands_still_while_it_is_paused(boss: Client) -> None:
    make_event()
    html = Tail(boss, paused="1", operation="create").html
    assert "Paused" in html
    assert 'hx-trigger="every 1s"' not in html
    assert 'href="/tail/?operation=create"' in html
    assert 'name="paused" value="1"' in html


def test_pausing_brings_what_came_until_then_and_going_on_what_came_meanwhile(boss: Client) -> None:
    tail = Tail(boss)
    turning = {"HX-Request": "true", "HX-Target": "controls"}
    assert 'hx-get="/tail/new/?paused=1"' in tail.html
    before = make_event()
    tail.query["paused"] = "1"
    tail.ask("/tail/new/", **turning)
    assert tail.shown() == ids([before])
    assert 'id="controls"' in tail.html
    assert 'hx-swap-oob="true"' in tail.html
    assert 'hx-trigger="every 1s"' not in tail.html
    meanwhile = [make_event() for _ in range(MOST_NEW + 2)]
    del tail.query["paused"]
    tail.ask("/tail/new/", **turning)
    assert tail.shown() == ids(meanwhile[: -MOST_NEW - 1 : -1])
    assert tail.skipped() == "2 skipped: too many to show"
    assert 'hx-trigger="every 1s"' in tail.html


def test_a_poll_leaves_the_controls_alone(boss: Client) -> None:
    tail = Tail(boss)
    tail.poll()
    assert 'id="controls"' not in tail.html


def test_without_script_a_link_leads_to_what_is_newer(boss: Client) -> None:
    make_event()
    tail = Tail(boss, kind="commit")
    newer = re.search('id="newer" href="([^"]*)"', tail.html)
    assert newer
    url = newer[1].replace("&amp;", "&")
    assert "Nothing newer has come" in boss.get(url).content.decode()
    event = make_event()
    html = boss.get(url).content.decode()
    assert re.findall('<li id="(evt_[0-9a-f]{32})"', html) == ids([event])


# --- Cost ----------------------------------------------------------------------------------------------------------


def test_it_asks_the_database_little(boss: Client, django_assert_num_queries: Any) -> None:
    plain, filtered = Tail(boss), Tail(boss, kind="commit")
    with django_assert_num_queries(4):
        # The session and its user, the newest id, what is new.
        plain.poll()
    for _ in range(MOST_NEW + 1):
        make_event()
    with django_assert_num_queries(6):
        # And their sources, and how many are skipped.
        plain.poll()
    with django_assert_num_queries(7):
        # And how far to look.
        filtered.poll()
