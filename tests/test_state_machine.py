"""Whatever happens to endpoints, deliveries, lanes and their owners, in whatever order: Jetrelay's promises hold after every step.

Small here; `TEST_EXAMPLES=300 make test ARGS=tests/test_state_machine.py` looks longer and elsewhere each time. What must
hold is in `delivery_model.py` (the tables) and `delivery_turns.py` (a turn of a lane). Most of it happens on several
threads and in several processes, so that a failure may not come again for the same steps.
"""

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from delivery import order, runs, window
from delivery.models import Attempt, AttemptTally, Delivery, EndpointHealth, Event, EventTally, Lease
from delivery.outbox import Outbox
from subscriptions.models import Endpoint, EndpointPastState, Subscription
from tests.counterpart import ANSWERS
from tests.nursery import Nursery
from tests.playground import SUBJECTS, TYPES, Chosen, Playground
from tests.receiver import Receiver

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick"), pytest.mark.timeout(14_400)]

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "0"))
STEPS = 25
SCHEDULES: list[list[float]] = [[0], [30, 300], [0, 0, 3600], [3600] * 4, []]
TABLES = (Attempt, AttemptTally, Delivery, Event, EventTally, Lease, EndpointHealth, EndpointPastState, Subscription, Endpoint)

numbers = st.integers(0, 2)
counts = st.integers(0, 15)
leases_s = st.sampled_from([0.3, 9.0])
kinds = st.sampled_from(sorted(ANSWERS))
# Some answers in a row, most of them all alike: outages are what breakers are for.
moods = st.lists(st.tuples(kinds, st.integers(1, 12)), min_size=1, max_size=3)
picks = st.lists(st.integers(0, 99), min_size=1, max_size=4)
news = st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(TYPES))
batches = st.lists(st.one_of(news, news, news, st.integers(0, 99)), min_size=3, max_size=20)
moves = st.sampled_from(["replay", "replay", "cancel", "dismiss"])

# What people change about an endpoint.
changes = st.one_of(
    st.tuples(st.just("act"), st.sampled_from(["go on", "go on", "pause", "disable", "reset"])),
    st.tuples(st.just("path"), st.sampled_from("ab")),
    st.tuples(st.just("secret"), st.sampled_from([0, 1])),
    st.tuples(st.just("wants"), st.sampled_from([[], TYPES[:1], TYPES[1:], TYPES])),
    st.tuples(st.just("ordered"), st.booleans()),
    st.tuples(st.just("batch_size"), st.sampled_from([1, 2, 5])),
    st.tuples(st.just("max_in_flight"), st.sampled_from([1, 1, 2, 8])),
    st.tuples(st.just("rate_limit_per_s"), st.sampled_from([None, 500.0])),
    st.tuples(st.just("retry_schedule_s"), st.sampled_from(SCHEDULES)),
    st.tuples(st.just("retry_on"), st.sampled_from(["any", "transient"])),
)
beginnings = st.fixed_dictionaries(
    {
        "ordered": st.booleans(),
        "batch_size": st.sampled_from([1, 3]),
        "max_in_flight": st.sampled_from([1, 1, 4]),
        "retry_schedule_s": st.sampled_from(SCHEDULES[:-1]),
        "retry_on": st.sampled_from(["any", "transient"]),
        "ailing": st.sampled_from([False, False, True]),
    }
)


class Deliveries(RuleBasedStateMachine):
    def __init__(self, receiver: Receiver, nursery: Nursery) -> None:
        super().__init__()
        for table in TABLES:
            table._default_manager.all()._raw_delete(table._default_manager.db)
        self.play = Playground(receiver, nursery)

    @initialize(beginnings=st.tuples(beginnings, beginnings, beginnings), moods=moods, narrow=st.booleans(), latency_s=st.sampled_from([0, 0.002, 0.01]))
    def begin(self, beginnings: tuple[dict[str, Any], ...], moods: list[tuple[str, int]], narrow: bool, latency_s: float) -> None:
        """Three endpoints of one lane, one in trouble. `narrow` makes the lane see a few deliveries at a time, as if there were millions."""
        window.WAITING, window.FEW, window.LEAST = (6, 1, 1) if narrow else (4000, 4, 32)
        runs.SUBJECTS, order.CHUNK = (2, 4) if narrow else (256, 1000)
        runs.NEWS, runs.MOST_LEADS = (3, 2) if narrow else (1000, 1000)
        self.play.counterpart.latency_s = latency_s
        for beginning in beginnings:
            self.play.add_endpoint(**beginning)
        self.play.misbehave(0, moods)
        self.play.publish_many(9)

    @rule(batch=batches, rejected=st.sampled_from([0, 0, 2]), afresh=st.booleans())
    def publish(self, batch: list[Chosen], rejected: int, afresh: bool) -> None:
        """New events, and some that were there before; `afresh` by a publisher that remembers nothing."""
        if afresh:
            self.play.outbox = Outbox(self.play.source)
        self.play.publish(batch, rejected)

    @rule(number=numbers, moods=moods)
    def misbehave(self, number: int, moods: list[tuple[str, int]]) -> None:
        self.play.misbehave(number, moods)

    @rule(number=numbers, kind=kinds, pick=st.integers(0, 99), times=st.integers(1, 6))
    def poison(self, number: int, kind: str, pick: int, times: int) -> None:
        self.play.poison(number, kind, pick, times)

    @rule(number=numbers, change=changes)
    def change(self, number: int, change: tuple[str, Any]) -> None:
        self.play.change(number, *change)

    @rule(what=moves, picks=picks)
    def move(self, what: str, picks: list[int]) -> None:
        self.play.move(what, picks)

    @rule(seconds=st.sampled_from([60, 700, 8_000, 6 * 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.play.pass_time(seconds)
        self.play.drain()

    @rule(dead_too=st.booleans())
    def prune(self, dead_too: bool) -> None:
        self.play.prune(dead_too=dead_too)

    @rule()
    def drain(self) -> None:
        if self.play.drain():
            self.play.drain_in_vain()

    @rule(at=st.integers(1, 12), count=counts, number=numbers, change=changes)
    def drain_while_an_endpoint_changes(self, at: int, count: int, number: int, change: tuple[str, Any]) -> None:
        self.play.publish_many(count)
        self.play.drain_while(at, lambda: self.play.change(number, *change))

    @rule(at=st.integers(1, 12), count=counts, number=numbers, moods=moods, what=moves, picks=picks)
    def drain_while_deliveries_move(self, at: int, count: int, number: int, moods: list[tuple[str, int]], what: str, picks: list[int]) -> None:
        self.play.publish_many(count)
        self.play.misbehave(number, moods)
        self.play.drain_while(at, lambda: self.play.move(what, picks))

    @rule(at=st.integers(1, 12), batch=batches)
    def drain_while_more_comes(self, at: int, batch: list[Chosen]) -> None:
        self.play.drain_while(at, lambda: self.play.publish(batch))

    @rule(at=st.integers(1, 12), count=counts, after=st.booleans(), lease_s=leases_s)
    def kill_the_owner(self, at: int, count: int, after: bool, lease_s: float) -> None:
        self.play.publish_many(count)
        self.play.kill_the_owner(at, after=after, lease_s=lease_s)

    @rule(count=counts, lease_s=leases_s)
    def end_the_owner_before_it_settles(self, count: int, lease_s: float) -> None:
        self.play.publish_many(count)
        self.play.end_the_owner_before_it_settles(lease_s)

    @rule(count=counts, number=numbers, moods=moods)
    def freeze_the_owner_before_it_settles(self, count: int, number: int, moods: list[tuple[str, int]]) -> None:
        self.play.publish_many(count)
        self.play.misbehave(number, moods)
        self.play.freeze_the_owner_before_it_settles()

    @invariant()
    def the_tables_say_so(self) -> None:
        self.play.model.check()

    def teardown(self) -> None:
        error = sys.exc_info()[1]
        if error is None:
            self.play.everything_arrives()
            self.play.model.check()
        elif isinstance(error, AssertionError):
            # It may be the only time that it shows.
            logger.error("A promise is broken", exc_info=error)


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    # What an example sets anew is as it was afterwards.
    for module, name in ((window, "WAITING"), (window, "FEW"), (window, "LEAST"), (runs, "SUBJECTS"), (runs, "NEWS"), (runs, "MOST_LEADS"), (order, "CHUNK")):
        monkeypatch.setattr(module, name, getattr(module, name))
    running = Nursery()
    yield running
    running.close()


def test_it_keeps_its_promises_whatever_happens(receiver: Receiver, nursery: Nursery) -> None:
    class Machine(Deliveries):
        def __init__(self) -> None:
            super().__init__(receiver, nursery)

    chosen = settings(
        max_examples=EXAMPLES or 8,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        # To make a failure shorter takes minutes.
        phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=chosen)
