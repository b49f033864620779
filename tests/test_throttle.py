"""Who takes much of a processor rests in between, while others have something small to do."""

from collections.abc import Callable

import pytest

from delivery import throttle
from delivery.throttle import BUSY_S, LITTLE, MOST_REST_S, PIECE_S, PRESENT_S, REST_FACTOR, Cost, Throttle


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(throttle, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


@pytest.mark.usefixtures("wait")
def test_whoever_is_alone_never_rests() -> None:
    part = Throttle()
    for _ in range(100):
        part.came("busy")
        part.worked("busy", 1.0)
    assert (part.slows("busy"), part.rest_s("busy")) == (False, 0)


def test_a_busy_one_rests_beside_one_who_has_little_to_do(wait: Callable[[float], None]) -> None:
    part = Throttle()
    part.came("modest")
    part.worked("modest", 0.01)
    part.worked("busy", BUSY_S - 0.01)
    assert part.rest_s("busy") == 0, "not busy yet"
    part.worked("busy", 0.1)
    assert part.slows("busy")
    assert part.rest_s("busy") == pytest.approx(0.1 * REST_FACTOR)
    assert (part.slows("modest"), part.rest_s("modest")) == (False, 0)
    wait(0.1 * REST_FACTOR)
    assert part.rest_s("busy") == 0


@pytest.mark.usefixtures("wait")
def test_several_pieces_of_work_at_once_add_up_to_one_rest_and_no_rest_is_endless() -> None:
    part = Throttle()
    part.came("modest")
    part.worked("busy", BUSY_S)
    part._rests.clear()
    for _ in range(3):
        part.worked("busy", 0.05)
    assert part.rest_s("busy") == pytest.approx(3 * 0.05 * REST_FACTOR)
    part.worked("busy", 1000.0)
    assert part.rest_s("busy") == pytest.approx(MOST_REST_S)


@pytest.mark.usefixtures("wait")
def test_busy_ones_do_not_wait_for_each_other() -> None:
    part = Throttle()
    for who in ("one", "other"):
        part.came(who)
        part.worked(who, 5.0)
    part.worked("one", 5.0 * (LITTLE - 1) - 0.1)
    assert not part.slows("one")
    part.came("modest")
    assert part.slows("one")
    assert part.slows("other")


def test_it_is_over_when_the_other_one_has_gone_or_the_busy_one_has_calmed_down(wait: Callable[[float], None]) -> None:
    part = Throttle()
    part.came("modest")
    part.worked("busy", 1000.0)
    wait(PRESENT_S)
    assert not part.slows("busy")
    part.came("modest")
    assert part.slows("busy")
    wait(10.0)
    part.came("modest")
    assert not part.slows("busy")


@pytest.mark.usefixtures("wait")
def test_one_part_goes_by_who_is_there_in_another() -> None:
    """Who reads pages is no reason for others to rest; who posts is."""
    posting = Throttle()
    answering = Throttle(posting)
    answering.came("reader")
    answering.worked("busy", 1.0)
    assert not answering.slows("busy")
    posting.came("poster")
    # How many pages it has asked for is no matter.
    answering.worked("poster", 5.0)
    assert answering.slows("busy")


@pytest.mark.usefixtures("wait")
def test_it_remembers_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_MOST", 10)
    part = Throttle()
    for number in range(100):
        part.came(number)
        part.worked(number, 1.0)
        part.came("modest")
        part.worked(number, 1.0)
    assert max(len(part._worked), len(part._present), len(part._rests)) <= 11


def test_a_piece_is_as_large_as_what_it_costs_of_late_allows() -> None:
    cost = Cost(PIECE_S / 100, memory=50)
    assert cost.piece == pytest.approx(100, abs=1)
    cost.learn(0, 1.0)
    assert cost.piece == pytest.approx(100, abs=1), "nothing says nothing"
    cost.learn(25, 25 * 3 * PIECE_S / 100)
    assert cost.piece == pytest.approx(50, abs=1), "half of what it remembers cost three times as much"
    cost.learn(500, 500 * PIECE_S / 10)
    assert cost.piece == pytest.approx(10, abs=1)
