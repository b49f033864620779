"""Whether a stream has come to the present: a small lag, a lag that stays, or nothing to catch up with."""

import pytest

from delivery.sources.jetstream.liveness import Liveness

SECOND = 1_000_000
# Silence for so long means that a host has looked through all there is.
QUIET_S = 5.0


def connected() -> Liveness:
    liveness = Liveness()
    liveness.begin(100.0)
    return liveness


def is_live(liveness: Liveness, now_s: float) -> bool:
    liveness.look(now_s, QUIET_S)
    return liveness.live


def looked(liveness: Liveness, *lags: int) -> list[bool]:
    """What it says each second, with an event of this lag just before each look."""
    found = []
    for second, lag in enumerate(lags, 1):
        liveness.hear(100.0 + second, lag)
        found.append(is_live(liveness, 100.0 + second))
    return found


def test_it_is_not_live_without_a_connection() -> None:
    liveness = Liveness()
    assert not is_live(liveness, 100.0)
    assert liveness.silent_s(100.0) is None


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
    assert not is_live(liveness, 104.9)
    assert is_live(liveness, 105.0)
    assert liveness.lag_us is None


def test_silence_after_a_backlog_means_that_it_has_ended() -> None:
    liveness = connected()
    liveness.hear(101.0, 3600 * SECOND)
    assert not is_live(liveness, 105.9)
    assert is_live(liveness, 106.0)


def test_an_event_that_was_read_before_is_no_news() -> None:
    liveness = connected()
    liveness.hear(104.0, None)
    assert (liveness.lag_us, liveness.silent_s(105.0)) == (None, 5.0)
    assert is_live(liveness, 105.0)


def test_it_stays_live_until_the_connection_ends() -> None:
    liveness = connected()
    assert looked(liveness, 0, 3600 * SECOND, 9 * SECOND) == [True, True, True]
    liveness.end()
    assert not liveness.live
    liveness.begin(200.0)
    assert not liveness.live
    assert liveness.lag_us is None
    assert liveness.silent_s(201.0) == 1.0
    assert liveness.last_lag_us == 9 * SECOND


def test_each_connection_has_to_show_a_steady_lag_anew() -> None:
    liveness = connected()
    looked(liveness, *([60 * SECOND] * 4))
    liveness.begin(200.0)
    assert looked(liveness, *([60 * SECOND] * 5)) == [False] * 4 + [True]


def test_it_says_how_long_it_has_been_silent() -> None:
    liveness = connected()
    assert liveness.silent_s(103.0) == 3.0
    liveness.hear(101.0, 5)
    assert liveness.silent_s(103.0) == 2.0
    assert liveness.lag_us == 5
    liveness.end()
    assert liveness.silent_s(103.0) is None
