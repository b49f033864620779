"""Whether a stream has come to the present: a small lag, a lag that stays, or nothing to catch up with."""

import pytest

from delivery.sources.jetstream.liveness import Liveness

NOW = 1_790_000_000_000_000
SECOND = 1_000_000


def connected() -> Liveness:
    liveness = Liveness()
    liveness.begin(100.0)
    return liveness


def is_live(liveness: Liveness, now_s: float, now_us: int) -> bool:
    liveness.look(now_s, now_us)
    return liveness.live


def looked(liveness: Liveness, *lags: int) -> list[bool]:
    """What it says each second, with an event of this lag just before each look."""
    found = []
    for second, lag in enumerate(lags, 1):
        now_us = NOW + second * SECOND
        liveness.note(now_us - lag, now_us)
        liveness.look(100.0 + second, now_us)
        found.append(liveness.live)
    return found


def test_it_is_not_live_without_a_connection() -> None:
    liveness = Liveness()
    liveness.look(100.0, NOW)
    assert not liveness.live
    assert liveness.silent_s(100.0, NOW) is None


@pytest.mark.parametrize(("lag", "live"), [(0, True), (4_900_000, True), (-4_900_000, True), (5_000_000, False), (-5_000_000, False), (3600 * SECOND, False)])
def test_a_small_lag_is_the_present(lag: int, live: bool) -> None:
    assert looked(connected(), lag) == [live]


@pytest.mark.parametrize("lag", [3600 * SECOND, -3600 * SECOND, 10**15])
def test_a_lag_that_stays_the_same_is_that_of_a_clock(lag: int) -> None:
    assert looked(connected(), *([lag] * 6)) == [False, False, False, False, True, True]


def test_a_lag_that_shrinks_is_a_backlog() -> None:
    assert not any(looked(connected(), *(3600 * SECOND - second * SECOND for second in range(100))))


def test_a_lag_that_grows_is_a_backlog_too() -> None:
    assert not any(looked(connected(), *(3600 * SECOND + second * SECOND for second in range(100))))


def test_a_lag_that_shakes_comes_to_rest() -> None:
    far = 60 * SECOND
    assert looked(connected(), far, far + 300_000, far, far + 50_000, far, far + 50_000, far)[-2:] == [False, True]


def test_silence_since_the_connection_means_that_there_is_nothing_to_catch_up_with() -> None:
    liveness = connected()
    assert not is_live(liveness, 104.9, NOW)
    assert is_live(liveness, 105.0, NOW)
    assert liveness.lag_us is None


def test_silence_after_a_backlog_means_that_it_has_ended() -> None:
    liveness = connected()
    liveness.note(NOW - 3600 * SECOND, NOW)
    assert not is_live(liveness, 104.0, NOW + 4 * SECOND)
    assert is_live(liveness, 105.0, NOW + 5 * SECOND)


def test_it_stays_live_until_the_connection_ends() -> None:
    liveness = connected()
    assert looked(liveness, 0, 3600 * SECOND, 9 * SECOND) == [True, True, True]
    liveness.end()
    assert not liveness.live
    liveness.begin(200.0)
    assert not liveness.live
    assert liveness.lag_us is None
    assert liveness.silent_s(201.0, NOW) == 1.0


def test_each_connection_has_to_show_a_steady_lag_anew() -> None:
    liveness = connected()
    looked(liveness, *([60 * SECOND] * 4))
    liveness.begin(200.0)
    assert looked(liveness, *([60 * SECOND] * 5)) == [False] * 4 + [True]


def test_it_says_how_long_it_has_been_silent() -> None:
    liveness = connected()
    assert liveness.silent_s(103.0, NOW) == 3.0
    liveness.note(NOW - 5, NOW)
    assert liveness.silent_s(103.0, NOW + 2 * SECOND) == 2.0
    assert liveness.lag_us == 5
    liveness.end()
    assert liveness.silent_s(103.0, NOW) is None
