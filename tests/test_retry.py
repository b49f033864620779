"""What follows an attempt."""

import random

import pytest

from delivery.retry import DEAD, DELIVERED, MAX_RETRY_AFTER_S, Outcome, Policy, Verdict, judge

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


def test_it_is_dead_in_spite_of_a_retry_after_when_the_schedule_is_used_up() -> None:
    assert judge(ANY, 5, 503, 0.0, retry_after_s=60) is DEAD


def test_it_makes_as_many_attempts_as_there_are_waits_and_one() -> None:
    for length in range(8):
        outcomes = [judge(Policy([10] * length), tries, 500, 0.0).outcome for tries in range(1, length + 2)]
        assert outcomes == [Outcome.RETRY] * length + [Outcome.DEAD]


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


@pytest.mark.parametrize(
    ("asked_s", "wait_s"),
    [(0, 30), (29, 30), (30, 30), (31, 31), (3599, 3599), (3600, 3600), (3601, 3600), (10**12, 3600), (-5, 30)],
)
def test_it_waits_as_long_as_the_receiver_asks_up_to_an_hour(asked_s: float, wait_s: float) -> None:
    assert judge(ANY, 1, 503, 0.0, retry_after_s=asked_s) == Verdict(Outcome.RETRY, wait_s)


def test_it_never_shortens_a_longer_wait_of_its_own() -> None:
    assert judge(ANY, 4, 503, 0.0, retry_after_s=10).wait_s == 7200
    assert judge(ANY, 4, 503, 0.0, retry_after_s=10**6).wait_s == 7200
    assert MAX_RETRY_AFTER_S < 7200


def test_it_may_retry_at_once() -> None:
    assert judge(Policy([0]), 1, 500, 0.5) == Verdict(Outcome.RETRY, 0)
