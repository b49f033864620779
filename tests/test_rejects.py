"""Frames that were no events: all counted, the last ones kept, and the log not flooded."""

import logging

import pytest

from delivery.sources.jetstream import rejects as module
from delivery.sources.jetstream.rejects import MAX_HEAD, MAX_KEPT, Rejects

HOST = "wss://host.example/subscribe"


def test_it_hands_over_what_came_since_the_last_time() -> None:
    rejects = Rejects(HOST)
    assert (rejects.count(), rejects.take()) == (0, [])
    rejects.add(b"garbage", "no JSON")
    rejects.add(b"", "empty")
    kept = rejects.take()
    assert rejects.count() == 2
    assert [(each.host, each.reason, each.size, each.head) for each in kept] == [(HOST, "no JSON", 7, b"garbage"), (HOST, "empty", 0, b"")]
    assert kept[0].at <= kept[1].at
    assert (rejects.count(), rejects.take()) == (0, [])


def test_it_counts_all_and_keeps_the_last() -> None:
    rejects = Rejects(HOST)
    for number in range(MAX_KEPT + 50):
        rejects.add(b"%d" % number, "no JSON")
    kept = rejects.take()
    assert rejects.count() == MAX_KEPT + 50
    assert [each.head for each in kept] == [b"%d" % number for number in range(50, MAX_KEPT + 50)]
    rejects.add(b"more", "no JSON")
    assert rejects.count() == 1


def test_it_keeps_the_head_of_a_large_frame_and_its_size() -> None:
    rejects = Rejects(HOST)
    rejects.add(b"x" * 2_000_000, "too large")
    (kept,) = rejects.take()
    assert (kept.size, kept.head) == (2_000_000, b"x" * MAX_HEAD)


def test_it_adds_up_what_is_not_shown_yet() -> None:
    rejects = Rejects(HOST)
    rejects.add(b"x", "no JSON")
    rejects.count()
    rejects.add(b"x", "no JSON")
    rejects.count()
    assert rejects.unshown == 2


def test_it_names_the_first_in_the_log_and_then_one_now_and_again(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    rejects = Rejects(HOST)
    with caplog.at_level(logging.WARNING, module.__name__):
        for _ in range(100):
            rejects.add(b"garbage" * 1_000, "no JSON")
        assert len(caplog.messages) == 1
        assert HOST in caplog.messages[0]
        assert "no JSON" in caplog.messages[0]
        assert len(caplog.messages[0]) < 500
        monkeypatch.setattr(module, "COMPLAIN_EVERY_S", 0.0)
        rejects._name_at = 0.0
        rejects.add(b"garbage", "no JSON")
        rejects.add(b"garbage", "no JSON")
    assert "(99 more since the last line)" in caplog.messages[1]
    assert "more since" not in caplog.messages[2]


def test_a_frame_with_control_characters_stays_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, module.__name__):
        Rejects(HOST).add(b"line\nforged: line\r\x1b[2J\x00", "no JSON")
    (message,) = caplog.messages
    assert message.isprintable()
