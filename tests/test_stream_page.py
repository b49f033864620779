from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from delivery.models import MAX_REJECTED, StreamGap, StreamHost
from jetrelay.dashboard import words
from jetrelay.dashboard.stream.hosts import PAST_SHOWN, streams
from jetrelay.dashboard.stream.logs import PAGE
from jetrelay.dashboard.stream.steering import WISHES
from subscriptions.models import Membership
from tests.builders import make_gap, make_host, make_member, make_rejected

pytestmark = pytest.mark.django_db

EAST = "wss://east.example/xrpc/network.bsky.jetstream.subscribeEvents"
WEST = "wss://west.example/subscribe"
FRAGMENTS = {"hosts": "/stream/hosts/", "gaps": "/stream/gaps/", "rejected": "/stream/rejected/"}


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def page(client: Client, url: str = "/stream/", **headers: str) -> str:
    response = client.get(url, headers=headers)
    assert response.status_code == 200, response
    return response.content.decode()


def ask(client: Client, wish: str, **data: Any) -> str:
    """The page after a form was sent that is well filled in."""
    response = client.post(f"/stream/{wish}/", data, follow=True)
    assert response.redirect_chain == [("/stream/", 302)], response.content.decode()
    return response.content.decode()


def refused(client: Client, wish: str, **data: Any) -> str:
    response = client.post(f"/stream/{wish}/", data)
    assert response.status_code == 200
    return response.content.decode()


def when(at: datetime) -> str:
    """As a browser's field for date and time sends it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"


def an_hour_ago() -> datetime:
    return timezone.now().replace(microsecond=0) - timedelta(hours=1)


def wishes_of(row: StreamHost) -> tuple[datetime | None, datetime | None, int]:
    """What people may change."""
    return StreamHost.objects.values_list("reconnect_asked_at", "rewind_to", "events").get(pk=row.pk)


# --- who may look, and who may steer -----------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/stream/", *FRAGMENTS.values()])
def test_it_sends_strangers_to_sign_in(client: Client, url: str) -> None:
    assert client.get(url)["Location"] == f"/login/?next={url}"


@pytest.mark.parametrize("wish", WISHES)
def test_it_obeys_only_those_who_may(client: Client, wish: str) -> None:
    row = make_host(events=5)
    before, data, url = wishes_of(row), {"host": row.pk, "to": when(an_hour_ago())}, f"/stream/{wish}/"
    assert client.post(url, data)["Location"] == "/login/?next=/"
    client.force_login(make_member(role=Membership.Role.OWNER))
    assert client.post(url, data).status_code == 403
    boss = User.objects.create_superuser("ada")
    client.force_login(boss)
    assert client.get(url).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(boss)
    assert strict.post(url, data).status_code == 403
    assert wishes_of(row) == before


def test_it_shows_the_controls_only_to_those_who_may(client: Client) -> None:
    make_host()
    client.force_login(make_member(role=Membership.Role.OWNER))
    assert "Controls" not in page(client)
    client.force_login(User.objects.create_superuser("ada"))
    assert "Controls" in page(client)


def test_it_lets_only_our_own_files_run(boss: Client) -> None:
    make_host()
    response = boss.get("/stream/")
    html = response.content.decode()
    assert response["Content-Security-Policy"].startswith("default-src 'self';")
    assert not any(inline in html for inline in ("<style", " style=", "<script>", " onclick="))


def test_it_is_linked_from_every_page(boss: Client) -> None:
    for url in ("/", "/deliveries/", "/endpoints/"):
        assert '<a href="/stream/" >Stream</a>' in page(boss, url)
    assert '<a href="/stream/" aria-current="page">Stream</a>' in page(boss)


# --- hosts -------------------------------------------------------------------------------------------------------


def test_it_says_what_it_means_that_there_is_nothing(boss: Client) -> None:
    html = page(boss)
    for shown in ("No listener has started yet", "No gap has been noticed", "No frame has been rejected"):
        assert shown in html
    assert "Controls" not in html


def test_it_shows_how_a_host_is_doing(boss: Client) -> None:
    make_host(
        host=EAST, cursor=24_000_123_456, compressed=True, lag_s=3, events_per_s=451.3, bytes_per_s=98_000, events=12_345_678, bytes=7_200_000_000,
        reconnects=3, rejected=9, counted_since=datetime(2026, 11, 1, tzinfo=UTC), reached_at=datetime(2026, 11, 22, 9, tzinfo=UTC),
    )  # fmt: skip
    html = page(boss)
    for shown in (
        EAST, "Stream connected", "connected for 5 min", "3 s behind real time", "451 events/s, 98 kB/s", "v2, compressed", "seq 24,000,123,456",
        "12,345,678", "7.2 GB", "<dt>Reconnects</dt><dd>3</dd>", '#rejected">9</a>', "2026-11-01 00:00:00", "2026-11-22 09:00:00",
    ):  # fmt: skip
        assert shown in html


def test_it_shows_a_cursor_that_is_a_time_as_one(boss: Client) -> None:
    make_host(host=WEST, cursor=1_795_341_600_000_000)
    html = page(boss)
    assert '<dt>Cursor</dt><dd><time datetime="2026-11-22T10:00:00+00:00">' in html
    assert "v1, not compressed" in html


@pytest.mark.parametrize(
    ("over", "shown"),
    [
        ({"problem": "the host refused: 503", "connected_since": None}, "the host refused: 503"),
        ({"problem": "cannot connect: refused"}, "Is this machine offline"),
        ({"connected_since": None}, "The listener is connecting."),
        ({"seen_at": -timedelta(minutes=3)}, "last sign of life 3 min ago"),
        ({"seen_at": None}, "The listener has not started yet."),
    ],
)
def test_it_says_why_a_host_is_not_connected(boss: Client, over: dict[str, Any], shown: str) -> None:
    # Counted from now, and not from when the tests were collected.
    make_host(lag_s=7, **{name: timezone.now() + value if isinstance(value, timedelta) else value for name, value in over.items()})
    html = page(boss)
    assert shown in html
    assert "Stream not connected" in html
    assert "7 s behind" not in html


def test_it_tells_hosts_that_are_no_longer_listened_to_from_those_that_are() -> None:
    now = timezone.now()
    make_host(host="wss://b.example", seen_at=now)
    make_host(host="wss://a.example", seen_at=now - timedelta(seconds=1), problem="no")
    make_host(host="wss://old.example", seen_at=now - timedelta(hours=3, seconds=1))
    make_host(host="wss://new.example", seen_at=None)
    assert [(each.host, each.label, each.words) for each in streams()[:3]] == [
        ("wss://a.example", "stream not connected", "no"),
        ("wss://b.example", "stream connected", "connected for 5 min"),
        ("wss://new.example", "no longer listened to", "never listened to"),
    ]
    assert streams()[3].words == "last listened to 3 h ago"


def test_it_shows_only_the_last_of_the_hosts_of_old(boss: Client) -> None:
    now = timezone.now()
    make_host()
    for days in range(1, PAST_SHOWN + 3):
        make_host(host=f"ws://127.0.0.1:{days}/subscribe", seen_at=now - timedelta(days=days))
    html = page(boss)
    assert html.count("No longer listened to") == PAST_SHOWN
    assert f":{PAST_SHOWN}/subscribe" in html
    assert f":{PAST_SHOWN + 1}/subscribe" not in html
    assert "127.0.0.1" not in page(boss, "/overview/events/")


def test_it_warns_of_a_host_that_leaves_something_out(boss: Client) -> None:
    alarm = {"collection": "app.bsky.feed.like", "brought_by": WEST, "since": "2026-11-22T10:00:00+00:00", "missed": 214}
    row = make_host(host=EAST, partial=[alarm])
    html = page(boss)
    for shown in ("This host leaves out <bdi>app.bsky.feed.like</bdi>", WEST, "214 events", "2026-11-22 10:00:00", "Nothing is lost", "JETSTREAM_HOSTS"):
        assert shown in html
    assert f'href="/stream/#host-{row.pk}"' in page(boss, "/")
    StreamHost.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    assert "leaves out" not in page(boss) + page(boss, "/")


def test_it_shows_hostile_words_of_others_as_text(boss: Client) -> None:
    evil = "<script>alert(1)</script>\"'\u202e"
    alarm = {"collection": evil, "brought_by": evil, "since": "2026-11-22T10:00:00+00:00", "missed": 1}
    make_host(host=f"wss://{evil}", problem=evil, partial=[alarm])
    make_gap(host=evil, reason=evil, filled_by=evil, filled_at=timezone.now())
    make_rejected(host=evil, reason=evil, head=evil.encode() + b"\xff\x00\xc3(")
    html = page(boss) + page(boss, "/") + page(boss, "/admin/delivery/streamhost/") + page(boss, "/admin/delivery/rejectedframe/")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


@pytest.mark.parametrize("hosts", [1, 8])
def test_it_asks_the_database_the_same_for_one_host_and_for_many(boss: Client, django_assert_num_queries: Any, hosts: int) -> None:
    alarm = {"collection": "a.b.c", "brought_by": WEST, "since": "2026-11-22T10:00:00+00:00", "missed": 1}
    for _ in range(hosts):
        make_host(partial=[alarm])
        make_gap()
        make_rejected()
    # The session, its user; the hosts; the gaps, and how many are open; the frames.
    with django_assert_num_queries(6):
        page(boss)
    with django_assert_num_queries(3):
        page(boss, FRAGMENTS["hosts"])


@pytest.mark.parametrize(("id", "url"), FRAGMENTS.items())
def test_it_returns_fragments_that_go_on_refreshing_themselves(boss: Client, id: str, url: str) -> None:
    html = page(boss, url, **{"HX-Request": "true"})
    assert f'<section id="{id}"' in html
    assert f'hx-get="{url}"' in html
    assert "<html" not in html
    assert Client().get(url, headers={"HX-Request": "true"})["HX-Refresh"] == "true"


# --- gaps and rejected frames ------------------------------------------------------------------------------------


def test_it_shows_gaps_and_whether_they_are_filled(boss: Client) -> None:
    start = datetime(2026, 11, 22, 8, tzinfo=UTC)
    make_gap(host=EAST, from_at=start, to_at=start + timedelta(hours=1, minutes=30), reason="the host went on later", filled_by=WEST, filled_at=start)
    html = page(boss)
    for shown in (EAST, "2026-11-22 08:00:00", "2026-11-22 09:30:00", "1 h 30 min", "the host went on later", "Filled", f"by <bdi>{WEST}</bdi>"):
        assert shown in html
    assert "Not filled" not in html + page(boss, "/")
    make_gap()
    html = page(boss)
    assert "1 gap not filled" in html
    assert html.index("Not filled") < html.index(WEST)
    overview = page(boss, "/overview/events/")
    assert "1 gap in the stream" in overview
    assert 'href="/stream/#gaps"' in overview


def test_it_shows_gaps_in_pages(boss: Client) -> None:
    rows = [make_gap() for _ in range(PAGE + 1)]
    html = page(boss)
    assert html.index(rows[-1].public_id) < html.index(rows[-2].public_id)
    assert f'id="{rows[0].public_id}"' not in html
    older = f"?gaps_before={rows[1].public_id}"
    assert f'href="/stream/{older}#gaps"' in html
    html = page(boss, f"/stream/{older}&frames_before=7")
    assert f'id="{rows[0].public_id}"' in html
    assert f'hx-get="/stream/gaps/{older}&amp;frames_before=7"' in html
    assert 'href="/stream/?frames_before=7#gaps"' in html
    StreamGap.objects.filter(pk=rows[0].pk).delete()
    assert "There are no older gaps" in page(boss, f"/stream/{older}")


def test_it_shows_rejected_frames_in_pages(boss: Client) -> None:
    rows = [make_rejected(reason=f"reason {number}", host=WEST, size=5000, head=b"{\xff") for number in range(PAGE + 1)]
    html = page(boss)
    for shown in (f"reason {PAGE}<", WEST, "5.0 kB", "{\ufffd", "These are its first 2 bytes", f"The last {MAX_REJECTED:,} are kept"):
        assert shown in html
    assert "reason 0<" not in html
    assert f'href="/stream/?frames_before={rows[1].pk}#rejected"' in html
    html = page(boss, f"/stream/?frames_before={rows[1].pk}")
    assert "reason 0<" in html
    assert "reason 1<" not in html
    assert "There are no older ones" in page(boss, f"/stream/?frames_before={rows[0].pk}")


@pytest.mark.parametrize("query", ["gaps_before=x", "frames_before=x", "frames_before=-1", "frames_before=²", f"frames_before={'9' * 5000}"])
def test_it_says_which_part_of_the_url_it_did_not_understand(boss: Client, query: str) -> None:
    make_gap()
    make_rejected()
    html = page(boss, f"/stream/?{query}")
    assert "the newest are shown" in html
    assert "Not filled" in html
    assert "Rejected</span>" in html


# --- controls ----------------------------------------------------------------------------------------------------


def test_it_says_what_each_control_does_before_it_is_used(boss: Client) -> None:
    make_host()
    html = page(boss)
    for wish in WISHES.values():
        assert f'action="/stream/{wish.name}/"' in html
        assert wish.happens in html


def test_it_reconnects_one_host_or_all_that_are_listened_to(boss: Client) -> None:
    one, other = make_host(), make_host()
    old = make_host(seen_at=timezone.now() - timedelta(days=1))
    html = ask(boss, "reconnect", host=one.pk)
    assert "Asked to connect again to 1 host. The listener does it within a second or so." in html
    assert html.count("A reconnect was asked for") == 1
    assert [wishes_of(row)[0] is not None for row in (one, other, old)] == [True, False, False]
    assert "to 2 hosts." in ask(boss, "reconnect", host="")
    assert [wishes_of(row)[0] is not None for row in (one, other, old)] == [True, True, False]
    StreamHost.objects.update(connected_since=timezone.now())
    assert "A reconnect was asked for" not in page(boss)


def test_it_moves_the_cursor_back_and_says_so_until_it_is_done(boss: Client) -> None:
    one, other = make_host(), make_host()
    to = an_hour_ago()
    html = ask(boss, "rewind", host=one.pk, to=when(to))
    assert f"Asked to read 1 host again from {to:%Y-%m-%d %H:%M:%S} UTC on. The listener does it within a second or so." in html
    assert html.count("has been asked for") == 1
    assert [wishes_of(row)[1] for row in (one, other)] == [to, None]
    assert "2 hosts" in ask(boss, "rewind", host="", to=when(to))
    assert {wishes_of(row)[1] for row in (one, other)} == {to}
    StreamHost.objects.update(rewind_to=None)
    assert "has been asked for" not in page(boss)


@pytest.mark.parametrize("written", ["2026-11-20T10:00", "2026-11-20T10:00:00", "2026-11-20 10:00", "2026-11-20 12:00:00+02:00", "2026-11-20T10:00:00Z"])
def test_it_takes_times_in_utc(boss: Client, written: str) -> None:
    row = make_host()
    ask(boss, "rewind", to=written)
    assert wishes_of(row)[1] == datetime(2026, 11, 20, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (timedelta(minutes=1), "No listener is running: it is done when one starts."),
        (timedelta(days=1), "The host is no longer listened to: it is done when JETSTREAM_HOSTS names it again."),
    ],
)
def test_it_says_when_a_wish_must_wait(boss: Client, seen: timedelta, said: str) -> None:
    row = make_host(seen_at=timezone.now() - seen)
    if seen > timedelta(hours=1):
        make_host()
    # In the message, and at the host.
    assert ask(boss, "rewind", host=row.pk, to=when(an_hour_ago())).count(said) == 2
    assert said in ask(boss, "reconnect", host=row.pk)


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("", "Say from which time on"),
        ("yesterday", "This is not a time"),
        ("2026-02-31T10:00", "This is not a time"),
        ("<script>alert(1)</script>", "This is not a time"),
        ("0001-01-01T00:00:00+14:00", "No Jetstream goes back this far"),
        ("1969-01-01T00:00", "No Jetstream goes back this far"),
        ("9999-12-31T23:59:59-14:00", "lies in the future"),
        (when(timezone.now() + timedelta(hours=1)), "lies in the future"),
    ],
)
def test_it_says_at_the_form_what_is_wrong_with_a_time(boss: Client, to: str, said: str) -> None:
    row = make_host()
    before = wishes_of(row)
    html = refused(boss, "rewind", host=row.pk, to=to)
    assert said in html
    assert "<script>alert" not in html
    form = html[html.index('id="rewind"') : html.index('id="reset"')]
    assert said in form
    assert 'id="rewind" open' in form
    assert f'<option value="{row.pk}" selected>' in form
    assert wishes_of(row) == before


def test_it_leaves_all_where_they_are_when_one_has_not_come_so_far(boss: Client) -> None:
    ahead, behind = make_host(), make_host(host=WEST, reached_at=timezone.now() - timedelta(hours=5))
    html = refused(boss, "rewind", host="", to=when(an_hour_ago()))
    assert f"{WEST} has only come to" in html
    assert "Choose an earlier time." in html
    assert [wishes_of(row)[1] for row in (ahead, behind)] == [None, None]
    ask(boss, "rewind", host=ahead.pk, to=when(an_hour_ago()))


def test_it_asks_nothing_of_hosts_of_old_unless_they_are_named(boss: Client) -> None:
    make_host()
    old = make_host(seen_at=timezone.now() - timedelta(days=1), reached_at=timezone.now() - timedelta(days=1))
    ask(boss, "rewind", host="", to=when(an_hour_ago()))
    assert wishes_of(old)[1] is None


def test_it_resets_the_counters_of_one_host_or_of_all(boss: Client) -> None:
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    one, other = (make_host(events=5, bytes=6, reconnects=7, rejected=8, counted_since=long_ago, cursor=9) for _ in range(2))
    assert "The counters of 1 host start from zero." in ask(boss, "reset", host=one.pk)
    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.events, one.bytes, one.reconnects, one.rejected, one.cursor) == (0, 0, 0, 0, 9)
    assert one.counted_since > long_ago
    assert (other.events, other.counted_since) == (5, long_ago)
    assert "The counters of 2 hosts" in ask(boss, "reset", host="")
    other.refresh_from_db()
    assert other.events == 0


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("host", ["0", "x", "-1", "9" * 30])
def test_it_says_at_the_form_that_a_host_is_not_there(boss: Client, wish: str, host: str) -> None:
    row = make_host(events=5)
    before = wishes_of(row)
    assert "This host is not in the list" in refused(boss, wish, host=host, to=when(an_hour_ago()))
    assert wishes_of(row) == before


def test_it_asks_nothing_where_there_is_no_host(boss: Client) -> None:
    assert "No listener has started yet" in refused(boss, "reconnect")


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "not known yet"),
        (0.2, "less than 1 s"),
        (-0.9, "less than 1 s"),
        (4.9, "4 s behind real time"),
        (7300, "2 h 1 min behind real time"),
        (-12, "none: the host's clock is 12 s ahead of this machine's"),
    ],
)
def test_it_says_a_lag_in_words(seconds: float | None, said: str) -> None:
    assert words.lag(seconds) == said


def test_it_says_sizes_and_rates_in_words() -> None:
    counts = [0, 1, 0.4, 999, 1000, 9950, 98_000, 999_600, 7_200_000_000, 3e18]
    assert [words.size(count) for count in counts] == [
        "0 bytes", "1 byte", "0 bytes", "999 bytes", "1.0 kB", "10 kB", "98 kB", "1.0 MB", "7.2 GB", "3,000,000 TB",
    ]  # fmt: skip
    assert [words.rate(count) for count in (0, 0.04, 0.4, 9.96, 451.3, 79_000)] == ["0", "0", "0.4", "10", "451", "79,000"]


def test_a_gap_that_somebody_knows_of_raises_no_alarm_and_can_still_be_filled(boss: Client) -> None:
    known, other = make_gap(), make_gap(from_at=timezone.now() - timedelta(hours=3))
    assert "2 gaps in the stream" in page(boss, "/")
    html = boss.post("/stream/gaps/acknowledge/", {"gap": known.public_id}, follow=True).content.decode()
    assert "Acknowledged: 1 gap." in html
    assert "acknowledged by <bdi>ada</bdi>" in html
    assert "1 gap in the stream" in page(boss, "/")
    assert "Acknowledged: 1 gap." in boss.post("/stream/gaps/acknowledge/", follow=True).content.decode()
    assert "in the stream" not in page(boss, "/overview/events/")
    assert "Nothing was acknowledged" in boss.post("/stream/gaps/acknowledge/", {"gap": "gap_0"}, follow=True).content.decode()
    assert set(StreamGap.objects.open()) == {known, other}
