"""How far a stream has been read: the highest time, never past now and never past a backlog, or the host's own numbers."""

import pytest

from delivery.sources.jetstream.position import FIRST_TIME_US, OVERLAP_US, Position
from tests.builders import make_incoming

NOW = 1_790_000_000_000_000
T = 1_780_000_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
YEAR = 365 * 24 * HOUR


def advanced(start: int | None, *steps: tuple[int, int | None]) -> Position:
    """The position after events with these (time_us, cursor)."""
    position = Position(start)
    for time_us, cursor in steps:
        position.advance(make_incoming(time_us=time_us, cursor=cursor), NOW)
    return position


def advance(position: Position, time_us: int, did: str = "did:plc:a", now_us: int = NOW, cursor: int | None = None) -> None:
    position.advance(make_incoming(time_us=time_us, subject=did, cursor=cursor), now_us)


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
        (None, [(5, None)], FIRST_TIME_US),
        (T, [(NOW + 1, None)], T),
        (T, [(2**62, None), (T + 1, None)], T + 1),
        # A host's clock may be ahead of this machine's.
        (NOW - 5, [(NOW + 5, None)], NOW),
        (None, [(NOW + 5, None)], NOW),
        # Hosts that number their events: the last, because one that counts anew starts low.
        (None, [(T, 7)], 7),
        (None, [(T, 7), (T + 9, 8)], 8),
        (7, [(T, 9), (T, 8)], 8),
        (None, [(T, 0)], 0),
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
    [(None, None), (T, T - OVERLAP_US), (10**15, 10**15), (10**15 + 1, 10**15), (10**15 - 1, 10**15 - 1), (0, 0), (12_345, 12_345)],
)
def test_it_resumes_with_an_overlap_where_order_is_loose(cursor: int | None, resumed: int | None) -> None:
    assert Position(cursor).resume_at() == resumed


def test_a_time_before_2001_is_never_taken_for_a_number() -> None:
    position = advanced(None, (5, None), (7 * MINUTE, None))
    assert position.reached_us == 5
    assert not position.numbered
    assert position.resume_at() == FIRST_TIME_US
    position.go_back(-1)
    assert position.resume_at() == FIRST_TIME_US


# --- Leaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [MINUTE + 1, HOUR, YEAR])
def test_one_event_far_ahead_does_not_carry_it_past_the_backlog(ahead: int) -> None:
    position = Position(T)
    for second in range(200):
        advance(position, T + second * SECOND, f"did:plc:{second % 7}")
        if second % 3 == 0:
            advance(position, T + second * SECOND + ahead, f"did:plc:odd{second}")
        assert position.cursor == position.reached_us == T + second * SECOND


def test_one_account_far_ahead_does_not_carry_it_past_the_backlog() -> None:
    position = Position(T)
    for number in range(500):
        advance(position, T + YEAR + number * SECOND, "did:plc:imports")
    assert position.reached_us == T
    advance(position, T + SECOND)
    assert position.reached_us == T + SECOND


def test_the_same_event_again_and_again_does_not_carry_it_ahead() -> None:
    position = Position(T)
    for number in range(50):
        advance(position, T + YEAR, now_us=NOW + number * MINUTE)
    assert position.reached_us == T


def test_three_accounts_in_a_row_carry_it_ahead() -> None:
    position = Position(T)
    advance(position, T + HOUR + 2 * SECOND, "did:plc:a")
    advance(position, T + HOUR + 1 * SECOND, "did:plc:b")
    assert position.reached_us == T
    advance(position, T + HOUR + 3 * SECOND, "did:plc:c")
    # To the least of what they say: events near each other come in any order.
    assert position.reached_us == T + HOUR + SECOND
    advance(position, T + HOUR + 3 * SECOND)
    assert position.reached_us == T + HOUR + 3 * SECOND


def test_three_accounts_at_three_far_times_carry_it_to_the_least() -> None:
    position = Position(T)
    advance(position, T + YEAR, "did:plc:a")
    advance(position, T + HOUR, "did:plc:b")
    advance(position, T + 3 * HOUR, "did:plc:c")
    assert position.reached_us == T + HOUR
    advance(position, T + HOUR + SECOND)
    assert position.reached_us == T + HOUR + SECOND


def test_accounts_far_ahead_do_not_add_up_over_a_stream_that_goes_on() -> None:
    position = Position(T)
    for second in range(30):
        advance(position, T + HOUR, f"did:plc:{second}")
        advance(position, T + second * SECOND)
    assert position.reached_us == T + 29 * SECOND


def test_an_imported_record_in_between_does_not_hold_it_back() -> None:
    position = Position(T)
    advance(position, T + HOUR, "did:plc:a")
    advance(position, T - 5 * HOUR, "did:plc:imports")
    advance(position, T + HOUR, "did:plc:b")
    advance(position, T + HOUR, "did:plc:c")
    assert position.reached_us == T + HOUR


def test_a_quiet_stream_whose_events_are_minutes_apart_moves_on() -> None:
    position = Position(T)
    for number in range(1, 100):
        time_us = T + number * 7 * MINUTE
        advance(position, time_us, now_us=time_us + SECOND)
        # The newest has nothing yet to confirm it.
        assert position.reached_us == time_us - 7 * MINUTE


def test_a_quiet_stream_moves_on_after_its_backlog_was_read_at_once() -> None:
    position = Position(T)
    for number in range(1, 30):
        advance(position, T + number * 7 * MINUTE, now_us=NOW)
    advance(position, T + 30 * 7 * MINUTE, now_us=NOW + MINUTE)
    assert position.reached_us == T + 29 * 7 * MINUTE


def test_it_knows_the_highest_time_read() -> None:
    position = Position(T)
    assert position.furthest_us == T
    advance(position, T + HOUR)
    advance(position, T - HOUR)
    assert position.furthest_us == T + HOUR
    assert Position().furthest_us == 0


def test_no_cursor_lies_beyond_this_machines_clock() -> None:
    position = Position(NOW - MINUTE)
    for second in range(120):
        advance(position, NOW - MINUTE + second * SECOND, now_us=NOW - 30 * SECOND)
        assert position.cursor is not None
        assert position.cursor <= NOW - 30 * SECOND


# --- Moving it ---------------------------------------------------------------------------------------------------------


def test_it_settles_where_a_quiet_host_has_nothing_before() -> None:
    position = Position(T)
    position.settle(T + HOUR)
    assert (position.cursor, position.reached_us) == (T + HOUR, T + HOUR)
    position.settle(T + MINUTE)
    assert position.cursor == T + HOUR


def test_an_older_event_disproves_that_it_has_settled() -> None:
    position = Position(T)
    position.settle(T + HOUR)
    advance(position, T + MINUTE)
    assert (position.cursor, position.reached_us) == (T + MINUTE, T + MINUTE)
    advance(position, T + MINUTE + SECOND)
    assert position.cursor == T + MINUTE + SECOND


def test_an_event_from_before_it_settled_disproves_nothing() -> None:
    position = Position(T)
    position.settle(T + HOUR)
    advance(position, T - SECOND)
    assert position.cursor == T + HOUR


def test_once_the_stream_has_gone_on_an_older_event_is_only_late() -> None:
    position = Position(T)
    position.settle(T + HOUR)
    advance(position, T + HOUR + SECOND)
    advance(position, T + MINUTE)
    assert position.cursor == T + HOUR + SECOND


def test_it_settles_without_having_read_anything() -> None:
    position = Position()
    position.settle(T)
    assert position.cursor == T
    advance(position, T - SECOND)
    assert position.cursor == T - SECOND


def test_a_numbered_host_settles_by_time_and_counts_again_from_its_next_event() -> None:
    position = advanced(None, (T, 7))
    position.settle(T + HOUR)
    assert position.cursor == T + HOUR
    advance(position, T + HOUR + SECOND, cursor=8)
    assert position.cursor == 8


def test_it_goes_back_and_never_ahead() -> None:
    position = Position(T)
    position.go_back(T + HOUR)
    assert position.cursor == T
    position.go_back(T - HOUR)
    assert (position.cursor, position.reached_us) == (T - HOUR, T - HOUR)


@pytest.mark.parametrize(("cursor", "reached_us", "resumed"), [(7, T, T - OVERLAP_US), (7, None, None), (T, T, T - OVERLAP_US), (None, None, None)])
def test_it_forgets_a_number_and_goes_on_by_time(cursor: int | None, reached_us: int | None, resumed: int | None) -> None:
    position = Position(cursor, reached_us)
    position.forget_number()
    assert position.resume_at() == resumed
    assert not position.numbered


@pytest.mark.parametrize(("cursor", "reached_us", "reached"), [(T, None, T), (7, None, None), (7, T, T), (None, None, None), (T, T - 5, T - 5)])
def test_it_knows_how_far_the_stream_has_come(cursor: int | None, reached_us: int | None, reached: int | None) -> None:
    position = Position(cursor, reached_us)
    assert position.reached_us == reached
    assert (position.copy().cursor, position.copy().reached_us) == (cursor, reached)
