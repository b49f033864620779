"""Deliveries that go back into the queue."""

from datetime import timedelta

import pytest
from django.utils import timezone

from delivery.engines import engine
from delivery.engines.base import Settlement
from delivery.models import Attempt, Delivery
from delivery.replay import replay
from subscriptions.ids import new_id
from tests.builders import make_attempt, make_delivery, make_endpoint

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", list(Delivery.State))
def test_it_makes_a_delivery_due_now_with_a_fresh_schedule(state: Delivery.State) -> None:
    now = timezone.now()
    delivery = make_delivery(state=state, due_at=now + timedelta(hours=2), attempt_count=5, tries=5, last_status=500, settled_at=now)
    assert replay([delivery.id]) == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.tries, delivery.attempt_count, delivery.settled_at) == (Delivery.State.PENDING, 0, 5, None)
    assert now <= delivery.due_at <= timezone.now()
    assert delivery in Delivery.objects.due()


def test_it_keeps_the_attempts_made_so_far() -> None:
    delivery = make_delivery(state=Delivery.State.DEAD)
    attempts = [make_attempt(delivery=delivery, number=number) for number in (1, 2)]
    replay([delivery.id])
    assert list(Attempt.objects.filter(delivery=delivery)) == attempts


def test_it_leaves_others_alone() -> None:
    chosen, other = make_delivery(state=Delivery.State.DEAD), make_delivery(state=Delivery.State.DEAD)
    assert replay([chosen.id]) == 1
    assert other.refreshed().state == Delivery.State.DEAD


def test_it_counts_what_there_is_to_replay() -> None:
    deliveries = [make_delivery(state=Delivery.State.DEAD, endpoint=make_endpoint()) for _ in range(3)]
    assert replay([*(delivery.id for delivery in deliveries), new_id(), deliveries[0].id]) == 3
    assert replay([]) == 0


def test_it_does_not_queue_a_delivery_whose_event_is_gone() -> None:
    delivery = make_delivery(state=Delivery.State.DEAD)
    Delivery.objects.filter(pk=delivery.pk).update(event_id=new_id())
    assert replay([delivery.id]) == 0
    assert delivery.refreshed().state == Delivery.State.DEAD


def test_it_replays_what_waits_at_a_paused_endpoint_without_sending_it() -> None:
    delivery = make_delivery(state=Delivery.State.DEAD, endpoint=make_endpoint(state="paused"))
    assert replay([delivery.id]) == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count) == (Delivery.State.PENDING, 0)


def test_it_can_be_delivered_afterwards() -> None:
    delivery = make_delivery(state=Delivery.State.DEAD, attempt_count=5, tries=5)
    replay([delivery.id])
    assert engine().settle(Delivery.State.DELIVERED, [Settlement(delivery.id, 5, 200, "")], timezone.now()) == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, delivery.tries) == (Delivery.State.DELIVERED, 6, 1)


def test_it_may_replay_more_than_a_statement_takes() -> None:
    endpoint = make_endpoint()
    first = make_delivery(endpoint=endpoint, state=Delivery.State.DEAD)
    assert replay([first.id, *(new_id() for _ in range(40_000))]) == 1
