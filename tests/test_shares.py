"""A share for each who asks: nobody has all of it, and whoever comes next finds some."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetrelay.shares import Asker, GuardedShares, Shares

TAKE, GIVE_BACK = True, False
steps = st.lists(st.tuples(st.sampled_from([TAKE, TAKE, TAKE, GIVE_BACK]), st.integers(0, 6)), max_size=120)


@given(total=st.integers(1, 20), steps=steps)
def test_there_is_never_more_than_there_is_and_the_last_place_is_a_newcomers(total: int, steps: list[tuple[bool, int]]) -> None:
    shares, held = Shares(total), dict[int, int]()
    for wish, who in steps:
        free = total - sum(held.values())
        if wish is TAKE:
            taken = shares.take(who)
            assert taken == (held.get(who, 0) < free)
            held[who] = held.get(who, 0) + taken
            # A newcomer is refused only where another newcomer has taken the last one.
            assert taken or held[who] or free == 0
        elif held.get(who):
            shares.give_back(who)
            held[who] -= 1
        assert shares.free == total - sum(held.values()) >= 0
        assert shares.free > 0 or 1 in held.values()
        assert len(shares) == sum(count > 0 for count in held.values())
        assert all(shares.held(each) == count for each, count in held.items())


@given(total=st.integers(1, 1000), amounts=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 400)), max_size=60))
def test_amounts_are_shared_in_the_same_way(total: int, amounts: list[tuple[int, int]]) -> None:
    shares, held, largest = Shares(total), dict[int, int](), max((amount for _, amount in amounts), default=0)
    for who, amount in amounts:
        free = total - sum(held.values())
        taken = shares.take(who, amount)
        assert taken == (held.get(who, 0) + amount <= free)
        held[who] = held.get(who, 0) + amount * taken
        assert held[who] <= (total + largest) // 2
    for who, amount in held.items():
        if amount:
            shares.give_back(who, amount)
    assert (shares.free, len(shares)) == (total, 0)


def greedily(shares: Shares, *askers: str) -> list[int]:
    """How many each has, who all take what they can, one by one in turn."""
    for who in askers * shares.total:
        shares.take(who)
    return [shares.held(who) for who in askers]


def test_one_has_half_two_have_a_third_each() -> None:
    assert greedily(Shares(12), "a") == [6]
    assert greedily(Shares(12), "a", "b") == [4, 4]
    assert greedily(Shares(12), "a", "b", "c") == [3, 3, 3]


def test_what_is_not_held_cannot_be_given_back() -> None:
    shares = Shares(4)
    with pytest.raises((ValueError, KeyError)):
        shares.give_back("a")
    assert shares.take("a")
    with pytest.raises(ValueError, match="gives back 2, and holds 1"):
        shares.give_back("a", 2)
    assert (shares.free, shares.held("a")) == (3, 1)


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
