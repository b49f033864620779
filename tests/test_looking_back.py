"""How far claims look below the place that they have come to, and how often."""

from datetime import UTC, datetime, timedelta

import pytest

from delivery.looking_back import DAWN, EVERY_S, RECENT, REST_FACTOR, SLICE_S, LookingBack, Slice

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def look(back: LookingBack, at_s: float, took_s: float) -> Slice | None:
    found = back.next(NOW + timedelta(seconds=at_s), at_s)
    if found:
        back.took(found, took_s, at_s)
    return found


def test_it_looks_through_everything_every_second_while_that_costs_little() -> None:
    back = LookingBack()
    seen = [look(back, tick / 10, 0.001) for tick in range(21)]
    assert [found is not None for found in seen] == [tick % 10 == 0 for tick in range(21)]
    assert {found.since for found in seen if found} == {DAWN}
    assert back.is_cheap


def test_it_looks_slice_by_slice_where_everything_takes_long() -> None:
    back, at_s = LookingBack(), 1000.0
    look(back, 0, 1.0)
    assert not back.is_cheap
    seen: list[Slice] = []
    while not seen or seen[-1].since != DAWN:
        found = back.next(NOW, at_s)
        assert found
        seen.append(found)
        back.took(found, SLICE_S / 2 if len(seen) < 10 else 0.0, at_s)
        at_s, back.recent_at = back.next_at, back.next_at
    assert [each.until for each in seen[1:]] == [each.since for each in seen[:-1]], "nothing is left out"
    assert seen[0].until == NOW
    assert len(seen) < 50


def test_a_slice_is_as_wide_as_takes_a_moment() -> None:
    back = LookingBack()
    look(back, 0, 1.0)
    widths, at_s = [], 100.0
    for took_s in (1.0, 1.0, SLICE_S / 2, 0.0, 0.0):
        look(back, at_s, took_s)
        widths.append(back.width)
        at_s += 100
    assert widths == [timedelta(minutes=each) for each in (5, 2.5, 2.5, 5, 10)]


@pytest.mark.parametrize("took_s", [SLICE_S * 4, SLICE_S * 400])
def test_it_rests_for_so_many_times_as_long_as_a_look_took(took_s: float) -> None:
    back = LookingBack()
    look(back, 0, took_s)
    end_s = took_s * REST_FACTOR
    assert back.next(NOW, end_s - 0.001) is None
    assert back.next(NOW, end_s) is not None


def test_what_came_a_little_late_is_found_within_a_second_whatever_the_rest_costs() -> None:
    back = LookingBack()
    look(back, 0, 100.0)
    look(back, 100 * REST_FACTOR, 100.0)
    begun = 100 * REST_FACTOR + 1.0
    recent = [back.next(NOW, begun + tick / 10) for tick in range(21)]
    assert [found for found in recent if found] == [Slice(NOW - RECENT, NOW)] * (2 + int(EVERY_S))
