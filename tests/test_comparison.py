"""Comparing hosts: one that leaves a collection out is named, and one that is away is not."""

import pytest

from delivery.sources.jetstream import comparison as module
from delivery.sources.jetstream.comparison import CALM_S, GRACE_S, Comparison
from tests.builders import POST

A, B, C = "wss://a.example/subscribe", "wss://b.example/subscribe", "wss://c.example/subscribe"
BOTH = {A, B}


@pytest.fixture(autouse=True)
def _one_is_enough(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "several" not in request.node.name:
        monkeypatch.setattr(module, "MIN_MISSED", 1)


LIKE = "app.bsky.feed.like"


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def names(comparison: Comparison, host: str) -> list[str]:
    return [alarm.collection for alarm in comparison.alarms(host)]


def test_a_withheld_collection_raises_one_alarm_after_the_grace_time() -> None:
    comparison = Comparison([A, B])
    for second in range(10):
        comparison.brought_first(A, key(second), POST, float(second), BOTH)
    assert comparison.look(GRACE_S - 0.1, BOTH) == []
    (alarm,) = comparison.look(GRACE_S, BOTH)
    assert (alarm.host, alarm.collection, alarm.brought_by, alarm.since_s, alarm.missed) == (B, POST, A, 0.0, 1)
    assert comparison.look(GRACE_S + 9, BOTH) == []
    assert comparison.alarms(B) == [alarm]
    assert (alarm.missed, alarm.last_s) == (10, GRACE_S + 9)
    assert comparison.alarms(A) == []


def test_there_is_one_alarm_for_each_host_and_collection() -> None:
    comparison = Comparison([A, B, C])
    everyone = {A, B, C}
    comparison.brought_first(A, key(1), POST, 0.0, everyone)
    comparison.brought_first(A, key(2), LIKE, 0.0, everyone)
    comparison.brought_first(A, key(3), LIKE, 0.0, everyone)
    comparison.brought_again(C, key(1))
    assert [(alarm.host, alarm.collection) for alarm in comparison.look(GRACE_S, everyone)] == [(B, POST), (B, LIKE), (C, LIKE)]
    assert [alarm.missed for alarm in comparison.alarms(B)] == [1, 2]


def test_what_comes_within_the_grace_time_is_not_missing() -> None:
    comparison = Comparison([A, B])
    comparison.brought_first(A, key(1), POST, 0.0, BOTH)
    comparison.brought_first(B, key(2), POST, 0.0, BOTH)
    comparison.brought_again(B, key(1))
    comparison.brought_again(A, key(2))
    comparison.brought_again(A, key(3))
    assert comparison.look(10 * GRACE_S, BOTH) == []


def test_an_alarm_ends_when_nothing_was_missed_for_a_while() -> None:
    comparison = Comparison([A, B])
    comparison.brought_first(A, key(1), POST, 0.0, BOTH)
    comparison.look(GRACE_S, BOTH)
    comparison.look(GRACE_S + CALM_S - 1, BOTH)
    assert names(comparison, B) == [POST]
    comparison.look(GRACE_S + CALM_S, BOTH)
    assert names(comparison, B) == []


def test_an_alarm_lasts_while_more_is_missed_and_comes_again_after_its_end() -> None:
    comparison = Comparison([A, B])
    for number in range(5):
        now_s = number * (CALM_S - 1)
        comparison.brought_first(A, key(number), POST, now_s, BOTH)
        assert len(comparison.look(now_s + GRACE_S, BOTH)) == (1 if number == 0 else 0)
    over_s = 10 * CALM_S
    comparison.look(over_s, BOTH)
    assert names(comparison, B) == []
    comparison.brought_first(A, key(9), POST, over_s, BOTH)
    assert len(comparison.look(over_s + GRACE_S, BOTH)) == 1


def test_nothing_is_held_against_a_host_that_is_not_in_the_present() -> None:
    comparison = Comparison([A, B])
    for number in range(10):
        comparison.brought_first(A, key(number), POST, 0.0, {A})
    assert comparison.look(10 * GRACE_S, {A}) == []
    assert comparison.look(20 * GRACE_S, BOTH) == []


def test_a_host_that_connects_again_has_its_whole_grace_time_again() -> None:
    comparison = Comparison([A, B])
    comparison.brought_first(A, key(1), POST, 0.0, BOTH)
    comparison.brought_first(A, key(2), POST, 0.0, BOTH)
    assert comparison.look(GRACE_S * 5, {A}) == []
    back_s = GRACE_S * 6
    assert comparison.look(back_s, BOTH) == []
    comparison.brought_again(B, key(1))
    assert comparison.look(back_s + GRACE_S - 1, BOTH) == []
    (alarm,) = comparison.look(back_s + GRACE_S, BOTH)
    assert alarm.missed == 1


def test_it_starts_over_when_something_else_is_asked_for() -> None:
    comparison = Comparison([A, B])
    comparison.brought_first(A, key(1), POST, 0.0, BOTH)
    comparison.start_over()
    assert comparison.look(10 * GRACE_S, BOTH) == []


def test_it_waits_for_so_many_events_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AWAITED", 10)
    comparison = Comparison([A, B])
    for number in range(1_000):
        comparison.brought_first(A, key(number), POST, 0.0, BOTH)
    comparison.look(GRACE_S, BOTH)
    assert [alarm.missed for alarm in comparison.alarms(B)] == [10]
    # With what is overdue out of the way, comparing goes on.
    comparison.brought_first(A, key(5_000), POST, GRACE_S, BOTH)
    comparison.look(2 * GRACE_S, BOTH)
    assert [alarm.missed for alarm in comparison.alarms(B)] == [11]


def test_a_host_alone_is_compared_with_nobody() -> None:
    comparison = Comparison([A])
    comparison.brought_first(A, key(1), POST, 0.0, {A})
    assert comparison.look(10 * GRACE_S, {A}) == []


def test_it_names_no_more_collections_than_people_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ALARMS", 3)
    comparison = Comparison(["a", "b"])
    for number in range(10):
        comparison.brought_first("a", bytes([number]), f"com.example.n{number}", 0.0, {"a", "b"})
    assert len(comparison.look(GRACE_S, {"a", "b"})) == len(comparison.alarms("b")) == 3


def test_it_takes_several_missed_events_to_say_so() -> None:
    comparison = Comparison([A, B])
    for second in range(3):
        assert comparison.look(second + GRACE_S - 0.5, BOTH) == []
        assert comparison.alarms(B) == []
        comparison.brought_first(A, key(second), POST, float(second), BOTH)
    (alarm,) = comparison.look(2 + GRACE_S, BOTH)
    assert (alarm.host, alarm.missed) == (B, 3)
