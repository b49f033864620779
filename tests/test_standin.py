"""The stand-in: what a worker does while nothing comes from the broker."""

import logging
from collections.abc import Iterator

import pytest

from delivery import tenure
from delivery.standin import StandIn
from tests.draining import endpoint_at, owe, states
from tests.receiver import Receiver
from tests.threads import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture
def started() -> Iterator[list[StandIn]]:
    """Those that a test starts end with it."""
    running: list[StandIn] = []
    yield running
    tenure.stopping.set()
    for stand_in in running:
        stand_in.join()


def start(started: list[StandIn], patience_s: float) -> StandIn:
    stand_in = StandIn(patience_s, 0.05)
    stand_in.start()
    started.append(stand_in)
    return stand_in


def test_it_drains_what_is_due_in_every_lane_while_nothing_is_heard(receiver: Receiver, started: list[StandIn], caplog: pytest.LogCaptureFixture) -> None:
    endpoints = [endpoint_at(receiver, shard=lane) for lane in range(4)]
    for endpoint in endpoints:
        owe(endpoint, 3)
    with caplog.at_level(logging.WARNING, "delivery.standin"):
        start(started, 0.1)
        eventually(lambda: all(states(endpoint) == {"delivered": 3} for endpoint in endpoints))
        owe(endpoints[0], 2)
        eventually(lambda: states(endpoints[0]) == {"delivered": 5})
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["No sweep has come for 0 s"]


def test_it_leaves_everything_to_sweeps_while_it_hears_of_them(receiver: Receiver, started: list[StandIn]) -> None:
    owe(endpoint_at(receiver), 3)
    stand_in = start(started, 3600)
    stand_in.hear()
    with pytest.raises(TimeoutError):
        receiver.wait_for(lambda got: len(got) > 0, timeout_s=0.5)


def test_it_lets_what_is_in_flight_finish_when_the_worker_stops(hanging: Receiver, started: list[StandIn]) -> None:
    endpoint = endpoint_at(hanging)
    owe(endpoint, 1)
    stand_in = start(started, 0.0)
    hanging.wait_for(lambda got: len(got) == 1)
    tenure.stopping.set()
    hanging.closing.set()
    stand_in.join()
    assert states(endpoint) == {"delivered": 1}
