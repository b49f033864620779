"""What was read a moment ago: how long it is good, and who looks again."""

import pytest

from subscriptions import remembering
from subscriptions.remembering import Remembered


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The process's clock, as its one item."""
    time = [1000.0]
    monkeypatch.setattr(remembering, "monotonic", lambda: time[0])
    return time


def test_a_value_is_good_for_its_time_and_fresh_for_half_of_it(clock: list[float]) -> None:
    values: Remembered[str, int] = Remembered(2)
    assert (values.fresh("a"), values.known("a")) == (None, None)
    values.keep("a", 1)
    clock[0] += 1
    assert (values.fresh("a"), values.known("a"), values.known("b")) == (1, 1, None)
    clock[0] += 0.1
    assert values.fresh("a") is None
    assert (values.known("a"), values.known("a")) == (None, 1)
    clock[0] += 1
    assert values.known("a") is None


def test_one_alone_is_sent_to_look_again_each_time(clock: list[float]) -> None:
    values: Remembered[str, int] = Remembered(2)
    for value in (1, 2, 3):
        values.keep("a", value)
        clock[0] += 1.5
        assert [values.known("a") for _ in range(4)] == [None, value, value, value]


def test_it_is_bounded_and_can_be_cleared(clock: list[float]) -> None:
    values: Remembered[int, int] = Remembered(2, most=3)
    for number in range(10):
        values.keep(number, number)
    assert values.known(9) == 9
    assert sum(values.known(number) is not None for number in range(10)) <= 3
    values.clear()
    assert values.known(9) is None


def test_nothing_is_kept_for_those_who_ask_for_what_is_not_there(clock: list[float]) -> None:
    values: Remembered[str, int] = Remembered(2)
    values.keep("a", 1)
    for number in range(1000):
        assert values.known(f"made up {number}") is None
    assert sum(len(held) for held in vars(values).values() if isinstance(held, dict)) == 1


def test_one_too_many_costs_the_oldest_its_place_and_nobody_else(clock: list[float]) -> None:
    values: Remembered[int, int] = Remembered(2, most=3)
    for number in range(3):
        values.keep(number, number)
    # Kept again, it is no longer the oldest.
    values.keep(0, 0)
    values.keep(3, 3)
    assert [values.known(number) for number in range(4)] == [0, None, 2, 3]
