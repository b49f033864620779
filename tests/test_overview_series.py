"""What came in and went out over a span, from the tallies: right whatever was remembered, and cheap."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from delivery.folding import Folder
from delivery.models import AttemptTally, EventTally
from jetrelay.dashboard.overview import series
from jetrelay.dashboard.overview.series import SPANS
from jetrelay.dashboard.overview.totals import totals
from jetrelay.dashboard.overview.worst import worst
from subscriptions.models import Source
from tests.builders import make_endpoint, make_health, make_source, make_tenant

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    cache.clear()


@pytest.fixture
def source() -> Source:
    return make_source()


def came(source: Source, minute: datetime, received: int) -> None:
    row, _ = EventTally.objects.get_or_create(source=source, minute=minute.replace(second=0), kind="commit", type="a.b.c")
    EventTally.objects.filter(pk=row.pk).update(received=row.received + received)


def received(span: str, now: datetime = NOW) -> list[float]:
    return [value or 0 for value in series.events(None, SPANS[span], now).values("received")]


@pytest.mark.parametrize(
    ("span", "steps", "first", "last"), [("hour", 60, "11:35", "12:34"), ("day", 48, "13:00", "12:30"), ("week", 56, "Fri 13 15:00", "Fri 20 12:00")]
)
def test_a_span_has_even_steps_and_ends_now(span: str, steps: int, first: str, last: str) -> None:
    labels = series.events(None, SPANS[span], NOW).labels
    assert (len(labels), labels[0], labels[-1]) == (steps, first, last)


def test_it_puts_each_minute_into_its_step(source: Source) -> None:
    came(source, NOW, 1)
    came(source, NOW - timedelta(minutes=5), 10)
    came(source, NOW - timedelta(hours=2), 100)
    came(source, NOW - timedelta(days=2), 1000)
    came(source, NOW - timedelta(days=30), 10_000)
    assert (received("hour")[-1], received("hour")[-6], sum(received("hour"))) == (1, 10, 11)
    # 12:34 and 12:29 lie in two half hours.
    assert (received("day")[-1], received("day")[-2], sum(received("day"))) == (1, 10, 111)
    assert (received("week")[-1], sum(received("week"))) == (11, 1111)


def test_it_sums_finished_steps_once_and_late_ones_again(source: Source, django_assert_num_queries: Any) -> None:
    came(source, NOW - timedelta(minutes=10), 7)
    came(source, NOW - timedelta(minutes=1), 1)
    first = received("hour")
    # What is written late into a step that is not long over counts; so does what comes after.
    came(source, NOW - timedelta(minutes=1), 2)
    came(source, NOW + timedelta(minutes=3), 5)
    with django_assert_num_queries(1):
        later = received("hour", NOW + timedelta(minutes=3))
    assert sum(first) == 8
    assert (later[-4 - 1], later[-1], sum(later)) == (3, 5, 15)
    # A finished step is not read again.
    came(source, NOW - timedelta(minutes=10), 1000)
    assert sum(received("hour", NOW + timedelta(minutes=3))) == 15


def test_a_chart_is_the_same_before_and_after_folding(source: Source) -> None:
    for hours in range(20, 100, 7):
        came(source, NOW - timedelta(hours=hours), hours)
    before = received("week")
    cache.clear()
    assert Folder().run(lambda _: False, NOW) > 0
    assert received("week") == before


def test_it_tells_delivered_from_failed_and_leaves_out_what_was_cancelled() -> None:
    endpoint = make_endpoint()
    for outcome, attempts in (("delivered", 5), ("retry", 2), ("dead", 1), ("cancelled", 9)):
        AttemptTally.objects.create(endpoint=endpoint, minute=NOW, outcome=outcome, attempts=attempts, ms_50=attempts)
    steps = series.attempts(None, SPANS["hour"], NOW)
    assert (steps.values("delivered")[-1], steps.values("failed")[-1], sum(steps.histograms()[-1])) == (5, 3, 8)


def test_totals_grow_by_what_was_added_since(source: Source, django_assert_num_queries: Any) -> None:
    def total() -> Any:
        return totals(EventTally, None, ("kind",), ("received",))

    now = timezone.now()
    came(source, now - timedelta(days=2), 5)
    came(source, now, 1)
    assert total() == {("commit",): [6]}
    came(source, now, 2)
    with django_assert_num_queries(1):
        assert total() == {("commit",): [8]}


def test_each_sees_their_own_totals() -> None:
    ours, theirs = make_tenant(slug="ours"), make_tenant(slug="theirs")
    for tenant, count in ((ours, 1), (theirs, 10)):
        AttemptTally.objects.create(endpoint=make_endpoint(tenant=tenant), minute=NOW, outcome="delivered", attempts=count)
    found = [totals(AttemptTally, tenants, ("outcome",), ("attempts",)) for tenants in ([ours], [theirs], [ours, theirs], None)]
    assert found == [{("delivered",): [1]}, {("delivered",): [10]}, {("delivered",): [11]}, {("delivered",): [11]}]


def test_the_worst_endpoints_come_by_what_failed() -> None:
    now, tenant = timezone.now(), make_tenant(slug="ours")
    rows = [make_endpoint(tenant=tenant, name=f"number {place}") for place in range(7)]
    for place, endpoint in enumerate(rows):
        AttemptTally.objects.create(endpoint=endpoint, minute=now, outcome="delivered", attempts=10)
        AttemptTally.objects.create(endpoint=endpoint, minute=now, outcome="retry", attempts=place)
    make_health(endpoint=rows[6], reason="500")
    found = worst([tenant])
    assert [(row.endpoint.name, row.failed) for row in found] == [(f"number {place}", place) for place in (6, 5, 4, 3, 2)]
    assert (found[0].share, found[0].standing.last_failure) == (6 / 16, "500")
    assert worst([make_tenant(slug="theirs")]) == []


def test_the_span_is_in_the_url(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    for url, current in (("/", "hour"), ("/?span=week", "week"), ("/?span=year", "hour")):
        html = client.get(url).content.decode()
        assert f'href="/?span={current}" aria-current="true"' in html
        assert f'hx-get="/overview/charts/?span={current}"' in html
        assert html.count('class="chart"') == 3
