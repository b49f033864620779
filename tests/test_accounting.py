"""Everything is accounted for, from the tables themselves."""

import json
from datetime import timedelta

import pytest
from django.db import DatabaseError
from django.db.models import Count, Sum
from django.utils import timezone

from delivery import tenure
from delivery.models import Attempt, AttemptTally, Delivery, Event, EventTally, StreamHost
from delivery.outbox import Outbox, Progress
from delivery.replay import replay
from delivery.sources.incoming import Incoming
from tests.builders import make_endpoint, make_incoming, make_source, make_subscription
from tests.draining import LANE, drain_all
from tests.receiver import Handler, Received, Receiver

pytestmark = pytest.mark.django_db(transaction=True)

LIKE = "app.bsky.feed.like"


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "LINGER_S", 0.05)


def assert_all_is_accounted_for() -> None:
    counts = EventTally.objects.aggregate(**{name: Sum(name) for name in ("received", "stored", "duplicate", "unmatched", "invalid")})
    assert counts["received"] == counts["stored"] + counts["duplicate"] + counts["unmatched"] + counts["invalid"]
    assert counts["stored"] == Event.objects.count()
    states = dict(Delivery.objects.values_list("state").annotate(Count("id")).order_by())
    assert sum(states.get(state.value, 0) for state in Delivery.State) == Delivery.objects.count()
    attempts = AttemptTally.objects.aggregate(attempts=Sum("attempts"))["attempts"] or 0
    assert attempts == Attempt.objects.count() == Delivery.objects.aggregate(made=Sum("attempt_count"))["made"]
    for tally in AttemptTally.objects.all():
        assert sum(tally.buckets().values()) == tally.attempts


def fail_every_third(handler: Handler, received: Received) -> None:
    handler.reply(200 if json.loads(received.body)["n"] % 3 else 500)


def test_it_accounts_for_a_mixture(receiver: Receiver) -> None:
    source = make_source()
    everything = make_endpoint(url=receiver.url, shard=LANE, retry_schedule_s=[])
    likes = make_endpoint(url=receiver.url, shard=LANE, retry_schedule_s=[3600])
    held = make_endpoint(url=receiver.url, shard=LANE, state="paused")
    make_subscription(endpoint=everything, source=source, collections=["app.bsky.feed.*"])
    make_subscription(endpoint=likes, source=source, collections=[LIKE])
    make_subscription(endpoint=held, source=source, collections=[LIKE])
    outbox = Outbox(source)
    receiver.answer = fail_every_third

    def incoming(number: int, type: str) -> Incoming:
        return make_incoming(type=type, body=b'{"n":%d}' % number)

    wanted = [incoming(number, LIKE if number % 2 else "app.bsky.feed.post") for number in range(60)]
    unwanted = [incoming(number, "app.bsky.graph.follow") for number in range(20)]
    first = outbox.publish([*wanted[:40], *unwanted[:5], *wanted[:10]], rejected=3)
    assert first == (58, 40, 10, 5, 3)
    drain_all()
    assert_all_is_accounted_for()

    second = outbox.publish([*wanted[30:], *unwanted], rejected=1)
    assert second == (51, 20, 10, 20, 1)
    assert outbox.publish([]) == (0, 0, 0, 0, 0)
    assert outbox.publish([], rejected=2) == (2, 0, 0, 0, 2)
    drain_all()
    assert_all_is_accounted_for()

    states = Delivery.objects.order_by().values_list("endpoint", "state").annotate(Count("id"))
    thirds, odd_thirds = 20, 10
    assert {(endpoint, Delivery.State(state).label): count for endpoint, state, count in states} == {
        (everything.id, "delivered"): 60 - thirds,
        (everything.id, "dead"): thirds,
        (likes.id, "delivered"): 30 - odd_thirds,
        (likes.id, "pending"): odd_thirds,
        (held.id, "pending"): 30,
    }
    assert len(receiver.requests) == 90

    Delivery.objects.filter(endpoint=held).update(state=Delivery.State.CANCELLED, settled_at=timezone.now())
    receiver.answer = lambda handler, _: handler.reply(200)
    assert replay(Delivery.objects.dead().values_list("id", flat=True)) == thirds
    Delivery.objects.pending().update(due_at=timezone.now() - timedelta(seconds=1))
    drain_all()
    assert_all_is_accounted_for()
    totals = dict(Delivery.objects.order_by().values_list("state").annotate(Count("id")))
    assert totals == {Delivery.State.DELIVERED: 90, Delivery.State.CANCELLED: 30}


def test_it_counts_what_is_unmatched_and_kept_as_stored() -> None:
    outbox = Outbox(make_source(keep_unmatched=True))
    event = make_incoming()
    assert outbox.publish([event, event, make_incoming()]) == (3, 2, 1, 0, 0)
    assert (Event.objects.count(), Delivery.objects.count()) == (2, 0)
    assert EventTally.objects.aggregate(stored=Sum("stored"), duplicate=Sum("duplicate")) == {"stored": 2, "duplicate": 1}


def test_it_counts_nothing_of_a_batch_that_was_rolled_back() -> None:
    source = make_source(keep_unmatched=True)
    cursor = StreamHost.objects.create(source=source, host="wss://stream.example")
    with pytest.raises((DatabaseError, OverflowError)):
        Outbox(source).publish([make_incoming()], [Progress(cursor.id, 2**64)])
    assert (Event.objects.count(), EventTally.objects.count()) == (0, 0)
    assert Outbox(source).publish([make_incoming()], [Progress(cursor.id, 2**62)]).stored == 1
