"""The breaker: pure steps from one state to the next, on a clock of the test's own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from delivery.breaker import GENTLE, HOPELESS, THRESHOLD, WELL, Health, cooling_s, failed, is_hopeless, rested, succeeded

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MOST = 32


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def failing(times: int, health: Health = WELL, now: datetime = NOW) -> Health:
    for _ in range(times):
        health = failed(health, now, "500")
    return health


def opened() -> Health:
    return failing(THRESHOLD)


def test_it_stays_closed_up_to_four_failures_in_a_row() -> None:
    health = failing(THRESHOLD - 1)
    assert (health.state(NOW), health.room(MOST, NOW), health.counts(NOW)) == ("closed", MOST, True)
    assert (health.failures, health.failing_since, health.reason) == (4, NOW, "500")


def test_a_success_in_between_starts_the_count_again() -> None:
    health = failing(THRESHOLD - 1, succeeded(failing(THRESHOLD - 1), NOW, MOST))
    assert health.state(NOW) == "closed"
    assert health.failures == THRESHOLD - 1


def test_a_success_forgets_every_failure_and_is_known_by_identity() -> None:
    assert succeeded(failing(THRESHOLD - 1), NOW, MOST) is WELL


def test_five_failures_in_a_row_open_it_for_half_a_minute() -> None:
    health = opened()
    assert (health.state(NOW), health.room(MOST, NOW), health.trips) == ("open", 0, 1)
    assert health.held_until(NOW) == after(30)
    assert health.room(MOST, after(29.9)) == 0


def test_one_probe_goes_out_once_it_has_cooled() -> None:
    health = opened()
    assert (health.state(after(30)), health.room(MOST, after(30)), health.held_until(after(30))) == ("probing", 1, None)


def test_each_probe_that_fails_doubles_the_cooling_up_to_ten_minutes() -> None:
    health, now, waits = opened(), NOW, []
    for _ in range(8):
        assert health.open_until is not None
        waits.append((health.open_until - now).total_seconds())
        now = health.open_until
        health = failed(health, now, "refused")
    assert waits == [30, 60, 120, 240, 480, 600, 600, 600]


def test_cooling_stays_bounded_however_often_it_opened() -> None:
    assert cooling_s(32_767) == 600


def test_failures_count_only_while_it_is_closed() -> None:
    health = opened()
    assert [moment for moment in (NOW, after(29), after(30), after(31)) if health.counts(moment)] == []
    late = failed(health, after(1), "timeout")
    assert late == health


def test_a_success_that_was_under_way_does_not_close_it() -> None:
    health = opened()
    assert succeeded(health, after(29), MOST) == health


def test_a_mix_of_answers_does_not_open_it_again_and_again_in_one_moment() -> None:
    health = opened()
    for _ in range(10):
        health = failing(THRESHOLD, succeeded(health, after(1), MOST), after(1))
    assert (health.trips, health.held_until(after(1))) == (1, after(30))


def test_a_success_closes_it_and_lets_one_request_at_a_time_through() -> None:
    health = succeeded(opened(), after(30), MOST)
    assert (health.state(after(30)), health.room(MOST, after(30)), health.failures, health.failing_since) == ("recovering", 1, 0, None)
    assert health.counts(after(30))


def test_it_recovers_in_steps_of_two_after_as_many_successes() -> None:
    health, rooms = succeeded(opened(), after(30), 10), []
    while health.ramp:
        rooms.append(health.room(10, NOW))
        health = succeeded(health, after(30), 10)
    assert rooms == [1] + [2] * 2 + [4] * 4 + [8] * 8
    assert health == WELL


def test_a_new_owner_starts_the_step_again() -> None:
    health = Health(ramp=2)
    assert [health.ramp, (health := succeeded(health, NOW, MOST)).ramp, succeeded(health, NOW, MOST).ramp] == [2, 2, 4]


def test_a_failure_while_it_recovers_starts_the_step_again_and_keeps_its_size() -> None:
    health = succeeded(succeeded(opened(), after(30), MOST), after(30), MOST)
    assert health.ramp == 2
    health = succeeded(failed(succeeded(health, after(30), MOST), after(30), "500"), after(30), MOST)
    assert (health.ramp, health.streak, health.failures, health.failing_since) == (2, 1, 0, None)


def test_five_failures_while_it_recovers_open_it_again_for_longer() -> None:
    health = failing(THRESHOLD, succeeded(opened(), after(30), MOST), after(40))
    assert health.held_until(after(40)) == after(40 + 60)
    assert health.ramp is None


def test_only_a_full_recovery_makes_it_forget_how_often_it_opened() -> None:
    health = succeeded(failing(THRESHOLD, succeeded(opened(), after(30), MOST), after(30)), after(90), MOST)
    assert health.trips == 2
    while health.ramp:
        health = succeeded(health, after(90), MOST)
    assert health.trips == 0


def test_an_endpoint_that_takes_one_request_at_a_time_recovers_with_its_next_success() -> None:
    health = succeeded(opened(), after(30), 1)
    assert (health.state(after(30)), health.trips) == ("recovering", 1)
    assert succeeded(health, after(31), 1) is WELL


def test_one_that_takes_one_at_a_time_cools_longer_if_only_probes_succeed() -> None:
    health = failing(THRESHOLD, succeeded(opened(), after(30), 1), after(40))
    assert health.held_until(after(40)) == after(40 + 60)


@pytest.mark.parametrize(("streak", "ramp"), [(0, 2), (1, 4)])
def test_a_turn_with_nothing_but_successes_is_a_step_of_the_recovery(streak: int, ramp: int) -> None:
    health = rested(Health(ramp=2, trips=1, streak=streak), MOST)
    # A step that was taken is not counted towards the next.
    assert (health.ramp, health.streak) == (ramp, 0)


def test_a_turn_may_be_the_last_step() -> None:
    assert rested(Health(ramp=16, trips=3, streak=1), MOST) is WELL
    assert rested(WELL, MOST) is WELL


def test_a_receiver_that_asks_for_patience_is_left_alone_for_as_long() -> None:
    health = failed(WELL, NOW, "429", 120)
    assert (health.state(NOW), health.room(MOST, after(119)), health.held_until(NOW)) == ("paused", 0, after(120))
    assert (health.room(MOST, after(120)), health.trips) == (1, 0)


def test_patience_is_over_at_its_last_moment() -> None:
    health = failed(WELL, NOW, "429", 10)
    assert (health.state(after(9.9)), health.counts(after(9.9))) == ("paused", False)
    assert (health.state(after(10)), health.counts(after(10))) == ("recovering", True)


def test_what_was_under_way_when_it_asked_does_not_count_but_may_make_the_wait_longer() -> None:
    health = failed(WELL, NOW, "429", 10)
    assert not health.counts(NOW)
    for _ in range(20):
        health = failed(health, after(1), "429", 5)
    assert (health.failures, health.held_until(after(1))) == (1, after(10))
    assert failed(health, after(2), "429", 60).held_until(after(2)) == after(62)


def test_asking_for_patience_again_and_again_opens_it() -> None:
    health, now = WELL, NOW
    for _ in range(THRESHOLD):
        health = failed(health, now, "503", 10)
        now += timedelta(seconds=10)
    assert health.state(now) == "open"
    assert not health.counts(now)


def test_the_longer_of_cooling_and_patience_holds() -> None:
    health = failed(failing(THRESHOLD - 1), NOW, "503", 300)
    assert (health.open_until, health.ramp, health.held_until(NOW)) == (after(30), None, after(300))
    assert health.room(MOST, after(300)) == 1


def test_successes_that_were_under_way_do_not_end_the_patience() -> None:
    health = failed(WELL, NOW, "429", 60)
    assert [succeeded(health, moment, MOST) for moment in (NOW, after(59))] == [health, health]
    assert succeeded(health, after(60), MOST).failures == 0


def test_it_starts_gently_after_a_reset() -> None:
    assert (GENTLE.state(NOW), GENTLE.room(MOST, NOW)) == ("recovering", 1)


@pytest.mark.parametrize(
    ("failures", "days", "hopeless"),
    [(10, 5, True), (9, 6, False), (1000, 4.999, False), (10, 5.001, True)],
)
def test_it_is_hopeless_after_days_of_nothing_but_failures(failures: int, days: float, hopeless: bool) -> None:
    health = replace(opened(), failures=failures, failing_since=NOW - timedelta(days=days))
    assert is_hopeless(health, NOW, timedelta(days=5)) is hopeless


def test_it_is_not_hopeless_without_a_failure() -> None:
    assert not is_hopeless(replace(WELL, failures=HOPELESS), NOW, timedelta(days=5))
