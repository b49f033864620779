"""How far a stream has been read: the highest time, never past now, or the host's own numbers."""

import pytest

from delivery.sources.jetstream.position import OVERLAP_US, Position
from tests.builders import make_incoming

NOW = 1_790_000_000_000_000
T = 1_780_000_000_000_000


def advanced(start: int | None, *steps: tuple[int, int | None]) -> Position:
    """The position after events with these (time_us, cursor)."""
    position = Position(start)
    for time_us, cursor in steps:
        position.advance(make_incoming(time_us=time_us, cursor=cursor), NOW)
    return position


@pytest.mark.parametrize(
    ("start", "steps", "cursor"),
    [
        (None, [], None),
        (T, [], T),
        (None, [(T, None)], T),
        (None, [(T, None), (T + 9, None)], T + 9),
        # Clocks run backwards across accounts.
        (None, [(T + 9, None), (T, None)], T + 9),
        (T + 5, [(T, None)], T + 5),
        # A record may be imported with a time years back, or lie in the future.
        (T, [(0, None)], T),
        (None, [(5, None)], 5),
        (T, [(NOW + 1, None)], NOW),
        (T, [(2**62, None), (T + 1, None)], NOW),
        # Hosts that number their events.
        (None, [(T, 7)], 7),
        (None, [(T, 7), (T + 9, 8)], 8),
        (7, [(T, 9), (T, 8)], 9),
        # From one way of counting to the other: the last word counts.
        (T, [(T + 9, 7)], 7),
        (7, [(T, None)], T),
        # A cursor that is a time is no number.
        (None, [(T, T + 3)], T),
    ],
)
def test_it_is_the_furthest_that_was_read(start: int | None, steps: list[tuple[int, int | None]], cursor: int | None) -> None:
    assert advanced(start, *steps).cursor == cursor


@pytest.mark.parametrize(
    ("cursor", "resumed"),
    [(None, None), (T, T - OVERLAP_US), (10**15, 10**15 - OVERLAP_US), (10**15 - 1, 10**15 - 1), (0, 0), (12_345, 12_345)],
)
def test_it_resumes_with_an_overlap_where_order_is_loose(cursor: int | None, resumed: int | None) -> None:
    assert Position(cursor).resume_at() == resumed
