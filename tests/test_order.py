"""Order per subject, on real lanes with a real receiver."""

import json
import random
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest
from django.utils import timezone

from delivery import crew, lanes, order, tenure
from delivery.destinations.exchange import Inbox
from delivery.engines import engine
from delivery.engines.base import Head
from delivery.lines import Line
from delivery.models import Delivery, EndpointHealth
from delivery.order import BEFORE_ALL, Keying, has_turn, order_key
from delivery.outbox import Outbox
from delivery.replay import replay
from subscriptions.models import Endpoint
from tests.builders import make_delivery, make_endpoint, make_event, make_incoming, make_subscription
from tests.draining import LANE, bodies, drain_all, endpoint_at, health, owe, replying, retry_now, states
from tests.receiver import Handler, Received, Receiver
from tests.threads import Elsewhere, eventually, patiently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def of(subject: str, sent: Iterable[bytes]) -> list[bytes]:
    return [body for body in sent if json.loads(body)["of"] == subject]


def firsts(sent: Iterable[bytes]) -> list[bytes]:
    """Each body once, at the place where it first came."""
    return list(dict.fromkeys(sent))


def subject_of(received: Received) -> str:
    return str(json.loads(received.body)["of"])


def owe_one(endpoint: Endpoint) -> None:
    subscription = make_subscription(endpoint=endpoint)
    Outbox(subscription.source).publish([make_incoming()])


def replay_one(endpoint: Endpoint) -> None:
    replay([make_delivery(endpoint=endpoint, state=Delivery.State.DELIVERED).id])


def test_each_subject_comes_in_order_and_one_at_a_time_while_others_go_on(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True)
    under_way: set[str] = set()
    overlaps, together = [], [0]

    def answer(handler: Handler, received: Received) -> None:
        subject = subject_of(received)
        if subject in under_way:
            overlaps.append(subject)
        under_way.add(subject)
        # Long enough for another of the subject to come in, if it were on its way.
        receiver.closing.wait(0.005)
        together[0] = max(together[0], len(under_way))
        under_way.remove(subject)
        handler.reply(200)

    receiver.answer = answer
    sent = owe(endpoint, 120, ["a", "b", "c", "a"])
    drain_all()
    assert states(endpoint) == {"delivered": 120}
    assert overlaps == []
    for subject in "abc":
        assert of(subject, bodies(receiver)) == of(subject, sent)


def test_a_failure_holds_up_its_own_subject_until_it_is_delivered(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True, retry_schedule_s=[3600])
    sent = owe(endpoint, 12, ["a", "b", "c"])
    receiver.answer = lambda handler, received: handler.reply(500 if received.body == of("b", sent)[1] and len(receiver.requests) < 100 else 200)
    drain_all()
    assert of("b", bodies(receiver)) == of("b", sent)[:2]
    assert states(endpoint) == {"delivered": 9, "pending": 3}
    assert not lanes.lanes_due(), "what waits behind it is no reason to look"
    receiver.answer = replying(200)
    retry_now(endpoint)
    drain_all()
    assert firsts(of("b", bodies(receiver))) == of("b", sent)
    assert states(endpoint) == {"delivered": 12}


def test_a_poison_event_holds_up_its_subject_no_longer_once_it_is_dead(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True, retry_schedule_s=[0, 0])
    sent = owe(endpoint, 10, ["a", "b"])
    poison = of("a", sent)[1]
    receiver.answer = lambda handler, received: handler.reply(500 if received.body == poison else 200)
    drain_all()
    assert states(endpoint) == {"delivered": 9, "dead": 1}
    assert [body for body, _ in groupby(of("a", bodies(receiver)))] == of("a", sent)
    assert bodies(receiver).count(poison) == 3


def test_order_outlives_the_owner(receiver: Receiver) -> None:
    """What waits for its turn when the lane changes hands waits with the next owner too."""
    endpoint = endpoint_at(receiver, ordered=True, retry_schedule_s=[3600], max_in_flight=1)
    sent = owe(endpoint, 6, ["a"])
    receiver.answer = replying(500)
    drain_all()
    receiver.answer = replying(200)
    for _ in range(3):
        lanes.drain(LANE)
    assert bodies(receiver) == sent[:1]


def test_a_replay_takes_its_old_place_before_what_waits(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True, retry_schedule_s=[])
    sent = owe(endpoint, 3, ["a"])
    receiver.answer = replying(400)
    drain_all()
    assert states(endpoint) == {"dead": 3}
    receiver.answer, before = replying(200), len(receiver.requests)
    replay(Delivery.objects.order_by("-id").values_list("pk", flat=True))
    sent += owe(endpoint, 2, ["a"])
    drain_all()
    assert bodies(receiver)[before:] == sent


def test_a_long_run_of_one_subject_does_not_wait_for_the_settling_of_each(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True)
    sent = owe(endpoint, 300, ["only"])
    drain_all()
    assert bodies(receiver) == sent


def test_an_endpoint_that_becomes_ordered_has_order_in_what_waited_already(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "CHUNK", 7)
    endpoint = endpoint_at(receiver, state=Endpoint.State.PAUSED)
    sent = owe(endpoint, 30, ["a", "b"])
    Endpoint.objects.filter(pk=endpoint.pk).update(ordered=True)
    Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.ACTIVE, "")
    drain_all()
    assert states(endpoint) == {"delivered": 30}
    for subject in "ab":
        assert of(subject, bodies(receiver)) == of(subject, sent)
    assert health(endpoint).ordered_since is not None


def test_a_delivery_that_was_committed_late_without_its_key_is_found(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True)
    EndpointHealth.objects.create(endpoint=endpoint, ordered_since=timezone.now() - timedelta(seconds=30))
    delivery = make_delivery(endpoint=endpoint, event=make_event(subject="a"))
    assert delivery.order_key is None
    assert lanes.lanes_due() == {LANE}
    drain_all()
    assert delivery.refreshed().state == Delivery.State.DELIVERED


def without_key(endpoint: Endpoint, **over: Any) -> Delivery:
    return make_delivery(endpoint=endpoint, event=make_event(subject="a"), **over)


def test_a_delivery_without_a_key_is_looked_for_while_one_may_be_committed_late() -> None:
    endpoint, now = make_endpoint(ordered=True), timezone.now()
    without_key(endpoint)
    assert has_turn(endpoint.id, None)
    assert has_turn(endpoint.id, now - timedelta(minutes=3))
    assert not has_turn(endpoint.id, now - timedelta(minutes=5))


def test_a_delivery_without_a_key_has_a_turn_once_it_is_due_and_for_its_own_endpoint() -> None:
    endpoint = make_endpoint(ordered=True)
    without_key(endpoint, due_at=timezone.now() + timedelta(hours=1))
    without_key(make_endpoint(ordered=True))
    assert not has_turn(endpoint.id, None)


def test_keys_are_given_until_nothing_can_be_committed_late() -> None:
    endpoint, now = make_endpoint(ordered=True), timezone.now()
    delivery = without_key(endpoint)
    for minutes, key in ((3, None), (1, order_key("a"))):
        keying = Keying(endpoint.id, now - timedelta(minutes=minutes))
        keying.work()
        assert keying.complete
        assert delivery.refreshed().order_key == key


def test_an_endpoint_that_is_no_longer_ordered_goes_on_without(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True, retry_schedule_s=[3600])
    owe(endpoint, 4, ["a"])
    receiver.answer = lambda handler, _: handler.reply(500 if len(receiver.requests) == 1 else 200)
    drain_all()
    assert states(endpoint) == {"pending": 4}
    endpoint.ordered = False
    endpoint.save()
    drain_all()
    assert states(endpoint) == {"delivered": 3, "pending": 1}
    assert health(endpoint).ordered_since is None


@pytest.mark.parametrize("again", [owe_one, replay_one])
def test_what_comes_while_the_order_is_off_is_found_when_it_is_on_again(again: Callable[[Endpoint], None], receiver: Receiver) -> None:
    """No lane has looked meanwhile."""
    endpoint = endpoint_at(receiver, ordered=True)
    EndpointHealth.objects.create(endpoint=endpoint, ordered_since=timezone.now() - timedelta(hours=1))
    endpoint.ordered = False
    endpoint.save()
    again(endpoint)
    endpoint.ordered = True
    endpoint.save()
    drain_all()
    assert states(endpoint) == {"delivered": 1}


def test_it_may_become_ordered_while_its_lane_runs(receiver: Receiver, hanging: Receiver) -> None:
    endpoint = endpoint_at(hanging, max_in_flight=3)
    sent = owe(endpoint, 10, ["a"])
    drain = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 3)
    endpoint.ordered, endpoint.url = True, receiver.url
    patiently(endpoint.save)
    eventually(lambda: EndpointHealth.objects.filter(pk=endpoint.pk).exclude(ordered_since=None).exists())
    assert receiver.requests == [], "three of the subject are still under way"
    hanging.closing.set()
    drain.result()
    drain_all()
    assert bodies(receiver) == sent[3:]
    assert states(endpoint) == {"delivered": 10}


def test_subjects_that_wait_do_not_keep_a_turn_from_seeing_the_others(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.runs.SUBJECTS", 10)
    monkeypatch.setattr(tenure, "LINGER_S", 0.01)
    endpoint = endpoint_at(receiver, ordered=True)
    subjects = sorted((f"subject {number}" for number in range(300)), key=order_key)
    owe(endpoint, 300, subjects)
    Delivery.objects.exclude(order_key=order_key(subjects[-1])).update(due_at=timezone.now() + timedelta(hours=2))
    drain_all()
    assert states(endpoint) == {"delivered": 1, "pending": 299}


def test_subjects_are_looked_at_a_part_at_a_time_and_all_of_them(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.runs.SUBJECTS", 10)
    endpoint = endpoint_at(receiver, ordered=True)
    owe(endpoint, 200, [f"subject {number}" for number in range(57)])
    drain_all()
    assert states(endpoint) == {"delivered": 200}


def test_the_first_of_each_subject_is_found_whatever_is_due() -> None:
    endpoint = make_delivery(event=make_event(subject="a")).endpoint
    now, found = timezone.now(), {}
    for subject in ("a", "b"):
        for age in (0, 60):
            event = make_event(subject=subject)
            found[subject, age] = make_delivery(endpoint=endpoint, event=event, order_key=order_key(subject), due_at=now + timedelta(seconds=30 - age))
    dues = engine().claim_runs(Head(endpoint.id, BEFORE_ALL, 10, 10))
    assert [due.id for due in dues] == [found[subject, age].id for subject in sorted("ab", key=order_key) for age in (0, 60)]
    assert [due.order_key for due in engine().claim_runs(Head(endpoint.id, min(map(order_key, "ab")), 10, 1))] == [max(map(order_key, "ab"))]


def test_keys_fit_a_bigint_and_are_above_the_lowest() -> None:
    keys = [order_key(f"did:plc:{random.randrange(10**9)}") for _ in range(1000)]
    assert all(BEFORE_ALL < key < 2**63 for key in keys)
    assert order_key("") == order_key("")
    assert order_key("\ud800") > BEFORE_ALL


def test_a_subject_has_the_same_key_for_ever() -> None:
    """Keys are stored: with others, what waits would overtake what waits already."""
    assert [order_key(subject) for subject in ("", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")] == [8238016292129134938, 1239526893345256628]


def test_a_batch_that_fails_keeps_the_order_of_its_subjects(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True, batch_size=5, batch_wait_ms=0, retry_schedule_s=[0, 0, 0])
    sent = owe(endpoint, 40, ["a", "b", "c"])
    poison = of("b", sent)[4]
    receiver.answer = lambda handler, received: handler.reply(500 if poison in received.body else 200)
    drain_all()
    assert states(endpoint) == {"delivered": 39, "dead": 1}
    arrived = [
        json.dumps(event, separators=(",", ":")).encode() for request in receiver.requests if poison not in request.body for event in json.loads(request.body)
    ]
    for subject in "abc":
        assert of(subject, arrived) == [body for body in of(subject, sent) if body != poison]


def test_endpoints_that_become_ordered_are_given_keys_in_parts_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.order.CHUNK", 2)
    lines = []
    for _ in range(2):
        line = Line(make_endpoint(ordered=True).id, Inbox(), open=True)
        line.keying = Keying(line.endpoint_id, None)
        for _ in range(3):
            make_delivery(endpoint=Endpoint.objects.get(pk=line.endpoint_id), order_key=None)
        lines.append(line)

    def left() -> list[int]:
        return [Delivery.objects.filter(endpoint=line.endpoint_id, order_key=None).count() for line in lines]

    work = crew._Work(Inbox())
    work._give_keys(lines)
    assert left() == [1, 3]
    # Then a rest, however often there is something to claim.
    for _ in range(5):
        work._give_keys(lines)
    assert left() == [1, 3]
    for expected in ([1, 1], [0, 1], [0, 0]):
        work._keys_at = 0.0
        work._give_keys(lines)
        assert left() == expected
    assert all(line.keying and line.keying.complete for line in lines)
