"""Tallies of minutes become tallies of hours once nobody looks at their minutes any more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import Sum

from delivery.folding import AFTER, Folder
from delivery.leases import Holding
from delivery.models import AttemptTally, EventTally
from subscriptions.models import Endpoint, Source
from tests.builders import make_endpoint, make_source

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)
OLD = datetime(2026, 11, 18, 9, 0, tzinfo=UTC)


@pytest.fixture
def source() -> Source:
    return make_source()


@pytest.fixture
def endpoint() -> Endpoint:
    return make_endpoint()


def never(_: float) -> bool:
    return False


def add_event_tally(source: Source, minute: datetime, type: str = "a.b.c", received: int = 3, stored: int = 2) -> None:
    EventTally.objects.create(source=source, minute=minute, kind="commit", type=type, received=received, stored=stored, unmatched=received - stored)


def rows(model: type[Any], *fields: str) -> list[tuple[Any, ...]]:
    return list(model.objects.order_by("minute", *fields).values_list("minute", *fields))


def test_it_makes_one_row_of_an_hours_rows(source: Source) -> None:
    for minute in (0, 1, 59):
        add_event_tally(source, OLD + timedelta(minutes=minute))
    add_event_tally(source, OLD + timedelta(minutes=5), type="x.y.z", received=7, stored=7)
    assert Folder().run(never, NOW) == 1
    assert rows(EventTally, "type", "received", "stored", "unmatched") == [(OLD, "a.b.c", 9, 6, 3), (OLD, "x.y.z", 7, 7, 0)]


def test_it_keeps_endpoints_outcomes_and_histograms_apart(endpoint: Endpoint) -> None:
    other = make_endpoint()
    for minute in (3, 4):
        for each, outcome, ms_10 in ((endpoint, "delivered", 5), (endpoint, "retry", 1), (other, "delivered", 2)):
            AttemptTally.objects.create(
                endpoint=each, minute=OLD + timedelta(minutes=minute), outcome=outcome, attempts=6, total_ms=1.5, ms_10=ms_10, ms_over=6 - ms_10
            )
    Folder().run(never, NOW)
    found = {(row.endpoint_id, row.outcome): (row.minute, row.attempts, row.total_ms, row.ms_10, row.ms_over, row.ms_5) for row in AttemptTally.objects.all()}
    assert found == {
        (endpoint.pk, "delivered"): (OLD, 12, 3.0, 10, 2, 0),
        (endpoint.pk, "retry"): (OLD, 12, 3.0, 2, 10, 0),
        (other.pk, "delivered"): (OLD, 12, 3.0, 4, 8, 0),
    }


def test_it_leaves_the_last_day_alone(source: Source) -> None:
    hour = NOW.replace(minute=0, second=0) - AFTER
    for minute in (hour - timedelta(minutes=2), hour - timedelta(minutes=1), hour, hour + timedelta(minutes=1), NOW):
        add_event_tally(source, minute)
    assert Folder().run(never, NOW) == 1
    assert [minute for (minute,) in rows(EventTally)] == [hour - timedelta(hours=1), hour, hour + timedelta(minutes=1), NOW]


def test_it_changes_nothing_the_second_time(source: Source) -> None:
    for hours in range(3):
        for minute in (1, 2):
            add_event_tally(source, OLD + timedelta(hours=hours, minutes=minute))
    folder = Folder()
    assert folder.run(never, NOW) == 3
    before = rows(EventTally, "id", "received")
    assert [folder.run(never, NOW), Folder().run(never, NOW)] == [0, 0]
    assert rows(EventTally, "id", "received") == before
    assert EventTally.objects.aggregate(received=Sum("received"))["received"] == 18


def test_it_goes_on_where_it_was_told_to_stop(source: Source) -> None:
    for hours in range(3):
        for minute in (1, 2):
            add_event_tally(source, OLD + timedelta(hours=hours, minutes=minute))
    folder = Folder()
    assert folder.run(lambda _: True, NOW) == 1
    assert EventTally.objects.count() == 5
    assert folder.run(never, NOW) == 2
    assert EventTally.objects.count() == 3


def test_one_folds_at_a_time(source: Source) -> None:
    for minute in (1, 2):
        add_event_tally(source, OLD + timedelta(minutes=minute))
    holding = Holding("fold", 60)
    assert holding.take()
    assert Folder().run(never, NOW) == 0
    holding.release()
    assert Folder().run(never, NOW) == 1
