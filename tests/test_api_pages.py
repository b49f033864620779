"""Lists: newest first, by key, without repeat or gap while rows come and go; and what a narrow filter costs."""

from base64 import urlsafe_b64encode
from uuid import uuid4

import pytest

from delivery.models import Delivery
from jetrelay.api import pages
from tests.api import Api, api_of
from tests.builders import make_api_event, make_delivery, make_endpoint, make_event, make_tenant

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


@pytest.fixture
def api() -> Api:
    return api_of()


def test_a_list_goes_from_the_newest_to_the_oldest_in_pages(api: Api) -> None:
    endpoints = [make_endpoint() for _ in range(7)]
    found = api.pages("endpoints?limit=3")
    assert [len(page.ids) for page in found] == [3, 3, 1]
    assert [id for page in found for id in page.ids] == [each.public_id for each in reversed(endpoints)]
    assert [page.json["has_more"] for page in found] == [True, True, False]
    assert [page.json["next_cursor"] is None for page in found] == [False, False, True]


def test_a_page_that_is_just_full_is_the_last_one(api: Api) -> None:
    for _ in range(3):
        make_endpoint()
    assert api.get("endpoints?limit=3").json["has_more"] is False


def test_a_page_has_50_rows_unless_another_number_is_asked_for(api: Api) -> None:
    for _ in range(60):
        make_api_event()
    assert len(api.get("events").ids) == 50
    assert len(api.get("events?limit=200").ids) == 60


LISTS = ["endpoints", "subscriptions", "sources", "events", "deliveries", "dead-letters", "replays", "keys"]


@pytest.mark.parametrize("path", LISTS)
def test_a_limit_is_a_whole_number(path: str, api: Api) -> None:
    for limit in ("0", "201", "-1", "", "a", "1.0", "1e2", "%2B1", "%201", "%D9%A3", "9" * 50, "null"):
        answer = api.get(f"{path}?limit={limit}")
        assert (answer.problem, limit) == ((400, "invalid_query"), limit)
        assert answer.json["detail"] == "Query parameter limit: write a whole number from 1 to 200."


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_is_taken_as_it_was_given_and_in_no_other_form(path: str, api: Api) -> None:
    good = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
    assert api.get(f"{path}?cursor={good}").status == 200
    for cursor in (
        *("", "a", "null", "0", "-1", "é", "%C3%A9", "%FF", "%F0%9F%98%80", "a" * 21, "a" * 23, "A" * 10_000, "=" * 22, "!" * 22),
        *(
            good + "=",
            good + "==",
            good + "%20",
            "%20" + good,
            good[:-1],
            good[:-1] + "_",
            good[:10] + "%2B" + good[11:],
            good + "%0A",
            good[:5] + "." + good[6:],
        ),
        *(str(uuid4()), uuid4().hex, "ep_" + uuid4().hex, urlsafe_b64encode(b"x" * 17).decode().rstrip("="), urlsafe_b64encode(b"[1, 2]").decode()),
    ):
        answer = api.get(f"{path}?cursor={cursor}")
        assert (answer.problem, cursor) == ((400, "invalid_query"), cursor)
        assert "next_cursor" in answer.json["detail"]


def test_any_id_may_be_a_cursor_and_shows_nothing_of_others(api: Api) -> None:
    """It is a place in one's own list: whose id it is does not matter."""
    mine, other = make_endpoint(), make_endpoint(tenant=make_tenant(slug="other"))
    theirs = urlsafe_b64encode(other.pk.bytes).decode().rstrip("=")
    assert api.get(f"endpoints?cursor={theirs}").ids == [mine.public_id]


def test_rows_that_come_meanwhile_neither_repeat_nor_hide_others(api: Api) -> None:
    there = [make_event().public_id for _ in range(9)]
    seen, cursor = [], ""
    while True:
        page = api.get(f"events?limit=2{cursor}")
        seen += page.ids
        make_event()
        if not page.json["has_more"]:
            break
        cursor = f"&cursor={page.json['next_cursor']}"
    assert seen == list(reversed(there))


def test_rows_that_go_meanwhile_hide_no_others(api: Api) -> None:
    events = [make_event() for _ in range(6)]
    first = api.get("events?limit=2")
    # The one that the cursor names is among them.
    for event in (events[4], events[3]):
        event.delete()
    rest = api.pages(f"events?limit=2&cursor={first.json['next_cursor']}")
    assert [id for page in rest for id in page.ids] == [event.public_id for event in (events[2], events[1], events[0])]


# --- Filters without an index --------------------------------------------------------------------------------------


def test_a_narrow_filter_looks_at_so_many_rows_and_goes_on_behind_them(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_LOOKED_AT", 4)
    wanted = [make_api_event(type="rare.one") if number in (0, 1, 9) else make_api_event() for number in range(12)]
    found = api.pages("events?type=rare.one&limit=50")
    # Of twelve rows, four for each page: few of them hold anything, and no page hides what comes.
    assert [len(page.ids) for page in found] == [1, 0, 2]
    assert [id for page in found for id in page.ids] == [wanted[number].public_id for number in (9, 1, 0)]


def test_a_narrow_filter_fills_its_pages_where_it_finds_enough(api: Api) -> None:
    events = [make_api_event(type="a.b") for _ in range(7)]
    make_api_event(type="a.c")
    found = api.pages("events?type=a.b&limit=3")
    assert [page.ids for page in found] == [[event.public_id for event in part] for part in (events[:3:-1], events[3:0:-1], events[:1])]


@pytest.mark.parametrize("counts", [[0, 0, 9], [3, 3, 3], [1, 7, 0], [12, 1, 1]])
def test_deliveries_of_several_endpoints_come_in_one_order(counts: list[int], api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read endpoint by endpoint: whichever has more than was read holds back what lies behind."""
    monkeypatch.setattr(pages, "MAX_LOOKED_AT", 6)
    endpoints, rows = [make_endpoint() for _ in counts], []
    for number in range(max(counts)):
        for endpoint, count in zip(endpoints, counts, strict=True):
            if number < count:
                rows.append(make_delivery(endpoint=endpoint, state=Delivery.State.DELIVERED, last_status=200))
    expected = [row.public_id for row in reversed(rows)]
    for least in (2, 5, 201):
        monkeypatch.setattr("jetrelay.newest._LEAST_OF_EACH", least)
        for query in ("", "&state=delivered", "&since=2026-01-01T00:00:00Z", "&collection=app.bsky.*", "&status=200"):
            assert [id for page in api.pages(f"deliveries?limit=2{query}") for id in page.ids] == expected
