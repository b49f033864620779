"""Wakes, through the real broker of the embedded engines."""

import os
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from django.conf import settings

from delivery import tasks, wakes
from delivery.leases import Holding, lane_lease
from delivery.wakes import Waker
from jetrelay.celery import app
from tests.builders import make_delivery, make_endpoint
from tests.whole import ROOT

pytestmark = pytest.mark.django_db

END = 999


class Mail:
    """What waits for the workers of the lanes."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def next_lane(self, timeout_s: float = 10) -> int:
        """The lane of the next wake. Raises queue.Empty when none comes."""
        message = self._queue.get(timeout=timeout_s)
        message.ack()
        assert message.headers["task"] == "delivery.drain"
        (lane,) = message.payload[0]
        return int(lane)

    def rest(self, waker: Waker) -> list[int]:
        """The lanes of what this waker sent until now. A last wake tells the end: they leave in their order."""
        waker.wake({END})
        return list(iter(self.next_lane, END))


@pytest.fixture
def mail() -> Iterator[Mail]:
    with app.connection_for_read() as connection, connection.SimpleQueue("lanes") as queue:
        queue.clear()
        yield Mail(queue)
        queue.clear()


def test_it_wakes_a_lane_that_nobody_owns(mail: Mail) -> None:
    Waker().wake({3})
    assert mail.next_lane() == 3


def test_it_wakes_each_of_several_lanes(mail: Mail) -> None:
    Waker().wake({1, 2, 3})
    assert sorted(mail.next_lane() for _ in range(3)) == [1, 2, 3]


def test_it_leaves_a_lane_with_an_owner_alone(mail: Mail) -> None:
    Holding(lane_lease(3), 60).take()
    waker = Waker()
    waker.wake({3})
    waker.wake({4})
    assert mail.next_lane() == 4
    assert mail.rest(waker) == []


def test_it_sends_one_wake_for_many_batches_in_a_short_time(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "_FIRST_INTERVAL_S", 60.0)
    waker = Waker()
    for _ in range(50):
        waker.wake({3})
    assert mail.next_lane() == 3
    assert mail.rest(waker) == []


def test_it_wakes_again_after_the_interval(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "_FIRST_INTERVAL_S", 0.0)
    waker = Waker()
    for _ in range(2):
        waker.wake({3})
        assert mail.next_lane() == 3


def test_it_wakes_less_and_less_often_while_no_owner_comes(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "_FIRST_INTERVAL_S", 0.01)
    waker, deadline = Waker(), monotonic() + 0.4
    while monotonic() < deadline:
        waker.wake({3})
    assert mail.next_lane() == 3
    # At 0.01, 0.03, 0.07, 0.15 and 0.31 s, and not every 0.01 s.
    assert 2 <= len(mail.rest(waker)) <= 6


def test_it_is_quick_again_once_there_was_an_owner(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "_FIRST_INTERVAL_S", 0.0)
    monkeypatch.setattr(wakes, "_LAST_INTERVAL_S", 60.0)
    waker, owner = Waker(), Holding(lane_lease(3), 60)
    waker.wake({3})
    assert mail.next_lane() == 3
    owner.take()
    waker.wake({3})
    owner.release()
    waker.wake({3})
    assert mail.next_lane() == 3
    assert mail.rest(waker) == []


def test_it_sends_nothing_for_no_lanes(mail: Mail) -> None:
    waker = Waker()
    waker.wake(set())
    assert mail.rest(waker) == []


def test_it_sweeps_lanes_that_are_due(mail: Mail) -> None:
    make_delivery(endpoint=make_endpoint(shard=5))
    make_delivery(endpoint=make_endpoint(shard=6, state="paused"))
    make_delivery(endpoint=make_endpoint(shard=settings.JETRELAY_LANES + 1))
    tasks.sweep()
    assert sorted(mail.rest(Waker())) == [1, 5]


OUTAGE = """
import threading, time
import django
django.setup()
from delivery import leases, wakes
leases.live = lambda names: set()  # no database is needed to find a broker dead
started = time.monotonic()
for lane in range(100):
    wakes.waker.wake({lane})
print(time.monotonic() - started, flush=True)
threading.Event().wait()
"""


def test_it_holds_up_nobody_while_the_broker_is_away() -> None:
    env = dict(os.environ) | {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "BROKER_URL": "redis://127.0.0.1:1/0"}
    with subprocess.Popen([sys.executable, "-c", OUTAGE], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            took = process.stdout.readline()
        finally:
            process.kill()
    assert float(took) < 1
