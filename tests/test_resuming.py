"""From where a host is asked to go on, and what its first answer says about what was missed."""

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream.frames_v2 import Info
from delivery.sources.jetstream.position import FIRST_TIME_US, OVERLAP_US, STEP_US, Position
from delivery.sources.jetstream.resuming import LEAPT, TOO_OLD, Gap, Renumbered, Resumption
from tests.builders import make_incoming

T = 1_780_000_000_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
SOON = T + HOUR
OUTDATED = Info("OutdatedCursor", "")
FUTURE = Info("FutureCursor", "")


def asked(cursor: int | None, reached_us: int | None = None) -> tuple[Resumption, Position]:
    """A host that has been asked to go on from there."""
    position = Position(cursor, reached_us)
    resumption = Resumption(position)
    resumption.ask(None)
    return resumption, position


def event(time_us: int, cursor: int | None = None) -> Incoming:
    return make_incoming(time_us=time_us, cursor=cursor)


# --- Asking ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cursor", "no_later_us", "ask"),
    [
        (None, None, None),
        (None, T, None),
        (T, None, T - OVERLAP_US),
        (T, T + HOUR, T - OVERLAP_US),
        (T, T - HOUR, T - HOUR - OVERLAP_US),
        (T, 5, FIRST_TIME_US),
        (42, None, 42),
        (42, T, 42),
    ],
)
def test_it_asks_from_where_it_was_or_from_earlier(cursor: int | None, no_later_us: int | None, ask: int | None) -> None:
    assert Resumption(Position(cursor, T)).ask(no_later_us) == ask


def test_reading_again_from_earlier_moves_the_position_back() -> None:
    position = Position(T)
    Resumption(position).ask(T - HOUR)
    assert position.reached_us == T - HOUR


@pytest.mark.parametrize(("cursor", "reached_us", "judged"), [(None, None, True), (42, None, True), (42, T, False), (T, None, False)])
def test_there_is_nothing_to_judge_where_nothing_was_read(cursor: int | None, reached_us: int | None, judged: bool) -> None:
    assert asked(cursor, reached_us)[0].judged is judged


# --- By time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "broad"), [*((first, broad) for first in (T - OVERLAP_US, T, T + 1, T + 2 * OVERLAP_US) for broad in (True, False)), (T + STEP_US, False)]
)
def test_a_host_that_goes_on_where_it_was_asked_to_leaves_no_gap(first: int, broad: bool) -> None:
    resumption, _ = asked(T)
    assert resumption.judge(event(first), T + 2 * DAY, broad=broad) is None
    assert resumption.judged


@pytest.mark.parametrize("later", [2 * OVERLAP_US + 1, STEP_US + 1, HOUR, 3 * DAY])
def test_a_silent_clamp_on_a_broad_filter_is_a_gap(later: int) -> None:
    resumption, _ = asked(T)
    assert resumption.judge(event(T + later), T + 3 * DAY, broad=True) == Gap(T, T + later, LEAPT)
    assert resumption.judged


@pytest.mark.parametrize(("age", "gap"), [(22 * HOUR, None), (24 * HOUR, Gap(T, T + HOUR, LEAPT))])
def test_a_narrow_filter_may_have_had_nothing_while_hosts_surely_keep_it(age: int, gap: Gap | None) -> None:
    resumption, _ = asked(T)
    assert resumption.judge(event(T + HOUR), T + age, broad=False) == gap


def test_imported_records_and_records_from_the_future_say_nothing() -> None:
    resumption, _ = asked(T)
    now_us = T + 3 * DAY
    for time_us in (0, T - 2 * HOUR, T - 365 * DAY, now_us + HOUR, 2**62):
        assert resumption.judge(event(time_us), now_us, broad=True) is None
        assert not resumption.judged
    assert resumption.judge(event(T + HOUR), now_us, broad=True) == Gap(T, T + HOUR, LEAPT)


def test_a_gap_is_told_once_for_each_connection() -> None:
    resumption, _ = asked(T)
    assert resumption.judge(event(T + HOUR), SOON, broad=True)
    assert resumption.judged
    resumption.ask(None)
    assert not resumption.judged


# --- What the host says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broad", [True, False])
def test_what_the_host_calls_outdated_is_a_gap_however_short(broad: bool) -> None:
    resumption, _ = asked(T)
    resumption.told(OUTDATED)
    assert resumption.judge(event(T + 5), T + 10, broad=broad) == Gap(T, T + 5, TOO_OLD)


def test_nothing_is_missing_where_the_oldest_that_is_kept_was_read_before() -> None:
    resumption, _ = asked(T)
    resumption.told(OUTDATED)
    assert resumption.judge(event(T - 1), SOON, broad=True) is None


def test_a_number_that_is_too_old_becomes_a_time_and_then_a_gap() -> None:
    resumption, position = asked(42, T)
    resumption.refused()
    assert not position.numbered
    assert resumption.ask(None) == T - OVERLAP_US
    assert resumption.judge(event(T + 2 * HOUR, 90), T + 3 * HOUR, broad=False) == Gap(T, T + 2 * HOUR, TOO_OLD)


def test_what_was_too_old_once_is_not_held_against_a_later_connection() -> None:
    resumption, position = asked(42)
    resumption.refused()
    assert resumption.ask(None) is None
    position.advance(event(T), T)
    resumption.ask(None)
    assert resumption.judge(event(T + 5), SOON, broad=True) is None


def test_an_outdated_cursor_is_remembered_until_an_event_says_how_much_is_missing() -> None:
    resumption, _ = asked(T)
    resumption.told(OUTDATED)
    resumption.ask(None)
    assert resumption.judge(event(T + HOUR), SOON, broad=False) == Gap(T, T + HOUR, TOO_OLD)


def test_it_does_not_mind_what_else_the_host_says() -> None:
    resumption, _ = asked(T)
    resumption.told(Info("SomethingNew", ""))
    assert resumption.judge(event(T + 5), SOON, broad=True) is None


# --- By number ---------------------------------------------------------------------------------------------------------


def test_a_host_that_goes_on_at_its_number_leaves_no_gap() -> None:
    resumption, _ = asked(42, T)
    assert resumption.judge(event(T, 42), SOON, broad=True) is None
    assert resumption.judged


@pytest.mark.parametrize(
    "first", [event(T + 5, 43), event(T + HOUR, 9_000), event(T, 41), event(T + HOUR, 1), event(T - DAY, 0), event(T + STEP_US + 1, 42), event(T + HOUR, 42)]
)
def test_a_host_that_counts_anew_is_noticed(first: Incoming) -> None:
    resumption, _ = asked(42, T)
    with pytest.raises(Renumbered):
        resumption.judge(first, T + DAY, broad=False)


def test_the_same_event_with_a_time_far_ahead_is_not_a_host_that_counts_anew() -> None:
    position, far = Position(41, T), event(T + HOUR, 42)
    position.advance(far, T + 2 * HOUR)
    resumption = Resumption(position)
    assert resumption.ask(None) == 42
    assert resumption.judge(far, T + 2 * HOUR, broad=True) is None
    assert resumption.judged


def test_another_event_under_the_same_number_is_of_another_archive() -> None:
    position = Position(41, T)
    position.advance(event(T, 42), T + HOUR)
    resumption = Resumption(position)
    assert resumption.ask(None) == 42
    with pytest.raises(Renumbered):
        resumption.judge(event(T, 42), T + HOUR, broad=True)


def test_a_number_beyond_the_hosts_newest_is_of_another_archive() -> None:
    resumption, _ = asked(42, T)
    with pytest.raises(Renumbered):
        resumption.told(FUTURE)


def test_a_time_in_the_future_is_no_reason_to_ask_again() -> None:
    resumption, _ = asked(T)
    resumption.told(FUTURE)
    assert resumption.judge(event(T + 5), SOON, broad=True) is None


def test_a_host_asked_by_time_may_number_its_events_as_it_likes() -> None:
    resumption, _ = asked(T)
    assert resumption.judge(event(T, 1), SOON, broad=True) is None


# --- Nothing came ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cursor", "outdated", "age", "gap"),
    [
        (T, False, HOUR, None),
        (T, False, 22 * HOUR, None),
        (T, False, 2 * DAY, LEAPT),
        (T, True, HOUR, TOO_OLD),
        (T, True, 2 * DAY, TOO_OLD),
        (None, False, 2 * DAY, None),
        (None, True, 2 * DAY, None),
    ],
)
def test_silence_is_a_gap_where_the_host_may_have_lost_what_was_asked_for(cursor: int | None, outdated: bool, age: int, gap: str | None) -> None:
    resumption, _ = asked(cursor)
    if outdated:
        resumption.told(OUTDATED)
    until_us = T + age - 60 * SECOND
    assert resumption.nothing_came(until_us, T + age) == (gap and Gap(T, until_us, gap))
    assert resumption.nothing_came(until_us, T + age) is None


def test_silence_up_to_before_where_it_was_is_no_gap() -> None:
    resumption, _ = asked(T)
    resumption.told(OUTDATED)
    assert resumption.nothing_came(T - 1, SOON) is None


def test_a_gap_says_when_it_was() -> None:
    assert Gap(T, T + HOUR, LEAPT).words() == "2026-05-28 20:26:40 to 2026-05-28 21:26:40 UTC"
