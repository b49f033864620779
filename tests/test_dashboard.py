from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from delivery.destinations import exchange
from delivery.explain import explain
from delivery.models import AttemptTally, Delivery, Event, EventTally
from jetrelay.dashboard import bodies, words
from jetrelay.dashboard.deliveries.finding import PAGE
from jetrelay.dashboard.overview import figures
from jetrelay.dashboard.templatetags.jetrelay_tags import percent, phases
from subscriptions.models import Endpoint, Membership
from tests.builders import make_attempt, make_delivery, make_endpoint, make_event, make_host, make_member, make_source

pytestmark = pytest.mark.django_db

DEAD, PENDING, DELIVERED = Delivery.State.DEAD, Delivery.State.PENDING, Delivery.State.DELIVERED


@pytest.fixture(autouse=True)
def _no_totals_of_other_tests() -> None:
    cache.clear()


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def make_event_tally(**over: Any) -> EventTally:
    over.setdefault("source", make_source())
    return EventTally.objects.create(**{"minute": timezone.now(), "kind": "commit", "type": "app.bsky.feed.post"} | over)


def page(client: Client, url: str, **headers: str) -> str:
    response = client.get(url, headers=headers)
    assert response.status_code == 200, response
    return response.content.decode()


# --- who may look ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["/", "/deliveries/", "/endpoints/", "/overview/events/"])
def test_it_sends_strangers_to_sign_in(client: Client, url: str) -> None:
    response = client.get(url)
    assert (response.status_code, response["Location"]) == (302, f"/login/?next={url}")


def test_it_reloads_the_page_when_a_fragment_finds_the_session_over(client: Client) -> None:
    assert client.get("/overview/events/", headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_it_lets_only_our_own_files_run(boss: Client) -> None:
    response = boss.get("/")
    html = response.content.decode()
    assert response["Content-Security-Policy"].startswith("default-src 'self';")
    assert "<style" not in html
    assert " style=" not in html
    assert "<script>" not in html


# --- overview ----------------------------------------------------------------------------------------------------


def test_it_says_what_to_do_when_nothing_has_happened(boss: Client) -> None:
    html = page(boss, "/")
    assert "No listener has started" in html
    assert "Nothing has come in yet" in html


def test_it_counts_what_came_in_over_all_minutes() -> None:
    source, now = make_source(), timezone.now()
    make_event_tally(source=source, received=10, stored=6, duplicate=1, unmatched=3)
    make_event_tally(source=source, minute=now - timedelta(days=3), received=100, stored=60, unmatched=40)
    make_event_tally(source=source, kind="identity", type="", received=5, unmatched=5)
    rows = figures.traffic(None)
    assert [(row.label, row.received, row.stored) for row in rows] == [("app.bsky.feed.post", 110, 66), ("identity events", 5, 0)]
    total = figures.in_all(rows)
    assert (total.received, total.stored, total.unmatched) == (115, 66, 48)


def test_it_reads_finished_hours_once(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        figures.traffic(None)
    with django_assert_num_queries(1):
        figures.traffic(None)


def test_it_shows_the_figures(boss: Client) -> None:
    make_event_tally(received=2500, stored=1500, duplicate=500, unmatched=500)
    endpoint = make_endpoint()
    make_delivery(endpoint=endpoint)
    make_delivery(endpoint=endpoint, state=DEAD)
    minute = timezone.now()
    AttemptTally.objects.create(minute=minute, endpoint=endpoint, outcome="delivered", attempts=1499, total_ms=14990, ms_10=1499)
    AttemptTally.objects.create(minute=minute, endpoint=endpoint, outcome="dead", attempts=1, total_ms=15010, ms_30000=1)
    html = page(boss, "/")
    for shown in ("1,500", "of 2,000 different commits received", "75 %", "1,499", "99.9 %", "p50 7.5 ms"):
        assert shown in html


def test_it_counts_no_further_than_the_limit() -> None:
    for _ in range(3):
        make_delivery()
    assert str(figures.bounded_count(Delivery.objects.pending(), limit=2)) == "2+"
    assert str(figures.bounded_count(Delivery.objects.pending(), limit=3)) == "3"


@pytest.mark.parametrize(
    ("over", "shown"),
    [
        ({}, "Stream connected"),
        ({"problem": "jetstream.example refused the connection"}, "jetstream.example refused the connection"),
        ({"connected_since": None}, "The listener is connecting"),
        ({"seen_at": timedelta(minutes=3)}, "last sign of life 3 min ago"),
        ({"seen_at": None}, "has not started yet"),
    ],
)
def test_it_says_whether_the_stream_is_connected(boss: Client, over: dict[str, Any], shown: str) -> None:
    now = timezone.now()
    make_host(**{name: now - value if isinstance(value, timedelta) else value for name, value in over.items()})
    html = page(boss, "/overview/events/")
    assert shown in html
    assert ("Stream not connected" in html) == bool(over)


@pytest.mark.parametrize(("fragment", "id"), [("events", "events"), ("outcomes", "outcomes"), ("collections", "collections")])
def test_it_returns_a_fragment_that_goes_on_refreshing_itself(boss: Client, fragment: str, id: str) -> None:
    html = page(boss, f"/overview/{fragment}/", **{"HX-Request": "true"})
    assert f'id="{id}"' in html
    assert f'hx-get="/overview/{fragment}/"' in html
    assert "<html" not in html


def test_it_asks_the_database_little_for_the_overview(boss: Client, django_assert_max_num_queries: Any) -> None:
    make_event_tally(received=1)
    for _ in range(8):
        make_host()
    with django_assert_max_num_queries(14):
        page(boss, "/")
    # What was summed is remembered.
    with django_assert_max_num_queries(11):
        page(boss, "/")


# --- deliveries --------------------------------------------------------------------------------------------------


def test_it_lists_deliveries_newest_first_in_pages(boss: Client) -> None:
    endpoint = make_endpoint()
    rows = [make_delivery(endpoint=endpoint) for _ in range(PAGE + 1)]
    html = page(boss, "/deliveries/")
    assert html.index(rows[-1].public_id) < html.index(rows[-2].public_id)
    assert f'id="{rows[0].public_id}"' not in html
    older = f"/deliveries/?before={rows[1].public_id}"
    assert f'href="{older.removeprefix("/deliveries/")}"' in html
    assert f'id="{rows[0].public_id}"' in page(boss, older)


def test_it_lists_a_page_in_few_queries(boss: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        make_delivery(endpoint=make_endpoint(name=f"Endpoint {number}"))
    with django_assert_max_num_queries(6):
        page(boss, "/deliveries/")


def test_it_filters_by_state_and_endpoint(boss: Client) -> None:
    other = make_endpoint(name="Other")
    wanted = make_delivery(state=DEAD, endpoint=other)
    rest = [make_delivery(endpoint=other), make_delivery(state=DEAD, endpoint=make_endpoint(name="Third"))]
    html = page(boss, f"/deliveries/?state=dead&endpoint={other.public_id}")
    assert f'id="{wanted.public_id}"' in html
    assert not any(f'id="{row.public_id}"' in html for row in rest)


def test_it_says_which_part_of_the_url_it_did_not_understand(boss: Client) -> None:
    assert "There is no state “lost”" in page(boss, "/deliveries/?state=lost")
    assert "No endpoint is called anything like “x”" in page(boss, "/deliveries/?endpoint=x")


def test_it_finds_a_delivery_and_the_deliveries_of_an_event_by_id(boss: Client) -> None:
    row = make_delivery()
    assert boss.get(f"/deliveries/?q={row.public_id}")["Location"] == f"/deliveries/{row.public_id}/"
    assert f'id="{row.public_id}"' in page(boss, f"/deliveries/?q={row.event.public_id}")
    assert "No delivery here" in page(boss, "/deliveries/?q=evt_0")


def test_it_lists_a_delivery_whose_event_has_been_pruned(boss: Client) -> None:
    row = make_delivery(state=DELIVERED)
    Event.objects.all()._raw_delete("default")
    assert "pruned" in page(boss, "/deliveries/")
    html = page(boss, f"/deliveries/{row.public_id}/")
    assert "has been pruned" in html
    assert ">Replay<" not in html


def test_it_shows_a_delivery_with_its_attempts_and_what_to_do(boss: Client, django_assert_max_num_queries: Any) -> None:
    row = make_delivery(state=DEAD, attempt_count=2)
    make_attempt(delivery=row, status=None, error="timeout", error_detail="after 30001 ms", dns_ms=1, connect_ms=11, total_ms=30001)
    make_attempt(delivery=row, number=2, status=503, response_headers="X-Trace: 7", response_body=b"<b>later</b>")
    with django_assert_max_num_queries(7):
        html = page(boss, f"/deliveries/{row.public_id}/")
    for shown in ("Timed out", "after 30001 ms", "raise the endpoint&#x27;s timeout", "503 Service Unavailable", "X-Trace: 7", "&lt;b&gt;later"):
        assert shown in html


def test_it_answers_404_for_a_delivery_that_is_not_there(boss: Client) -> None:
    assert boss.get(f"/deliveries/dlv_{'0' * 32}/").status_code == 404
    assert boss.get("/deliveries/nonsense/").status_code == 404


def test_it_shows_hostile_bodies_as_text(boss: Client) -> None:
    body = '{"text": "<script>alert(1)</script> \\ud800 \u202e"}'.encode() + b"\xff"
    for payload in (body, body[:-1], b"[" * 100_000):
        row = make_delivery(event=make_event(body=payload))
        html = page(boss, f"/deliveries/{row.public_id}/")
        assert "<script>alert" not in html


def test_it_refreshes_the_attempts_only_while_a_delivery_is_pending(boss: Client) -> None:
    row = make_delivery()
    url = f"/deliveries/{row.public_id}/state/"
    assert f'hx-get="{url}"' in page(boss, url)
    Delivery.objects.update(state=DELIVERED)
    assert f'hx-get="{url}"' not in page(boss, url)


def test_it_replays_with_a_redirect_back_and_a_message(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    response = boss.post(f"/deliveries/{row.public_id}/replay/", {"next": "/deliveries/?state=dead"}, follow=True)
    assert response.redirect_chain == [("/deliveries/?state=dead", 302)]
    assert "Back in the queue" in response.content.decode()
    assert row.refreshed().state == PENDING


def test_it_replays_with_htmx_by_renewing_what_asked(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    url = f"/deliveries/{row.public_id}/replay/"
    in_list = boss.post(url, headers={"HX-Request": "true", "HX-Target": row.public_id}).content.decode()
    assert f'<tr id="{row.public_id}"' in in_list
    assert "Pending" in in_list
    assert '<div id="delivery"' in boss.post(url, headers={"HX-Request": "true", "HX-Target": "delivery"}).content.decode()


def test_it_goes_nowhere_else_after_a_replay(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    response = boss.post(f"/deliveries/{row.public_id}/replay/", {"next": "https://evil.example/"})
    assert response["Location"] == f"/deliveries/{row.public_id}/"


def test_it_does_not_replay_without_the_event(boss: Client) -> None:
    row = make_delivery(state=DELIVERED)
    Event.objects.all()._raw_delete("default")
    response = boss.post(f"/deliveries/{row.public_id}/replay/", follow=True)
    assert "Not replayed" in response.content.decode()
    assert row.refreshed().state == DELIVERED


def test_it_replays_only_by_post_with_a_token_from_those_who_may(boss: Client) -> None:
    row = make_delivery(state=DEAD)
    url = f"/deliveries/{row.public_id}/replay/"
    assert boss.get(url).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(url).status_code == 403
    onlooker = Client()
    onlooker.force_login(make_member(row.endpoint.tenant, Membership.Role.VIEWER))
    assert onlooker.post(url).status_code == 403
    assert Client().post(url)["Location"] == "/login/?next=/"
    assert row.refreshed().state == DEAD


# --- endpoints ---------------------------------------------------------------------------------------------------


def test_it_lists_endpoints_with_their_backlog_and_no_secrets(boss: Client, django_assert_max_num_queries: Any) -> None:
    busy = make_endpoint(name="Busy", bearer_token="very-secret-token")
    make_endpoint(name="Idle", state=Endpoint.State.PAUSED, state_reason="under repair")
    for state in (PENDING, PENDING, DEAD):
        make_delivery(endpoint=busy, state=state)
    with django_assert_max_num_queries(6):
        html = page(boss, "/endpoints/")
    assert 'data-label="Backlog" class="number">2<' in html
    assert "under repair" in html
    assert "very-secret-token" not in html
    assert busy.secret not in html


def test_it_counts_a_backlog_no_further_than_the_limit(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetrelay.dashboard.endpoints.figures.BACKLOG_LIMIT", 1)
    endpoint = make_endpoint()
    for _ in range(3):
        make_delivery(endpoint=endpoint)
    assert 'data-label="Backlog" class="number">1+<' in page(boss, "/endpoints/")


def test_it_says_how_to_get_a_first_endpoint(boss: Client) -> None:
    assert "no endpoint yet" in page(boss, "/endpoints/")


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (250, "4 min"), (3600, "1 h"), (7320, "2 h 2 min"), (90_000, "1 d 1 h"), (-5, "0 s")],
)
def test_it_says_durations_in_words(seconds: int, said: str) -> None:
    assert words.duration(timedelta(seconds=seconds)) == said


def test_it_says_what_happens_next() -> None:
    now = timezone.now()
    row = make_delivery(due_at=now + timedelta(minutes=4, seconds=10), tries=1)
    assert words.next_step(row, now) == "retries in 4 min"
    assert words.next_step(make_delivery(due_at=now), now) == "is sent next"
    row.endpoint.state = Endpoint.State.PAUSED
    assert words.next_step(row, now) == "held: its endpoint is paused"


def test_it_explains_every_error_of_the_sender() -> None:
    assert all(explain(None, error.value).advice for error in exchange.Error)
    assert explain(301).advice.startswith("Redirects are never followed")
    assert explain(599).words == "599"
    assert explain(204) == ("204 No Content", "")


def test_it_never_rounds_a_share_up_to_all() -> None:
    assert [percent(share) for share in (1.0, 0.99999, 0.984, 0.00001, 0.0, None)] == ["100 %", "> 99.9 %", "98.4 %", "< 0.1 %", "0 %", "–"]


def test_it_splits_an_attempt_into_its_parts() -> None:
    attempt = make_attempt(dns_ms=2, connect_ms=12, tls_ms=0, first_byte_ms=40, total_ms=50)
    assert [(part.name, part.ms, part.start) for part in phases(attempt)] == [("DNS", 2, 0), ("Connect", 10, 4), ("First byte", 28, 24), ("Rest", 10, 80)]
    assert phases(make_attempt(total_ms=0)) == []


@pytest.mark.parametrize("text", ["", "not json", "[" * 100_000, "9" * 5000, "{\x00}"])
def test_it_leaves_what_is_not_json_as_it_is(text: str) -> None:
    assert bodies.pretty(text) == text


# --- what strangers may send ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"text": "' + "x" * 200_000 + '"}',
        "[" * 800 + "1" + "]" * 800,
        "[" * 60 + "1," * 40_000 + "1" + "]" * 60,
        "<" * 500_000,
    ],
    ids=["long", "deep", "wide and deep", "of signs that are escaped"],
)
def test_no_body_makes_a_page_of_many_megabytes(boss: Client, body: str) -> None:
    event = make_event(body=body.encode())
    delivery = make_delivery(event=event, state=DEAD, attempt_count=1)
    attempt = make_attempt(delivery=delivery, status=500, response_body=body.encode()[:4096])
    for url in (f"/events/{event.public_id}/", f"/deliveries/{delivery.public_id}/", f"/deliveries/{delivery.public_id}/attempts/{attempt.public_id}/"):
        html = page(boss, url)
        assert len(html) < 2_500_000
        assert ("cut here, after 100,000 of" in html) is (len(body) > 100_000)


def test_it_indents_what_is_not_too_long_for_it() -> None:
    assert bodies.pretty('{"a": [1]}') == '{\n  "a": [\n    1\n  ]\n}'
    deep = "[" * 800 + "1" + "]" * 800
    assert bodies.pretty(deep) == deep


@pytest.mark.parametrize("back", ["deliveries", "foo", "%00", "?x", "https://elsewhere.example/", "//elsewhere.example/"])
def test_it_leads_back_to_pages_of_ours_alone(boss: Client, back: str) -> None:
    row = make_delivery(state=DEAD)
    assert boss.post(f"/deliveries/{row.public_id}/replay/", {"next": back})["Location"] == f"/deliveries/{row.public_id}/"
    assert boss.post("/theme/", {"theme": "dark", "next": back})["Location"] == "/"


@pytest.mark.parametrize("url", ["/admin/delivery/lease/?pk=%00", "/admin/autocomplete/?term=%00", "/%00/"])
def test_a_nul_in_an_address_is_refused_in_words(boss: Client, url: str) -> None:
    response = boss.get(url)
    assert (response.status_code, b"NUL" in response.content) == (400, True)


@pytest.mark.parametrize("name", ["state", "endpoint", "q", "before", "type", "outcome", "since", "until"])
def test_a_nul_in_a_filter_finds_nothing_and_breaks_nothing(boss: Client, name: str) -> None:
    page(boss, f"/deliveries/?{name}=%00")
    page(boss, f"/deliveries/?{name}=a%00b")
