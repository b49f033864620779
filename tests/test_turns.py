"""Turns: who goes first while more could start than may."""

import math
from collections import Counter
from time import monotonic

from delivery.destinations.exchange import CATCH_UP_S, Gate, Inbox, Request
from delivery.destinations.turns import WEIGHTS, Turns
from delivery.shares import Shares

LOW, NORMAL, HIGH = WEIGHTS


def make_gate(tenant: object = "one", weight: float = NORMAL, waiting: int = 1000, limit: int = 1000) -> Gate:
    gate = Gate(limit, tenant)
    gate.weight = weight
    gate.waiting.extend(Request(None, "http://127.0.0.1/", (), b"", 1000, Inbox()) for _ in range(waiting))
    return gate


def at_time(moment: float) -> Gate:
    """Has a pace, and may start its next request at this moment."""
    gate = make_gate()
    gate.pace(1)
    gate.next_at = moment
    return gate


def serve(turns: Turns, count: int, now: float | None = None) -> list[Gate]:
    """Start this many requests, as the sender does: now, or at that moment."""
    served = []
    for _ in range(count):
        moment = monotonic() if now is None else now
        gate = turns.next(moment)
        if gate is None:
            break
        gate.waiting.popleft()
        gate.started(moment)
        served.append(gate)
        turns.add(gate, moment)
    return served


def add(turns: Turns, *gates: Gate) -> None:
    for gate in gates:
        turns.add(gate, monotonic())


def test_equals_take_turns() -> None:
    turns, gates = Turns(), [make_gate() for _ in range(3)]
    add(turns, *gates)
    assert [Counter(serve(turns, 3)) for _ in range(4)] == [Counter(gates)] * 4


def test_a_higher_priority_goes_first_and_nobody_starves() -> None:
    turns, low, normal, high = Turns(), make_gate(weight=LOW), make_gate(weight=NORMAL), make_gate(weight=HIGH)
    add(turns, low, normal, high)
    counts = Counter(serve(turns, 730))
    assert counts == {high: 640, normal: 80, low: 10}


def test_tenants_share_alike_whatever_number_of_endpoints_and_priorities_they_have() -> None:
    turns = Turns()
    many = [make_gate("many", HIGH) for _ in range(50)]
    add(turns, *many, make_gate("one", LOW), make_gate("other", NORMAL))
    counts = Counter(gate.tenant for gate in serve(turns, 300))
    assert counts == {"many": 100, "one": 100, "other": 100}


def test_who_was_away_comes_back_level_and_not_ahead() -> None:
    turns, busy, away = Turns(), make_gate("busy"), make_gate("away")
    add(turns, busy)
    serve(turns, 500)
    add(turns, away)
    assert Counter(serve(turns, 100)) == {busy: 50, away: 50}


def test_an_endpoint_that_was_away_comes_back_level_with_its_tenants_others() -> None:
    turns, busy, away = Turns(), make_gate(), make_gate()
    add(turns, busy)
    serve(turns, 500)
    add(turns, away)
    assert Counter(serve(turns, 100)) == {busy: 50, away: 50}


def test_a_full_gate_waits_until_a_place_comes_free() -> None:
    turns, gate = Turns(), make_gate(limit=2)
    add(turns, gate)
    assert len(serve(turns, 10)) == 2
    gate.open -= 1
    add(turns, gate)
    assert len(serve(turns, 10)) == 1


def test_a_gate_is_served_once_however_often_it_is_added() -> None:
    turns, gate = Turns(), make_gate(waiting=1)
    add(turns, gate, gate, gate)
    assert serve(turns, 10) == [gate]


def test_a_gate_that_is_added_often_has_no_more_turns_than_others() -> None:
    turns, often, once = Turns(), make_gate(), make_gate()
    add(turns, often, often, often, once)
    assert Counter(serve(turns, 10)) == {often: 5, once: 5}


def test_something_may_start_at_once_where_a_gate_is_ready() -> None:
    turns = Turns()
    add(turns, at_time(monotonic() + 3600))
    assert turns.wait_s() != 0
    add(turns, make_gate())
    assert turns.wait_s() == 0


def test_a_gate_that_was_emptied_or_shut_meanwhile_is_passed_over() -> None:
    turns, emptied, shut, other = Turns(), make_gate(), make_gate(), make_gate(waiting=1)
    add(turns, emptied, shut, other)
    emptied.withdraw()
    shut.shut = True
    assert serve(turns, 10) == [other]


def test_a_gate_with_a_pace_waits_for_its_time_and_others_do_not() -> None:
    turns, paced, other = Turns(), make_gate(), make_gate(waiting=1)
    paced.pace(3600)
    add(turns, paced, other)
    assert Counter(serve(turns, 10)) == {paced: 1, other: 1}
    wait_s = turns.wait_s()
    assert wait_s is not None
    assert 3500 < wait_s <= 3600


def test_gates_with_a_pace_have_their_turns_when_their_times_have_come() -> None:
    turns, now = Turns(), monotonic()
    later, sooner = at_time(now + 2), at_time(now + 1)
    for gate in (later, sooner):
        turns.add(gate, now)
    assert [turns.next(now + seconds) for seconds in (0, 0.9, 1, 1.9, 2, 2)] == [None, None, sooner, None, later, None]


def test_a_gate_whose_pace_was_lifted_has_no_second_turn_when_its_time_comes() -> None:
    turns, now = Turns(), monotonic()
    lifted, other = at_time(now + 1), make_gate()
    turns.add(lifted, now)
    lifted.pace(0)
    add(turns, lifted, other)
    assert Counter(serve(turns, 10, now + 1)) == {lifted: 5, other: 5}


def test_it_waits_no_longer_than_until_the_next_time() -> None:
    turns, now = Turns(), monotonic()
    for gate in (at_time(now + 7200), at_time(now + 0.5)):
        turns.add(gate, now)
    wait_s = turns.wait_s()
    assert wait_s is not None
    assert wait_s <= 0.5


def test_a_pace_that_is_lifted_counts_at_once() -> None:
    turns, paced = Turns(), make_gate(waiting=5)
    paced.pace(3600)
    add(turns, paced)
    assert len(serve(turns, 10)) == 1
    paced.pace(0)
    add(turns, paced)
    assert len(serve(turns, 10)) == 4


def test_a_late_start_is_made_up_for_by_some_milliseconds_and_no_more() -> None:
    gate, now = make_gate(), monotonic()
    gate.pace(0.001)
    gate.next_at = now - 60
    gate.started(now)
    assert math.isclose(gate.next_at, now - CATCH_UP_S + 0.001)


def test_it_knows_whether_there_is_anybody_whose_turn_it_could_be() -> None:
    ready, later = Turns(), Turns()
    add(ready, make_gate())
    add(later, at_time(monotonic() + 3600))
    assert [turns.others for turns in (ready, later, Turns())] == [True, True, False]


def test_nothing_waits_for_the_time_where_nothing_waits() -> None:
    assert Turns().wait_s() is None
    assert Turns().next(monotonic()) is None


# --- places --------------------------------------------------------------------------------------------------------


def serve_places(turns: Turns, count: int) -> Counter[object]:
    """Start this many requests, each of which keeps its place."""
    counts: Counter[object] = Counter()
    for _ in range(count):
        gate = turns.next(monotonic())
        if gate is None:
            break
        gate.waiting.popleft()
        gate.started(monotonic())
        turns.places.take(gate.tenant)
        counts[gate.tenant] += 1
        turns.add(gate, monotonic())
    return counts


def free_places(turns: Turns, tenant: object, count: int = 1) -> None:
    for _ in range(count):
        turns.places.give_back(tenant)
        turns.freed(tenant)


def test_a_tenant_takes_a_place_only_while_it_holds_fewer_than_are_free() -> None:
    turns = Turns(Shares(12))
    add(turns, make_gate("greedy"))
    assert serve_places(turns, 100) == {"greedy": 6}
    add(turns, make_gate("second"))
    assert serve_places(turns, 100) == {"second": 3}
    add(turns, make_gate("third", waiting=1))
    assert serve_places(turns, 100) == {"third": 1}
    assert turns.wait_s() is None


def test_a_parked_tenant_goes_on_when_a_place_comes_free_whoever_gives_it_back() -> None:
    turns = Turns(Shares(12))
    add(turns, make_gate("greedy"), make_gate("small", waiting=4))
    assert serve_places(turns, 100) == {"greedy": 4, "small": 4}
    free_places(turns, "small", 4)
    assert serve_places(turns, 100) == {"greedy": 2}
    free_places(turns, "greedy")
    assert serve_places(turns, 100) == {"greedy": 1}


def test_a_tenant_that_is_parked_again_and_again_has_no_more_than_its_share() -> None:
    turns = Turns(Shares(9))
    add(turns, make_gate("a"), make_gate("b"))
    held = serve_places(turns, 100)
    for number in range(300):
        who = "ab"[number % 2]
        free_places(turns, who)
        held[who] -= 1
        held += serve_places(turns, 100)
        assert max(held.values()) <= 5
        assert turns.places.free == 9 - held.total() > 0
    assert held == {"a": 3, "b": 3}
