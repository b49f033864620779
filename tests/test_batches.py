"""Batches, on real lanes with a real receiver."""

import json
from collections import Counter
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone
from standardwebhooks import Webhook

from delivery import lanes, tenure
from delivery.models import Attempt, Delivery
from delivery.parcels import EVENT_IDS_HEADER, MAX_BATCH_BYTES
from subscriptions.ids import to_public
from subscriptions.models import Endpoint
from tests.builders import make_delivery, make_endpoint, make_event
from tests.draining import LANE, bodies, drain_all, endpoint_at, owe, replying, states
from tests.receiver import Receiver
from tests.threads import Elsewhere

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def sizes(receiver: Receiver) -> list[int]:
    return sorted((len(json.loads(body)) for body in bodies(receiver)), reverse=True)


def test_events_travel_in_full_arrays_and_the_rest_when_it_has_waited(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=10, batch_wait_ms=50)
    sent = owe(endpoint, 34)
    drain_all()
    assert states(endpoint) == {"delivered": 34}
    assert sizes(receiver) == [10, 10, 10, 4]
    assert sorted(event["n"] for body in bodies(receiver) for event in json.loads(body)) == [json.loads(body)["n"] for body in sent]


def test_a_batch_is_signed_as_a_whole_and_names_its_events(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=5, batch_wait_ms=0)
    owe(endpoint, 3)
    drain_all()
    (request,) = receiver.requests
    Webhook(endpoint.secret).verify(request.body, dict(request.headers))
    assert request.headers[EVENT_IDS_HEADER.lower()] == ",".join(
        to_public("evt", id) for id in Delivery.objects.order_by("id").values_list("event_id", flat=True)
    )


def test_each_delivery_of_a_batch_has_the_attempt(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=5, batch_wait_ms=0)
    receiver.answer = replying(202, b"thanks")
    owe(endpoint, 3)
    drain_all()
    assert [(attempt.number, attempt.status, bytes(attempt.response_body)) for attempt in Attempt.objects.all()] == [(1, 202, b"thanks")] * 3
    assert len({(attempt.started_at, attempt.total_ms) for attempt in Attempt.objects.all()}) == 1
    # What went along in one request is told by its id, and stands in the order of the attempts.
    assert {attempt.batch_id for attempt in Attempt.objects.all()} == {receiver.requests[0].webhook_id}
    events = [to_public("evt", id) for id in Attempt.objects.order_by("id").values_list("delivery__event_id", flat=True)]
    assert receiver.requests[0].headers[EVENT_IDS_HEADER.lower()] == ",".join(events)


def test_an_event_that_travels_as_itself_is_in_no_batch(receiver: Receiver) -> None:
    owe(endpoint_at(receiver), 1)
    drain_all()
    assert (Attempt.objects.get().batch, Attempt.objects.get().batch_id) == (None, None)


def test_a_young_event_waits_for_others_and_no_longer_than_it_may(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=10, batch_wait_ms=1500)
    owe(endpoint, 2)
    first = Delivery.objects.earliest("id")
    drain = Elsewhere(lambda: lanes.drain(LANE))
    with pytest.raises(TimeoutError):
        receiver.wait_for(lambda got: len(got) > 0, timeout_s=0.3)
    owe(endpoint, 3)
    drain.result()
    drain_all()
    assert sizes(receiver) == [5]
    assert Attempt.objects.earliest("id").started_at >= first.due_at + timedelta(milliseconds=1490)


def test_a_batch_holds_256_kb_at_most(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=100, batch_wait_ms=0)
    for number in range(10):
        make_delivery(endpoint=endpoint, event=make_event(body=b'"%b"' % (bytes([65 + number]) * 60_000)))
    drain_all()
    assert sizes(receiver) == [4, 4, 2]
    assert max(map(len, bodies(receiver))) <= MAX_BATCH_BYTES


@pytest.mark.parametrize("retry_on", Endpoint.RetryOn.values)
def test_a_poison_event_dies_alone(retry_on: str, receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=50, batch_wait_ms=0, retry_schedule_s=[0, 0, 0], retry_on=retry_on)
    sent = owe(endpoint, 50)
    poison = sent[17]
    receiver.answer = lambda handler, received: handler.reply(422 if poison in received.body else 200)
    drain_all()
    assert states(endpoint) == {"delivered": 49, "dead": 1}
    dead = Delivery.objects.dead().get()
    assert bytes(dead.event.body) == poison
    assert (dead.tries, dead.last_status) == (4, 422)
    assert [len(json.loads(body)) for body in bodies(receiver) if poison in body] == [50, 14, 4, 1]


def test_what_failed_is_delivered_once_and_what_arrived_is_not_sent_again(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=20, batch_wait_ms=0, retry_schedule_s=[0, 0])
    receiver.answer = lambda handler, _: handler.reply(500 if len(receiver.requests) == 1 else 200)
    owe(endpoint, 60)
    drain_all()
    assert states(endpoint) == {"delivered": 60}
    counts = Counter(event["n"] for body in bodies(receiver) for event in json.loads(body))
    assert Counter(counts.values()) == {1: 40, 2: 20}


def test_a_schedule_that_was_shortened_kills_nobody_in_company(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=4, batch_wait_ms=0, retry_schedule_s=[0])
    owe(endpoint, 4)
    Delivery.objects.update(tries=3, attempt_count=3)
    receiver.answer = replying(500)
    drain_all()
    assert sizes(receiver) == [1, 1, 1, 1]
    assert states(endpoint) == {"dead": 4}


def test_batches_take_turns_with_changes_of_their_size(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, batch_size=10, batch_wait_ms=60_000)
    owe(endpoint, 5)
    drain = Elsewhere(lambda: lanes.drain(LANE))
    with pytest.raises(TimeoutError):
        receiver.wait_for(lambda got: len(got) > 0, timeout_s=0.3)
    endpoint.batch_size = 1
    endpoint.save()
    drain.result()
    drain_all()
    assert states(endpoint) == {"delivered": 5}
    assert len(receiver.requests) == 5
    assert all(request.webhook_id.startswith("evt_") for request in receiver.requests)


def test_batches_need_a_retry_to_be_split_on() -> None:
    endpoint = make_endpoint(batch_size=2, retry_schedule_s=[])
    with pytest.raises(ValidationError, match="split on its retries"):
        endpoint.full_clean()


def test_what_waits_for_company_goes_back_at_the_end_of_a_turn(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "SLICE_S", 0.2)
    endpoint = endpoint_at(receiver, batch_size=10, batch_wait_ms=60_000)
    owe(endpoint, 3)
    assert lanes.drain(LANE) is True
    assert states(endpoint) == {"pending": 3}
    Delivery.objects.update(due_at=timezone.now() - timedelta(minutes=2))
    drain_all()
    assert sizes(receiver) == [3]
