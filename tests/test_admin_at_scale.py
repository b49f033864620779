"""The admin's long lists: what they ask of the database however long the tables are, and how they say where they stopped."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from delivery.admin import deliveries
from delivery.admin.deliveries import DeliveryAdmin
from delivery.admin.flow import AttemptAdmin, EventAdmin
from delivery.admin.tallies import AttemptTallyAdmin
from delivery.models import AttemptTally, Delivery, Replay
from subscriptions.admin import AuditEntryAdmin
from subscriptions.models import AuditEntry, Endpoint
from subscriptions.table_filters import Period, PeriodFilter
from subscriptions.tables import BigTable, BoundedPaginator
from tests.builders import id_of, make_attempt, make_delivery, make_endpoint, make_event, make_source, make_tenant

pytestmark = pytest.mark.django_db

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
DELIVERIES, EVENTS = "/admin/delivery/delivery/", "/admin/delivery/event/"


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def shown(client: Client, url: str) -> list[Any]:
    """The rows of a list, as it orders them."""
    response = client.get(url)
    assert response.status_code == 200, response
    return list(response.context["cl"].result_list)


def notes(client: Client, url: str) -> str:
    response = client.get(url)
    said = " ".join(response.context["cl"].notes)
    assert all(note in response.content.decode() for note in ("table-note", "status") if said)
    return said


# --- By state and endpoint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(Delivery.State))
def test_it_lists_those_in_a_state_newest_first(staff: Client, state: Delivery.State) -> None:
    rows = [make_delivery(state=state) for _ in range(3)]
    elsewhere = make_delivery(endpoint=rows[0].endpoint, state=(state + 1) % 4)
    assert shown(staff, f"{DELIVERIES}?state={state.label}") == rows[::-1]
    assert shown(staff, f"{DELIVERIES}?state={state.label}&endpoint={rows[1].endpoint.public_id}") == [rows[1]]
    assert shown(staff, f"{DELIVERIES}?endpoint={rows[0].endpoint.public_id}") == [elsewhere, rows[0]]


def test_it_finds_the_dead_of_all_endpoints_however_far_back_they_lie(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BigTable, "window", 1)
    old = make_delivery(id=id_of(timedelta(days=20)), state=DEAD)
    for _ in range(3):
        make_delivery(state=DELIVERED)
    assert shown(staff, f"{DELIVERIES}?state=dead") == [old]
    assert notes(staff, f"{DELIVERIES}?state=dead") == ""


def test_it_says_that_there_are_more_in_a_state_than_it_lists(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "LISTED", 2)
    rows = [make_delivery(id=id_of(timedelta(days=age)), state=DEAD) for age in (1, 2, 3)]
    assert shown(staff, f"{DELIVERIES}?state=dead") == rows[:2]
    assert "There are more: the newest 2 of these are listed." in notes(staff, f"{DELIVERIES}?state=dead")
    day = f"{timezone.now() - timedelta(days=3):%Y-%m-%d}"
    assert shown(staff, f"{DELIVERIES}?state=dead&time={day}") == [rows[2]]
    assert notes(staff, f"{DELIVERIES}?state=dead&time={day}") == ""


@pytest.mark.parametrize(("query", "found"), [("state=cancelled", 0), ("state=cancelled&endpoint={}", 0), ("state=delivered", 2)])
def test_it_looks_through_the_newest_where_no_index_leads_and_says_so(staff: Client, monkeypatch: pytest.MonkeyPatch, query: str, found: int) -> None:
    monkeypatch.setattr(BigTable, "window", 1)
    endpoint = make_endpoint()
    make_delivery(endpoint=endpoint, id=id_of(timedelta(days=2)), state=CANCELLED)
    for _ in range(3):
        make_delivery(endpoint=endpoint, state=DELIVERED)
    url = f"{DELIVERIES}?{query.format(endpoint.public_id)}"
    assert len(shown(staff, url)) == found
    assert "The newest 1 deliveries were looked through. Choose an earlier time to look further back." in notes(staff, url)
    earlier = f"{timezone.now() - timedelta(days=2):%Y-%m-%d}"
    assert len(shown(staff, f"{DELIVERIES}?state=cancelled&time={earlier}")) == 1


def test_it_finds_deliveries_by_a_part_of_an_endpoints_url(staff: Client) -> None:
    mine = make_delivery(endpoint=make_endpoint(url="https://billing.example/hook"))
    make_delivery()
    for term in ("billing.example", "https://billing", mine.endpoint.public_id):
        assert shown(staff, f"{DELIVERIES}?q={term}") == [mine]
        assert shown(staff, f"{DELIVERIES}?q={term}&state=pending") == [mine]
        assert shown(staff, f"{DELIVERIES}?q={term}&state=dead") == []
    assert shown(staff, f"{DELIVERIES}?q=.example") == list(Delivery.objects.all())
    assert shown(staff, f"{DELIVERIES}?q=nowhere.example") == []
    assert shown(staff, f"{DELIVERIES}?q=ep_x") == []


def test_it_narrows_the_events_of_a_subject(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventAdmin, "window", 2)
    mine = [make_event(subject="did:plc:mine", operation=operation) for operation in ("create", "delete", "create")]
    for _ in range(4):
        make_event(operation="delete")
    assert shown(staff, f"{EVENTS}?q=did:plc:mine") == mine[::-1]
    assert shown(staff, f"{EVENTS}?q=did:plc:mine&operation=delete") == [mine[1]]
    assert shown(staff, f"{EVENTS}?operation=create") == []
    assert len(shown(staff, f"{EVENTS}?source={make_source().public_id}")) == 3


def test_it_tells_attempts_by_what_came_of_them(staff: Client) -> None:
    good, refused, silent = (make_attempt(status=status) for status in (204, 503, None))
    for outcome, row in (("succeeded", good), ("refused", refused), ("unanswered", silent)):
        assert shown(staff, f"/admin/delivery/attempt/?outcome={outcome}") == [row]


def test_it_looks_through_whole_minutes_of_tallies(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptTallyAdmin, "window", 1)
    now = timezone.now().replace(second=0, microsecond=0)
    rows = [AttemptTally.objects.create(endpoint=make_endpoint(), minute=now - timedelta(minutes=age), outcome="dead") for age in (0, 0, 0, 5)]
    assert set(shown(staff, "/admin/delivery/attempttally/?outcome=dead")) == set(rows[:3])
    hour_ago = now - timedelta(hours=1)
    old = AttemptTally.objects.create(endpoint=make_endpoint(), minute=hour_ago - timedelta(minutes=1), outcome="dead")
    assert old not in shown(staff, "/admin/delivery/attempttally/?time=hour")


def test_it_finds_what_was_done_to_a_row(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuditEntryAdmin, "window", 2)
    tenant, other = make_tenant(), make_tenant(slug="other")
    old = AuditEntry.note(tenant, "key CI", "endpoint.pause", "ep_1")
    entries = [AuditEntry.note(other, "ada", "key.revoke", f"key_{number}") for number in range(3)]
    url = "/admin/subscriptions/auditentry/"
    assert shown(staff, f"{url}?q=key_2") == [entries[2]]
    assert shown(staff, f"{url}?q=ep_1") == []
    assert "were looked through" in notes(staff, f"{url}?q=ep_1")
    assert shown(staff, f"{url}?q=ep_1&tenant={tenant.public_id}") == [old]
    assert shown(staff, f"{url}?q={old.public_id}") == [old]


# --- By time -----------------------------------------------------------------------------------------------------------


def test_it_lists_by_time(staff: Client) -> None:
    now = timezone.now()
    ages = {"new": timedelta(0), "hours": timedelta(hours=3), "days": timedelta(days=3), "weeks": timedelta(days=20)}
    rows = {name: make_delivery(id=id_of(age)) for name, age in ages.items()}
    day, hour = (f"{now - ages['days']:%Y-%m-%d}", f"{now - ages['hours']:%Y-%m-%dT%H}")
    for time, found in (("hour", ["new"]), ("week", ["new", "hours", "days"]), (day, ["days"]), (hour, ["hours"])):
        assert shown(staff, f"{DELIVERIES}?time={time}") == [rows[name] for name in found], time
    assert rows["weeks"] in shown(staff, f"{DELIVERIES}?time={now - ages['weeks']:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("today", "2026-03-01T00:00", "2026-03-02T00:00"),
        ("yesterday", "2026-02-28T00:00", "2026-03-01T00:00"),
        ("hour", "2026-03-01T00:30", None),
        ("week", "2026-02-22T01:30", None),
        ("2026-02-10", "2026-02-10T00:00", "2026-02-11T00:00"),
        ("2026-02-10T23", "2026-02-10T23:00", "2026-02-11T00:00"),
    ],
)
def test_it_reads_times(rf: Any, monkeypatch: pytest.MonkeyPatch, value: str, start: str, end: str | None) -> None:
    now = datetime.fromisoformat("2026-03-01T01:30:00+00:00")
    monkeypatch.setattr(timezone, "now", lambda: now)
    found = PeriodFilter(rf.get("/"), {"time": [value]}, Delivery, None).chosen()
    assert found == Period(datetime.fromisoformat(f"{start}:00+00:00"), datetime.fromisoformat(f"{end}:00+00:00") if end else None)


@pytest.mark.parametrize("value", ["soon", "1970-01-01", "2026-02-30", "9999-12-31", "2026-02-10T24", "'", "2026-11-28T13:30"])
def test_it_says_which_time_it_does_not_know(staff: Client, value: str) -> None:
    row = make_delivery()
    assert shown(staff, f"{DELIVERIES}?time={value}") == [row]
    assert "is not a time such as" in notes(staff, f"{DELIVERIES}?time={value}")


# --- What is not asked of the database ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=gone", "There is no state “gone”: all are shown."),
        ("endpoint=x", "“x” is not the id of endpoint: all are shown."),
        ("last_error__contains=x", "There is no filter “last_error__contains” here: it was left out."),
        ("state__exact=2", "There is no filter “state__exact” here"),
    ],
)
def test_it_says_what_of_the_url_it_left_out(staff: Client, query: str, said: str) -> None:
    row = make_delivery()
    assert shown(staff, f"{DELIVERIES}?{query}") == [row]
    assert said in notes(staff, f"{DELIVERIES}?{query}")


def test_it_asks_for_nobodys_deliveries_to_be_moved_by_a_filter_that_it_left_out(staff: Client) -> None:
    row = make_delivery(state=DEAD)
    for query in ("state=gone", "endpoint=x", "last_error=timeout", "time=soon"):
        html = staff.post(f"{DELIVERIES}?{query}", {"action": "replay_matching", "apply": "1"}, follow=True).content.decode()
        assert "This cannot be done for these filters" in html, query
    assert not Replay.objects.exists()
    staff.post(f"{DELIVERIES}?state=dead&time=hour&endpoint={row.endpoint.public_id}", {"action": "replay_matching", "apply": "1"})
    asked = Replay.objects.get()
    assert (asked.delivery_state, asked.endpoint_id, asked.until) == (DEAD, row.endpoint_id, None)
    assert asked.since is not None
    assert timedelta(minutes=59) < timezone.now() - asked.since < timedelta(minutes=61)


def test_it_sorts_long_lists_by_nothing_but_their_index(staff: Client) -> None:
    rows = [make_delivery(attempt_count=count) for count in (3, 1, 2)]
    for column in range(1, 10):
        assert shown(staff, f"{DELIVERIES}?o={column}") == rows[::-1]
    assert "sortable" not in staff.get(DELIVERIES).content.decode()


def test_it_bounds_how_deep_pages_go(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedPaginator, "limit", 4)
    monkeypatch.setattr(DeliveryAdmin, "list_per_page", 2)
    rows = [make_delivery() for _ in range(6)][::-1]
    assert shown(staff, f"{DELIVERIES}?p=2") == rows[2:4]
    assert staff.get(f"{DELIVERIES}?p=3").status_code == 302
    assert "There are more: the newest 4 can be paged through." in notes(staff, DELIVERIES)


def queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in asked]


# What each list asks, session and user included: no more with more rows, and nothing that reads a whole table.
LISTS = {
    EVENTS: 5,
    f"{EVENTS}?operation=create": 6,
    f"{EVENTS}?time=today": 5,
    DELIVERIES: 5,
    f"{DELIVERIES}?state=dead": 7,
    f"{DELIVERIES}?state=delivered": 6,
    f"{DELIVERIES}?q=receiver.example": 8,
    "/admin/delivery/attempt/": 4,
    "/admin/delivery/attempt/?outcome=refused": 5,
    "/admin/delivery/attempttally/": 5,
    "/admin/delivery/eventtally/": 4,
    "/admin/delivery/replay/": 5,
    "/admin/subscriptions/auditentry/": 4,
    "/admin/subscriptions/endpoint/": 6,
    "/admin/subscriptions/subscription/": 6,
    "/admin/subscriptions/apikey/": 5,
    "/admin/subscriptions/endpointpaststate/": 5,
}


@pytest.mark.parametrize("url", LISTS)
def test_it_asks_as_little_with_many_rows_as_with_two(staff: Client, url: str) -> None:
    def add(count: int) -> None:
        for _ in range(count):
            attempt = make_attempt()
            Endpoint.objects.filter(pk=attempt.delivery.endpoint_id).set_state("paused", "")
            AuditEntry.note(attempt.delivery.endpoint.tenant, "ada", "endpoint.pause", "ep_x")
            AttemptTally.objects.create(endpoint=attempt.delivery.endpoint, minute=timezone.now(), outcome="dead")
            Replay.objects.create(endpoint=attempt.delivery.endpoint)

    add(2)
    few = queries(staff, url)
    add(5)
    many = queries(staff, url)
    assert len(few) == len(many) <= LISTS[url]
    assert not [sql for sql in many if "DISTINCT" in sql.upper() or '"body"' in sql or "response_body" in sql or '"secret"' in sql]
    # Whatever counts rows stops at its limit.
    if "subscriptions" not in url:
        assert all("LIMIT" in sql for sql in many if "COUNT(" in sql and "delivery_" in sql)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("url", "index"),
    [
        (DELIVERIES, "delivery_delivery_pkey"),
        (f"{DELIVERIES}?time=today", "delivery_delivery_pkey"),
        (f"{DELIVERIES}?endpoint={{ep}}", "delivery_endpoint"),
        (f"{DELIVERIES}?endpoint={{ep}}&state=dead", "delivery_dead"),
        (f"{EVENTS}?q=did:plc:x", "event_subject"),
        ("/admin/delivery/attempttally/?time=today", "attempt_tally_row"),
    ],
)
def test_the_rows_of_a_list_come_by_an_index_in_its_order(staff: Client, url: str, index: str) -> None:
    endpoint = make_endpoint()
    make_delivery(endpoint=endpoint)
    cl = staff.get(url.format(ep=endpoint.public_id)).context["cl"]
    with connection.cursor() as cursor:
        # Few rows are quicker read and sorted than found: the question is whether an index gives them in order.
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        plan = cl.queryset[:50].explain()
    assert index in plan
    assert "Sort" not in plan


def test_one_of_the_first_filters_is_by_time(staff: Client) -> None:
    for model_admin in (EventAdmin, DeliveryAdmin, AttemptAdmin, AttemptTallyAdmin, AuditEntryAdmin):
        assert model_admin.list_filter[0] is PeriodFilter
