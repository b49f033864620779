"""Totals are what the tallies have ever said, and never fall, whatever is folded or pruned."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delivery import totals
from delivery.folding import Folder
from delivery.models import AttemptTally, AttemptTotal, EventTally, EventTotal, TotalMark
from delivery.prune import TALLY_DAYS, Pruner
from delivery.tasks import prune
from subscriptions.models import Endpoint, Source
from tests.builders import make_endpoint, make_source

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)


@pytest.fixture
def source() -> Source:
    return make_source()


@pytest.fixture
def endpoint() -> Endpoint:
    return make_endpoint()


def never(_: float) -> bool:
    return False


def come_in(source: Source, minute: datetime, received: int = 1, type: str = "a.b.c") -> None:
    EventTally.objects.create(source=source, minute=minute.replace(second=0), kind="commit", type=type, received=received, stored=received)


def go_out(endpoint: Endpoint, minute: datetime, attempts: int = 1, total_ms: float = 0.1, outcome: str = "delivered") -> None:
    AttemptTally.objects.create(endpoint=endpoint, minute=minute.replace(second=0), outcome=outcome, attempts=attempts, total_ms=total_ms, ms_5=attempts)


def received() -> int:
    return sum(int(row[1]) for row in totals.sums(totals.EVENTS))


def attempts() -> tuple[int, int, int]:
    """Made, their time in µs, and in the first bucket."""
    rows = totals.sums(totals.ATTEMPTS)
    return sum(int(row[2]) for row in rows), sum(int(row[3]) for row in rows), sum(int(row[4]) for row in rows)


def test_it_adds_up_what_was_tallied_at_any_time(source: Source, endpoint: Endpoint) -> None:
    ages = [timedelta(), timedelta(minutes=9), timedelta(minutes=11), timedelta(hours=2), timedelta(hours=24), timedelta(hours=25), timedelta(days=60)]
    for number, age in enumerate(ages):
        come_in(source, NOW - age, 10**number)
        go_out(endpoint, NOW - age, 10**number)
    assert (received(), attempts()) == (1_111_111, (1_111_111, 700, 1_111_111))
    for hours in (0, 0, 1, 30):
        totals.add_up(NOW + timedelta(hours=hours))
        assert (received(), attempts()) == (1_111_111, (1_111_111, 700, 1_111_111))
    # All of it is in one row by now, and nothing is summed twice.
    assert list(EventTotal.objects.values_list("hour", "received")) == [(totals.LONG_PAST, 1_111_111)]


def test_it_keeps_sources_endpoints_and_outcomes_apart(source: Source, endpoint: Endpoint) -> None:
    other = make_endpoint()
    go_out(endpoint, NOW - timedelta(hours=1), 3)
    go_out(endpoint, NOW - timedelta(hours=1), 5, outcome="dead")
    go_out(other, NOW - timedelta(days=3), 7)
    totals.add_up(NOW)
    found = set(AttemptTotal.objects.values_list("endpoint_id", "outcome", "attempts"))
    assert found == {(endpoint.pk, "delivered", 3), (endpoint.pk, "dead", 5), (other.pk, "delivered", 7)}


def test_it_sums_the_present_again_until_it_has_settled(source: Source) -> None:
    come_in(source, NOW - timedelta(minutes=30))
    totals.add_up(NOW)
    come_in(source, NOW - timedelta(minutes=1))
    EventTally.objects.filter(minute__gt=NOW - timedelta(minutes=5)).update(received=4)
    assert received() == 5
    totals.add_up(NOW + timedelta(minutes=20))
    assert received() == 5


def test_it_counts_what_comes_too_late_when_its_hour_is_summed_again(source: Source) -> None:
    """From a process that stood still between reading the clock and writing."""
    totals.add_up(NOW)
    come_in(source, NOW - timedelta(minutes=40))
    totals.add_up(NOW + timedelta(minutes=5))
    assert received() == 1
    come_in(source, NOW - timedelta(hours=10))
    totals.add_up(NOW + timedelta(minutes=10))
    assert received() == 1
    totals.add_up(NOW + timedelta(hours=17))
    assert received() == 2


def test_it_does_not_go_back_with_a_clock_that_does(source: Source) -> None:
    come_in(source, NOW - timedelta(minutes=30))
    totals.add_up(NOW)
    totals.add_up(NOW - timedelta(hours=3))
    assert received() == 1
    assert TotalMark.objects.get(pk="eventtally").until == NOW.replace(minute=24, second=0)


def a_day_of_minutes(source: Source, endpoint: Endpoint, since: datetime) -> None:
    for number in range(0, 24 * 60, 7):
        come_in(source, since + timedelta(minutes=number), number)
        go_out(endpoint, since + timedelta(minutes=number), number, total_ms=0.1 * number)


def test_counters_do_not_fall_when_tallies_are_folded_and_pruned(source: Source, endpoint: Endpoint, time_machine_at: Any) -> None:
    a_day_of_minutes(source, endpoint, NOW - timedelta(hours=40))
    before = received(), attempts()
    totals.add_up(NOW)
    assert Folder().run(never, NOW) > 5
    assert (received(), attempts()) == before
    time_machine_at(NOW + timedelta(days=TALLY_DAYS + 1))
    Pruner().run(never)
    assert not EventTally.objects.exists()
    assert not AttemptTally.objects.exists()
    assert (received(), attempts()) == before


def test_pruning_sums_what_nobody_has_summed(source: Source, endpoint: Endpoint, time_machine_at: Any) -> None:
    """Of an installation whose schedule stood still, or that comes from a version without totals."""
    time_machine_at(NOW)
    for days in (TALLY_DAYS, TALLY_DAYS + 1, TALLY_DAYS + 30, 5):
        come_in(source, NOW - timedelta(days=days, seconds=60), days)
        go_out(endpoint, NOW - timedelta(days=days, seconds=60), days)
    Pruner(chunk=1).run(never)
    assert (EventTally.objects.count(), AttemptTally.objects.count()) == (1, 1)
    assert (received(), attempts()[0]) == (3 * TALLY_DAYS + 36, 3 * TALLY_DAYS + 36)
    totals.add_up(NOW)
    assert (received(), attempts()[0]) == (3 * TALLY_DAYS + 36, 3 * TALLY_DAYS + 36)


def test_the_schedule_adds_up_before_anything_is_folded(source: Source, time_machine_at: Any) -> None:
    time_machine_at(NOW)
    a_day_of_minutes(source, make_endpoint(), NOW - timedelta(hours=60))
    before = received(), attempts()
    prune()
    assert EventTally.objects.count() < 30
    assert TotalMark.objects.count() == 2
    assert (received(), attempts()) == before


@pytest.fixture
def time_machine_at() -> Iterator[Any]:
    import time_machine

    travellers = []

    def travel(moment: datetime) -> None:
        travellers.append(time_machine.travel(moment, tick=False))
        travellers[-1].start()

    yield travel
    for traveller in reversed(travellers):
        traveller.stop()
