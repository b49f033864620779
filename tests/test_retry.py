"""What follows an attempt."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.retry import DEAD, DELIVERED, Outcome, Policy, Verdict, exponential, fixed, is_permanent, judge, linear

SCHEDULE = [30, 300, 1800, 7200]
ANY = Policy(SCHEDULE)
TRANSIENT = Policy(SCHEDULE, transient_only=True)

FAILURES = [None, 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 410, 413, 418, 422, 425, 429, 451, 499, 500, 501, 502, 503, 504, 599, 999]
PERMANENT = [300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 410, 413, 418, 422, 451, 499]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
@pytest.mark.parametrize("policy", [ANY, TRANSIENT, Policy([])])
@pytest.mark.parametrize("tries", [1, 5, 100])
def test_it_is_delivered_by_any_2xx(status: int, policy: Policy, tries: int) -> None:
    assert judge(policy, tries, status, 0.5) is DELIVERED


@pytest.mark.parametrize("status", FAILURES)
def test_it_retries_everything_else_by_default(status: int | None) -> None:
    assert judge(ANY, 1, status, 0.0) == Verdict(Outcome.RETRY, 30)


@pytest.mark.parametrize("status", PERMANENT)
def test_it_gives_up_at_once_where_only_transient_failures_are_retried(status: int) -> None:
    assert judge(TRANSIENT, 1, status, 0.0) is DEAD


@pytest.mark.parametrize("status", [status for status in FAILURES if status not in PERMANENT])
def test_it_retries_transient_failures(status: int | None) -> None:
    assert judge(TRANSIENT, 1, status, 0.0) == Verdict(Outcome.RETRY, 30)


@pytest.mark.parametrize(("tries", "wait_s"), [(1, 30), (2, 300), (3, 1800), (4, 7200)])
def test_it_waits_as_the_schedule_says(tries: int, wait_s: float) -> None:
    assert judge(ANY, tries, 500, 0.0) == Verdict(Outcome.RETRY, wait_s)


@pytest.mark.parametrize("tries", [5, 6, 1000])
@pytest.mark.parametrize("status", [None, 404, 500])
def test_it_is_dead_when_the_schedule_is_used_up(tries: int, status: int | None) -> None:
    assert judge(ANY, tries, status, 0.0) is DEAD


def test_it_is_dead_after_one_attempt_when_there_is_no_schedule() -> None:
    assert judge(Policy([]), 1, 500, 0.0) is DEAD


def test_it_makes_as_many_attempts_as_there_are_waits_and_one() -> None:
    for length in range(8):
        outcomes = [judge(Policy([10] * length), tries, 500, 0.0).outcome for tries in range(1, length + 2)]
        assert outcomes == [Outcome.RETRY] * length + [Outcome.DEAD]


def test_it_counts_the_attempt_whatever_became_of_it() -> None:
    assert [judge(ANY, tries, status, 0.0).counted for tries, status in ((1, 200), (1, 500), (5, 500))] == [True, True, True]


def test_it_waits_for_nothing_where_nothing_follows() -> None:
    assert [judge(ANY, tries, status, 0.9).wait_s for tries, status in ((1, 200), (5, 500))] == [0, 0]


def test_it_leaves_nothing_to_chance_without_a_jitter() -> None:
    assert judge(ANY, 1, 500, 0.9).wait_s == 30


def test_it_keeps_the_jitter_within_its_bounds() -> None:
    chances = [0.0, 0.999999, *(random.random() for _ in range(200))]
    for jitter in (0.0, 0.1, 0.25):
        policy = Policy(SCHEDULE, jitter=jitter)
        for tries, scheduled in enumerate(SCHEDULE, 1):
            waits = [judge(policy, tries, 500, chance).wait_s for chance in chances]
            assert waits[0] == scheduled
            assert all(scheduled <= wait <= scheduled * (1 + jitter) for wait in waits)
            assert waits[1] == pytest.approx(scheduled * (1 + jitter), rel=1e-5)


def test_it_waits_longer_the_greater_the_chance() -> None:
    policy = Policy([100], jitter=0.25)
    assert [judge(policy, 1, 500, chance).wait_s for chance in (0.0, 0.5, 0.8)] == [100, 112.5, 120]


@pytest.mark.parametrize("status", FAILURES)
def test_a_refusal_is_permanent_unless_its_status_says_otherwise(status: int | None) -> None:
    assert is_permanent(status) is (status in PERMANENT)


def test_it_may_retry_at_once() -> None:
    assert judge(Policy([0]), 1, 500, 0.5) == Verdict(Outcome.RETRY, 0)


# --- Strategies --------------------------------------------------------------------------------------------------------

WAITS = st.floats(0, 30 * 86_400)
COUNTS = st.integers(0, 50)


@pytest.mark.parametrize(
    ("numbers", "waits"),
    [
        ((30, 4, 7200, 5), [30, 120, 480, 1920, 7200]),
        ((30, 2, 120, 4), [30, 60, 120, 120]),
        ((30, 2, 119, 4), [30, 60, 119, 119]),
        ((30, 1.5, 1000, 3), [30, 45, 67.5]),
        ((30, 1, 1000, 3), [30, 30, 30]),
        ((30, 2, 30, 2), [30, 30]),
        ((30, 2, 20, 2), [20, 20]),
        ((0, 2, 100, 3), [0, 0, 0]),
        ((30, 2, 100, 0), []),
        ((30, 2, 100, 1), [30]),
        ((1, 100, 2_592_000, 50), [1, 100, 10_000, 1_000_000, *[2_592_000] * 46]),
    ],
)
def test_it_multiplies_up_to_the_longest(numbers: tuple[float, float, float, int], waits: list[float]) -> None:
    assert exponential(*numbers) == waits


@pytest.mark.parametrize(
    ("numbers", "waits"),
    [
        ((60, 120, 300, 4), [60, 180, 300, 300]),
        ((60, 120, 299, 3), [60, 180, 299]),
        ((60, 0, 300, 3), [60, 60, 60]),
        ((0, 10, 300, 3), [0, 10, 20]),
        ((60, 10, 50, 2), [50, 50]),
        ((60, 120, 300, 0), []),
        ((60, 120, 300, 1), [60]),
    ],
)
def test_it_adds_up_to_the_longest(numbers: tuple[float, float, float, int], waits: list[float]) -> None:
    assert linear(*numbers) == waits


@pytest.mark.parametrize(("numbers", "waits"), [((600, 3), [600, 600, 600]), ((0, 1), [0]), ((600, 0), [])])
def test_it_waits_the_same_every_time(numbers: tuple[float, int], waits: list[float]) -> None:
    assert fixed(*numbers) == waits


@given(WAITS, st.floats(1, 100), WAITS, COUNTS)
def test_exponential_waits_grow_by_the_factor_and_stay_in_bounds(first_s: float, factor: float, longest_s: float, count: int) -> None:
    waits = exponential(first_s, factor, longest_s, count)
    assert len(waits) == count
    assert waits[:1] == [min(first_s, longest_s)][:count]
    for before, after in pairwise(waits):
        assert after == min(before * factor, longest_s)
        assert before <= after <= longest_s


@given(WAITS, WAITS, WAITS, COUNTS)
def test_linear_waits_grow_by_the_step_and_stay_in_bounds(first_s: float, step_s: float, longest_s: float, count: int) -> None:
    waits = linear(first_s, step_s, longest_s, count)
    assert len(waits) == count
    assert waits[:1] == [min(first_s, longest_s)][:count]
    for before, after in pairwise(waits):
        assert after == pytest.approx(min(before + step_s, longest_s))
        assert before <= after <= longest_s


@given(st.lists(WAITS, max_size=50), st.sampled_from([0.0, 0.1, 0.25]), st.floats(0, 1, exclude_max=True), st.integers(1, 60))
def test_it_waits_at_least_what_is_scheduled_and_at_most_the_jitter(waits: list[float], jitter: float, chance: float, tries: int) -> None:
    verdict = judge(Policy(waits, jitter), tries, 503, chance)
    if tries > len(waits):
        assert verdict is DEAD
    else:
        assert verdict.outcome is Outcome.RETRY
        assert waits[tries - 1] <= verdict.wait_s <= waits[tries - 1] * (1 + jitter)
