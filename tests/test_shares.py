"""Shares: the rule by which every fixed-size thing is divided among those who want it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.shares import Shares
from jetrelay.shares import Asker, GuardedShares


def fill(shares: Shares, *greedy: str) -> Counter[str]:
    """Let each of them take one after the other until none may."""
    held: Counter[str] = Counter()
    while may := [who for who in greedy if shares.may_take(who)]:
        shares.take(may[0])
        held[may[0]] += 1
    return held


@pytest.mark.parametrize(("greedy", "held", "free"), [("a", {"a": 50}, 50), ("ab", {"a": 50, "b": 25}, 25), ("", {}, 100)])
def test_it_leaves_as_much_as_the_greediest_holds(greedy: str, held: dict[str, int], free: int) -> None:
    shares = Shares(100)
    assert fill(shares, *greedy) == held
    assert shares.free == free


def test_two_that_stay_greedy_come_to_a_third_each() -> None:
    shares = Shares(99)
    held = fill(shares, "a", "b")
    for _ in range(200):
        for who in "ab":
            if held[who] > 1:
                shares.give_back(who)
                held[who] -= 1
            held += fill(shares, "b", "a") if who == "a" else fill(shares, "a", "b")
    assert all(32 <= each <= 34 for each in (*held.values(), shares.free))


def test_somebody_who_holds_nothing_may_have_all_that_is_free() -> None:
    shares = Shares(100)
    shares.take("a", 60)
    assert shares.may_take("b", 40)
    assert not shares.may_take("b", 41)


def test_it_counts_by_amount() -> None:
    shares = Shares(100)
    shares.take("a", 30)
    assert shares.may_take("a", 40)
    assert not shares.may_take("a", 41)


def test_it_forgets_those_who_hold_nothing() -> None:
    shares = Shares(10)
    for number in range(1000):
        shares.take(number)
        shares.give_back(number)
    assert vars(shares)["_held"] == {}
    assert shares.free == 10


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200), st.integers(1, 12))
def test_whoever_holds_nothing_gets_a_place_unless_more_hold_some_than_there_is_room_for(moves: list[tuple[str, bool]], total: int) -> None:
    shares, held = Shares(total), Counter[str]()
    for who, takes in moves:
        if takes and shares.may_take(who):
            shares.take(who)
            held[who] += 1
        elif not takes and held[who]:
            shares.give_back(who)
            held[who] -= 1
        assert shares.free == total - held.total() >= 0
        # One who has more than one place took the last while as many were free: others may have come since.
        if held.total() and len(+held) == 1:
            assert shares.free >= held.total() - 1


# --- those who come from outside ------------------------------------------------------------------------------------


def test_strangers_are_one_of_those_who_ask_however_many_they_are() -> None:
    shares = GuardedShares(40)
    strangers = [Asker("address", str(number), stranger=True) for number in range(100)]
    taken = [who for who in strangers * 20 if shares.take(who)]
    assert shares.free >= 20
    # A tenant has as much as if there were one other.
    tenant = Asker("tenant", "t")
    assert sum(shares.take(tenant) for _ in range(40)) == 10
    for who in taken:
        shares.give_back(who)
    assert shares.free == 30


def test_among_strangers_one_address_has_half_of_their_half() -> None:
    shares = GuardedShares(40)
    greedy, other = Asker("address", "a", stranger=True), Asker("address", "b", stranger=True)
    assert sum(shares.take(greedy) for _ in range(40)) == 10
    assert shares.take(other)
