"""The window: how much is claimed ahead, and for whom."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from delivery.destinations.exchange import Inbox, Request
from delivery.engines.base import Due, Head, Subjects, Want
from delivery.lines import Line
from delivery.runs import RunClaims
from delivery.window import FEW, LEAST, MAX_BYTES, ORDERED, OWNED, WAITING, Window
from tests.builders import some_id

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def make_line(number: int = 1, tenant: str = "one", hungry: bool = False, **over: Any) -> Line:
    """An endpoint that may send, and was caught up with unless it is `hungry`."""
    line = Line(some_id(number), Inbox(), open=True, max_in_flight=over.pop("max_in_flight", 32), **over)
    line.gate.tenant, line.gate.limit = tenant, 32
    line.claims.exhausted, line.claims.share = not hungry, 1000
    return line


def make_lines(count: int, **over: Any) -> list[Line]:
    return [make_line(number, **over) for number in range(count)]


def holding(line: Line, waiting: int = 0, started: int = 0, size: int = 0) -> Line:
    """With so much on its way."""
    line.gate.waiting.extend(Request(None, "http://127.0.0.1/", (), b"", 1000, Inbox()) for _ in range(waiting))
    line.owned = {some_id(10_000 + number): None for number in range(waiting + started)}
    line.held_bytes = size
    line.last_result_at = monotonic() - 60
    return line


def asked(window: Window, lines: list[Line]) -> Counter[object]:
    """How many deliveries are asked for, by tenant."""
    counts: Counter[object] = Counter()
    for line, want in window.wants(lines, NOW):
        assert isinstance(want, Want)
        counts[line.gate.tenant] += want.most
    return counts


def test_one_tenant_may_have_half_of_the_window() -> None:
    lines = make_lines(8, hungry=True)
    assert asked(Window(lines), lines) == {"one": WAITING // 2}


def test_parts_are_by_weight() -> None:
    lines = [make_line(1, hungry=True, weight=64.0), make_line(2, hungry=True, weight=8.0)]
    lines[0].max_in_flight = lines[1].max_in_flight = 1
    lines[0].claims.share = lines[1].claims.share = 5000
    lines[0].claims.fitting = lines[1].claims.fitting = 5000
    first, second = (want for _, want in Window(lines).wants(lines, NOW))
    assert isinstance(first, Want)
    assert isinstance(second, Want)
    assert first.most == pytest.approx(8 * second.most, rel=0.01)


@pytest.mark.parametrize("hungry", [True, False])
def test_six_hundred_endpoints_claim_no_more_in_one_go_than_a_few(hungry: bool) -> None:
    lines = make_lines(600, hungry=hungry, max_in_flight=1000)
    assert asked(Window(lines), lines)["one"] <= max(WAITING // 2 + LEAST, 600 * FEW)


@pytest.mark.parametrize("hungry", [True, False])
def test_a_busy_tenant_claims_little_in_one_go_and_its_endpoints_take_turns(hungry: bool) -> None:
    lines, few = make_lines(600, hungry=hungry, max_in_flight=1000), 100
    seen = set[object]()
    for _ in range(600 // (few // LEAST)):
        window = Window(lines, lambda _: few)
        wants = window.wants(list(lines), NOW)
        assert sum(line.most for line, _ in wants) <= few + LEAST
        assert window.left_out
        seen.update(line.endpoint_id for line, _ in wants)
    assert len(seen) == 600


def test_a_tenant_that_holds_much_leaves_room_for_another() -> None:
    greedy = holding(make_line(1, "greedy", hungry=True), waiting=WAITING // 2)
    other = make_line(2, "other", hungry=True)
    counts = asked(Window([greedy, other]), [greedy, other])
    assert counts == {"other": WAITING // 4}


def test_a_tenants_endpoints_that_hang_keep_none_of_its_others_waiting() -> None:
    stuck = [holding(line, waiting=32, started=7) for line in make_lines(300, hungry=True)]
    well = [make_line(1000, hungry=True), make_line(1001)]
    wanted = {line: want for line, want in Window([*stuck, *well]).wants([*stuck, *well], NOW) if line in well}
    assert [want.most for want in wanted.values() if isinstance(want, Want)] == [FEW, LEAST]


def test_no_more_is_claimed_of_an_endpoint_with_a_rate_limit_than_it_may_send_soon() -> None:
    slow, quick = make_line(1, hungry=True), make_line(2, hungry=True)
    slow.gate.pace(2.0)
    quick.gate.pace(0.01)
    counts = {line.endpoint_id: want.most for line, want in Window([slow, quick]).wants([slow, quick], NOW) if isinstance(want, Want)}
    assert counts == {slow.endpoint_id: 2, quick.endpoint_id: 200}


@pytest.mark.parametrize("held", [pytest.param({"started": OWNED // 2}, id="on their way"), pytest.param({"started": 1, "size": MAX_BYTES // 2}, id="bytes")])
def test_nothing_is_claimed_for_whom_enough_is_on_its_way(held: dict[str, int]) -> None:
    greedy, other = holding(make_line(1, "greedy"), **held), make_line(2, "other")
    assert asked(Window([greedy, other]), [greedy, other]).keys() == {"other"}


def test_endpoints_with_a_backlog_take_turns_and_those_of_a_higher_priority_have_more_of_them() -> None:
    lines = make_lines(600, hungry=True)
    for line in lines[:10]:
        line.weight = 8.0
    turns: Counter[int] = Counter()
    for _ in range(100):
        window = Window(lines)
        turns.update(lines.index(line) for line, _ in window.wants(list(lines), NOW))
        assert window.left_out
    low, high = [turns[number] for number in range(10, 600)], [turns[number] for number in range(10)]
    assert max(low) - min(low) <= 2
    assert min(high) >= 4 * max(low)


def test_ordered_endpoints_are_looked_through_a_few_at_a_time_and_by_tenant() -> None:
    lines = [make_line(number, "one") for number in range(50)] + [make_line(100, "other")]
    for line in lines:
        line.claims = RunClaims()
        line.claims.round.rest_until = 0.0
    seen: Counter[object] = Counter()
    for _ in range(7):
        window = Window(lines)
        wanted = window.wants(list(lines), NOW)
        assert len(wanted) == ORDERED
        assert window.left_out
        assert {type(want) for _, want in wanted} <= {Head, Subjects}
        seen.update(line.endpoint_id for line, _ in wanted)
        assert "other" in {line.gate.tenant for line, _ in wanted}
    assert len(seen) == 50


def test_news_of_an_ordered_endpoint_are_as_many_as_there_is_room_for() -> None:
    lines = make_lines(600)
    for line in lines:
        line.claims = RunClaims()
    wanted = Window(lines).wants(lines, NOW)
    assert sum(want.most for _, want in wanted if isinstance(want, Want)) <= 600 * FEW * 4


def test_nothing_is_kept_of_what_was_settled_or_given_back() -> None:
    line = make_line()
    dues = [Due(some_id(number), some_id(100 + number), line.endpoint_id, NOW - timedelta(seconds=9), 0, 0) for number in range(3)]
    line.open = False
    line.take(dues, {due.event_id: b"x" * 5000 for due in dues[:2]} | {dues[2].event_id: b"small"})
    assert line.held_bytes == 10_000
    line.settled(dues[0].id)
    line.close()
    assert (line.held_bytes, line.large, line.owned) == (0, {}, {})
