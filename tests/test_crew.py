"""Lanes of one process at once: one thread works for all, and none of them has to wait for another's receiver, or pay for its faults."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from django.db import OperationalError
from django.utils import timezone
from standardwebhooks import Webhook

from delivery import crew, lanes, rotation, tenure
from delivery.engines import engine
from delivery.leases import lane_lease, live
from delivery.looking_back import LookingBack
from delivery.models import Attempt
from subscriptions.models import ConfigVersion, Endpoint
from tests.builders import make_delivery
from tests.draining import LANE, endpoint_at, owe, replying, states, when
from tests.receiver import Handler, Received, Receiver
from tests.threads import Elsewhere, patiently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

OTHER = LANE + 1


def test_a_lane_joins_and_leaves_while_another_waits_for_its_receiver(receiver: Receiver, hanging: Receiver) -> None:
    held, quick = endpoint_at(hanging), endpoint_at(receiver, shard=OTHER)
    owe(held, 3)
    waiting = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 3)
    owe(quick, 50)
    assert Elsewhere(lambda: lanes.drain(OTHER)).result() is False
    assert states(quick) == {"delivered": 50}
    assert live([lane_lease(LANE), lane_lease(OTHER)]) == {lane_lease(LANE)}
    assert waiting.running
    hanging.closing.set()
    assert waiting.result() is False


def test_somebody_else_goes_on_when_the_one_who_works_has_no_lane_left(receiver: Receiver, hanging: Receiver) -> None:
    go = threading.Event()
    receiver.answer = when(go)
    first, second = endpoint_at(receiver), endpoint_at(hanging, shard=OTHER)
    owe(first, 1)
    owe(second, 1)
    working = Elsewhere(lambda: lanes.drain(LANE))
    receiver.wait_for(lambda got: len(got) == 1)
    joined = Elsewhere(lambda: lanes.drain(OTHER))
    hanging.wait_for(lambda got: len(got) == 1)
    go.set()
    assert working.result() is False
    assert states(first) == {"delivered": 1}
    # The one who joined works now, for whoever comes.
    receiver.answer = replying(200)
    owe(first, 20)
    assert Elsewhere(lambda: lanes.drain(LANE)).result() is False
    assert states(first) == {"delivered": 21}
    assert joined.running
    hanging.closing.set()
    joined.result()
    assert live([lane_lease(LANE), lane_lease(OTHER)]) == set()


def test_what_waits_while_a_secret_is_replaced_at_once_is_signed_with_the_new_one(receiver: Receiver, hanging: Receiver) -> None:
    go = threading.Event()
    receiver.answer = when(go)
    endpoint = endpoint_at(receiver, max_in_flight=1)
    owe(endpoint, 2)
    working = Elsewhere(lambda: lanes.drain(LANE))
    receiver.wait_for(lambda got: len(got) == 1)
    renewed = rotation.rotate(endpoint.pk, timedelta())
    # That this one is sent to says that the lane has seen what has changed.
    owe(endpoint_at(hanging), 1)
    hanging.wait_for(lambda got: len(got) == 1)
    go.set()
    hanging.closing.set()
    working.result()
    before, after = receiver.requests
    Webhook(endpoint.secret).verify(before.body, dict(before.headers))
    Webhook(renewed.secret).verify(after.body, dict(after.headers))


def test_lanes_settle_together(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "SETTLE_EVERY_S", 0.2)
    together = threading.Barrier(2)

    def answer(handler: Handler, _: Received) -> None:
        together.wait(30)
        handler.reply(200)

    receiver.answer = answer
    endpoints = endpoint_at(receiver), endpoint_at(receiver, shard=OTHER)
    for endpoint in endpoints:
        owe(endpoint, 1)
    drains = [Elsewhere(partial(lanes.drain, lane)) for lane in (LANE, OTHER)]
    for drain in drains:
        drain.result()
    assert [states(endpoint) for endpoint in endpoints] == [{"delivered": 1}] * 2
    assert len({delivery.settled_at for endpoint in endpoints for delivery in endpoint.deliveries.all()}) == 1


def test_a_fault_in_what_one_lanes_endpoints_say_is_the_end_of_that_lane_alone(receiver: Receiver) -> None:
    well, broken = endpoint_at(receiver), endpoint_at(receiver, shard=OTHER)
    owe(well, 5)
    owe(broken, 5)
    # No such priority: nobody can write that but into the table itself.
    Endpoint.objects.filter(pk=broken.pk).update(priority=7)
    drains = {lane: Elsewhere(partial(lanes.drain, lane)) for lane in (OTHER, LANE)}
    with pytest.raises(IndexError):
        drains[OTHER].result()
    drains[LANE].result()
    assert (states(well), states(broken)) == ({"delivered": 5}, {"pending": 5})
    assert live([lane_lease(LANE), lane_lease(OTHER)]) == set()
    Endpoint.objects.filter(pk=broken.pk).update(priority=1)
    ConfigVersion.bump()
    lanes.drain(OTHER)
    assert states(broken) == {"delivered": 5}


def test_a_fault_of_its_own_ends_all_lanes_and_the_next_owner_starts_afresh(receiver: Receiver, hanging: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    held, failing = endpoint_at(hanging), endpoint_at(receiver, shard=OTHER)
    owe(held, 1)
    waiting = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 1)

    def settle(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(crew, "settle", settle)
        owe(failing, 2)
        joined = Elsewhere(lambda: lanes.drain(OTHER))
        for drain in (joined, waiting):
            with pytest.raises(ZeroDivisionError):
                drain.result()
    assert live([lane_lease(LANE), lane_lease(OTHER)]) == set()
    assert (states(held), states(failing)) == ({"pending": 1}, {"pending": 2})
    hanging.closing.set()
    for lane in (LANE, OTHER):
        lanes.drain(lane)
    assert states(failing) == {"delivered": 2}


def test_what_was_claimed_is_not_passed_over_where_its_body_could_not_be_read(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody looks back at what the claims have passed.
    monkeypatch.setattr(LookingBack, "next", lambda *_: None)
    monkeypatch.setattr(crew, "BODIES_AT_ONCE", 2)
    endpoints = [endpoint_at(receiver) for _ in range(3)]
    for endpoint in endpoints:
        owe(endpoint, 5)
    read, asked = engine().bodies, list[int]()

    def bodies(ids: Sequence[UUID]) -> Mapping[UUID, bytes]:
        asked.append(len(ids))
        if len(asked) == 2:
            raise OperationalError("the connection was closed")
        return read(ids)

    monkeypatch.setattr(engine(), "bodies", bodies)
    lanes.drain(LANE)
    assert [states(endpoint) for endpoint in endpoints] == [{"delivered": 5}] * 3
    assert len(receiver.requests) == 15, "once each"


def test_what_comes_late_is_found_however_many_endpoints_there_are_to_look_back_at(
    receiver: Receiver, hanging: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "LOOKED_BACK_AT_ONCE", 2)
    endpoints = [endpoint_at(receiver) for _ in range(7)]
    owe(endpoint_at(hanging), 1)
    for endpoint in endpoints:
        owe(endpoint, 1)
    working = Elsewhere(lambda: lanes.drain(LANE))
    receiver.wait_for(lambda got: len(got) == 7)
    # As by a clock that is far behind: below all that the claims have come to.
    for endpoint in endpoints:
        patiently(lambda endpoint=endpoint: make_delivery(endpoint=endpoint, due_at=timezone.now() - timedelta(days=1)))  # type: ignore[misc]
    receiver.wait_for(lambda got: len(got) == 14)
    hanging.closing.set()
    working.result()
    assert [states(endpoint) for endpoint in endpoints] == [{"delivered": 2}] * 7


def test_lanes_that_are_furthest_behind_take_over_changes_first(receiver: Receiver, hanging: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane in a round, and a change before each: none is left out for ever."""
    monkeypatch.setattr(crew, "PIECE_S", -1.0)
    monkeypatch.setattr(crew, "CONFIG_EVERY_S", 0.0)
    monkeypatch.setattr(crew, "CONFIG_REST_FACTOR", 0)
    for lane in (LANE, OTHER):
        owe(endpoint_at(hanging, shard=lane), 1)
    drains = [Elsewhere(partial(lanes.drain, lane)) for lane in (LANE, OTHER)]
    hanging.wait_for(lambda got: len(got) == 2)
    new = [endpoint_at(receiver, shard=lane) for lane in (LANE, OTHER)]
    versions = itertools.count(1_000_000)
    monkeypatch.setattr(ConfigVersion, "current", classmethod(lambda _: next(versions)))
    for endpoint in new:
        patiently(lambda endpoint=endpoint: owe(endpoint, 1))  # type: ignore[misc]
    receiver.wait_for(lambda got: len(got) == 2)
    hanging.closing.set()
    for drain in drains:
        drain.result()


def test_what_comes_back_after_its_lane_was_given_up_is_dropped(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "GRACE_S", 0.05)
    late, other = endpoint_at(receiver, url=f"{receiver.url}/late"), endpoint_at(receiver, shard=OTHER)
    go, gone = threading.Event(), threading.Event()

    def answer(handler: Handler, received: Received) -> None:
        if received.path.endswith("/late"):
            go.wait(30)
            handler.reply(200)
            gone.set()
        else:
            handler.reply(200)

    receiver.answer = answer
    owe(late, 1)
    draining = Elsewhere(lambda: lanes.drain(LANE))
    receiver.wait_for(lambda got: len(got) == 1)
    tenure.stopping.set()
    assert draining.result() is False
    tenure.stopping.clear()
    # The answer comes, and then another lane is at work in the same process.
    go.set()
    assert gone.wait(30)
    owe(other, 1)
    lanes.drain(OTHER)
    assert (states(late), states(other)) == ({"pending": 1}, {"delivered": 1})
    assert not Attempt.objects.filter(delivery__endpoint=late).exists()
