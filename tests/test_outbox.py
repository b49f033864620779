"""The outbox: what one transaction stores, counts and owes, and whom it wakes."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from queue import Empty
from typing import Any
from uuid import UUID

import pytest
from celery import current_app
from django.db import DataError, connection
from django.test.utils import CaptureQueriesContext

from delivery import outbox as module
from delivery.engines.base import EventCounts
from delivery.leases import Holding, lane_lease
from delivery.models import Delivery, Event, EventTally, StreamHost
from delivery.outbox import Outbox, Progress
from delivery.sources.incoming import Incoming
from delivery.wakes import Waker
from subscriptions.models import ConfigVersion, Endpoint, Source
from tests.builders import DID, POST, make_endpoint, make_incoming, make_source, make_subscription
from tests.threads import Elsewhere, patiently

pytestmark = pytest.mark.django_db(transaction=True)

LIKE = "app.bsky.feed.like"


def make_cursor(**over: Any) -> StreamHost:
    return StreamHost.objects.create(**{"source": make_source(), "host": "wss://host.example/subscribe", "cursor": 5} | over)


def many(count: int, **over: Any) -> list[Incoming]:
    return [make_incoming(**over) for _ in range(count)]


def tallies() -> list[tuple[str, str, int, int, int, int, int]]:
    return list(EventTally.objects.order_by("kind", "type").values_list("kind", "type", "received", "stored", "duplicate", "unmatched", "invalid"))


def owed() -> set[tuple[UUID, UUID]]:
    return set(Delivery.objects.values_list("event_id", "endpoint_id"))


# --- Storing -----------------------------------------------------------------------------------------------------------


def test_it_stores_an_event_as_it_came() -> None:
    make_subscription()
    incoming = make_incoming(origin="wss://host.example/subscribe", body=b'{"odd" :  "\xf0\x9f\x91\xa9"}\r', cursor=77, time_us=1_780_000_000_123_456)
    before = datetime.now(UTC)
    assert Outbox(make_source()).publish([incoming]) == EventCounts(1, 1, 0, 0, 0)
    event = Event.objects.get()
    assert (bytes(event.body), bytes(event.dedup_key)) == (incoming.body, incoming.dedup_key)
    assert (event.kind, event.type, event.operation, event.subject) == ("commit", POST, "create", DID)
    assert (event.origin, event.origin_cursor, event.source) == ("wss://host.example/subscribe", 77, make_source())
    assert event.occurred_at == datetime(2026, 5, 28, 20, 26, 40, 123456, tzinfo=UTC)
    assert before <= event.received_at <= datetime.now(UTC)


def test_it_owes_a_delivery_that_is_due_at_once() -> None:
    endpoint = make_subscription().endpoint
    Outbox(make_source()).publish([make_incoming()])
    delivery = Delivery.objects.get()
    assert (delivery.event, delivery.endpoint, delivery.state) == (Event.objects.get(), endpoint, Delivery.State.PENDING)
    assert (delivery.attempt_count, delivery.tries, delivery.last_status, delivery.last_error, delivery.settled_at) == (0, 0, None, "", None)
    assert list(Delivery.objects.due(datetime.now(UTC))) == [delivery]


def test_it_numbers_events_and_deliveries_in_the_order_of_the_stream() -> None:
    first, second = make_subscription().endpoint, make_subscription().endpoint
    outbox = Outbox(make_source())
    batches = [many(50), many(50)]
    for batch in batches:
        outbox.publish(batch)
    bodies = [event.body for batch in batches for event in batch]
    assert [bytes(event.body) for event in Event.objects.order_by("id")] == bodies
    for endpoint in (first, second):
        mine = Delivery.objects.filter(endpoint=endpoint).order_by("id").select_related("event")
        assert [bytes(delivery.event.body) for delivery in mine] == bodies


def test_it_keeps_times_that_no_calendar_has() -> None:
    make_subscription()
    Outbox(make_source()).publish([make_incoming(time_us=0), make_incoming(time_us=2**63 - 1)])
    assert [event.occurred_at.year for event in Event.objects.order_by("id")] == [1970, 9999]


def test_it_stores_nothing_of_nothing() -> None:
    assert Outbox(make_source()).publish([]) == EventCounts(0, 0, 0, 0, 0)
    assert not EventTally.objects.exists()


# --- Duplicates --------------------------------------------------------------------------------------------------------


def test_it_stores_a_duplicate_inside_a_batch_once() -> None:
    make_subscription()
    event = make_incoming()
    copy = make_incoming(dedup_key=event.dedup_key, time_us=event.time_us + 9)
    assert Outbox(make_source()).publish([event, make_incoming(), copy, event]) == EventCounts(4, 2, 2, 0, 0)
    assert Event.objects.count() == Delivery.objects.count() == 2
    assert bytes(Event.objects.order_by("id")[0].body) == event.body


def test_it_stores_a_duplicate_of_an_earlier_batch_once() -> None:
    make_subscription()
    batch = many(20)
    assert Outbox(make_source()).publish(batch) == EventCounts(20, 20, 0, 0, 0)
    assert Outbox(make_source()).publish([*batch[10:], *many(5)]) == EventCounts(15, 5, 10, 0, 0)
    assert Event.objects.count() == Delivery.objects.count() == 25


def test_it_owes_nothing_again_for_an_event_that_was_settled() -> None:
    make_subscription()
    event = make_incoming()
    Outbox(make_source()).publish([event])
    Delivery.objects.update(state=Delivery.State.DELIVERED)
    make_subscription()
    assert Outbox(make_source()).publish([event]).duplicate == 1
    assert [delivery.state for delivery in Delivery.objects.all()] == [Delivery.State.DELIVERED]


def test_it_tells_the_events_of_two_sources_apart() -> None:
    other = Source.objects.create(kind=Source.Kind.API, name="Other")
    make_subscription()
    make_subscription(source=other)
    event = make_incoming()
    assert Outbox(make_source()).publish([event]).stored == 1
    assert Outbox(other).publish([event]).stored == 1


def test_it_stores_once_what_two_publish_at_the_same_time() -> None:
    make_subscription()
    batches = [many(25) for _ in range(8)]

    def publish() -> int:
        outbox = Outbox(make_source())
        return sum(patiently(lambda batch=batch: outbox.publish(batch)).stored for batch in batches)  # type: ignore[misc]

    both = [Elsewhere(publish), Elsewhere(publish)]
    assert sum(each.result() for each in both) == 200
    assert Event.objects.count() == Delivery.objects.count() == 200


# --- Matching ----------------------------------------------------------------------------------------------------------


def test_it_does_not_store_what_nobody_wants() -> None:
    make_subscription(collections=[LIKE])
    assert Outbox(make_source()).publish([make_incoming(type=LIKE), *many(3)]) == EventCounts(4, 1, 0, 3, 0)
    assert Event.objects.get().type == LIKE


def test_it_stores_what_nobody_wants_where_the_source_keeps_everything() -> None:
    source = make_source()
    source.keep_unmatched = True
    source.save()
    assert Outbox(source).publish(many(3)) == EventCounts(3, 3, 0, 0, 0)
    assert not Delivery.objects.exists()


def test_it_owes_an_endpoint_one_delivery_however_many_subscriptions_match() -> None:
    endpoint = make_endpoint()
    make_subscription(endpoint=endpoint)
    make_subscription(endpoint=endpoint, collections=[POST], dids=[DID])
    Outbox(make_source()).publish([make_incoming()])
    assert Delivery.objects.get().endpoint == endpoint


def test_it_owes_every_endpoint_what_it_wants_and_nothing_else() -> None:
    posts, likes, both = make_endpoint(), make_endpoint(), make_endpoint()
    make_subscription(endpoint=posts, collections=[POST])
    make_subscription(endpoint=likes, collections=[LIKE])
    make_subscription(endpoint=both, collections=["app.bsky.feed.*"])
    make_subscription(collections=["*"], active=False)
    Outbox(make_source()).publish([make_incoming(), make_incoming(type=LIKE), make_incoming(type="app.bsky.graph.follow")])
    post, like = Event.objects.order_by("id")
    assert owed() == {(post.id, posts.id), (post.id, both.id), (like.id, likes.id), (like.id, both.id)}


@pytest.mark.parametrize("state", [Endpoint.State.PAUSED, Endpoint.State.DISABLED])
def test_it_owes_endpoints_that_are_held_too(state: str) -> None:
    endpoint = make_subscription(endpoint=make_endpoint(state=state)).endpoint
    Outbox(make_source()).publish([make_incoming()])
    assert Delivery.objects.pending().get().endpoint == endpoint


def test_it_leaves_other_sources_alone() -> None:
    other = Source.objects.create(kind=Source.Kind.API, name="Other")
    make_subscription(source=other, kinds=["commit"])
    assert Outbox(make_source()).publish([make_incoming()]) == EventCounts(1, 0, 0, 1, 0)


def test_it_sees_a_subscription_made_since_the_last_batch() -> None:
    outbox = Outbox(make_source())
    assert outbox.publish(many(1)).unmatched == 1
    subscription = make_subscription()
    assert outbox.publish(many(1)).stored == 1
    subscription.active = False
    subscription.save()
    assert outbox.publish(many(1)).unmatched == 1


def test_it_reads_the_subscriptions_only_when_they_changed() -> None:
    make_subscription()
    outbox = Outbox(make_source())
    outbox.publish(many(1))
    with CaptureQueriesContext(connection) as queries:
        outbox.publish(many(1))
    assert not [query for query in queries if "subscriptions_subscription" in query["sql"]]
    ConfigVersion.bump()
    with CaptureQueriesContext(connection) as queries:
        outbox.publish(many(1))
    assert [query for query in queries if "subscriptions_subscription" in query["sql"]]


# --- Copies from several hosts -----------------------------------------------------------------------------------------


def test_where_many_share_a_source_compiling_is_followed_by_a_rest() -> None:
    """Somebody who changes subscriptions all the time must not have everybody's compiled all the time."""
    outbox = Outbox(make_source(), rest_factor=1e6)
    outbox.publish([make_incoming()])
    for _ in range(5):
        make_subscription(source=outbox.source, collections=["*"])
        ConfigVersion.bump()
        assert not outbox.compiled.refresh()
    outbox.compiled.rest_until = 0.0
    assert outbox.compiled.refresh()
    assert len(outbox.compiled.shards) == 5


def test_it_knows_what_it_has_stored_without_asking() -> None:
    make_subscription(collections=[POST])
    outbox, batch, unwanted = Outbox(make_source()), many(3), make_incoming(type=LIKE)
    outbox.publish([*batch, unwanted])
    assert [outbox.has_stored(event.dedup_key) for event in [*batch, unwanted]] == [True, True, True, False]
    with CaptureQueriesContext(connection) as queries:
        assert outbox.publish(batch) == EventCounts(3, 0, 3, 0, 0)
    assert not [query for query in queries if "delivery_event " in query["sql"]]


def test_it_stores_a_later_copy_of_what_was_not_wanted_before() -> None:
    outbox, event = Outbox(make_source()), make_incoming(type=LIKE)
    make_subscription(collections=[POST])
    assert outbox.publish([event]).unmatched == 1
    make_subscription(collections=[LIKE])
    assert outbox.publish([event]) == EventCounts(1, 1, 0, 0, 0)


def test_it_remembers_nothing_of_a_batch_that_was_rolled_back() -> None:
    make_subscription()
    outbox, batch = Outbox(make_source()), many(2)
    with pytest.raises((DataError, OverflowError)):
        outbox.publish(batch, [Progress(make_cursor().pk, 2**63)])
    assert not any(outbox.has_stored(event.dedup_key) for event in batch)
    assert outbox.publish(batch) == EventCounts(2, 2, 0, 0, 0)


def test_it_forgets_the_oldest_and_still_stores_nothing_twice() -> None:
    make_subscription()
    outbox, batch = Outbox(make_source(), remembered=3), many(5)
    outbox.publish(batch)
    assert [outbox.has_stored(event.dedup_key) for event in batch] == [False, False, True, True, True]
    assert outbox.publish(batch) == EventCounts(5, 0, 5, 0, 0)


def test_it_moves_the_cursor_of_every_host() -> None:
    make_subscription()
    first = make_cursor()
    second = StreamHost.objects.create(source=make_source(), host="wss://other.example")
    Outbox(make_source()).publish(many(1), [Progress(first.pk, 7), Progress(second.pk, 8)])
    assert dict(StreamHost.objects.values_list("pk", "cursor")) == {first.pk: 7, second.pk: 8}


# --- Counting ----------------------------------------------------------------------------------------------------------


def test_it_counts_by_kind_and_type() -> None:
    make_subscription(collections=[POST])
    twice = make_incoming()
    batch = [twice, twice, make_incoming(), make_incoming(type=LIKE), make_incoming(kind="identity", type="identity", operation="")]
    assert Outbox(make_source()).publish(batch, rejected=4) == EventCounts(9, 2, 1, 2, 4)
    assert tallies() == [
        ("", "", 4, 0, 0, 0, 4),
        ("commit", LIKE, 1, 0, 0, 1, 0),
        ("commit", POST, 3, 2, 1, 0, 0),
        ("identity", "identity", 1, 0, 0, 1, 0),
    ]


def test_it_adds_up_the_batches_of_a_minute() -> None:
    outbox = Outbox(make_source())
    for _ in range(3):
        outbox.publish(many(2), rejected=1)
    totals: dict[str, int] = {}
    for kind, _, received, *_, invalid in tallies():
        totals[kind] = totals.get(kind, 0) + received
        assert invalid in (0, received)
    assert totals == {"": 3, "commit": 6}


def test_it_accounts_for_everything_in_any_mixture() -> None:
    choices = random.Random(7)
    make_subscription(collections=[POST])
    outbox, seen = Outbox(make_source()), many(5)
    total = EventCounts(0, 0, 0, 0, 0)
    for _ in range(20):
        batch = [choices.choice([make_incoming(), make_incoming(type=LIKE), choice]) for choice in choices.choices(seen, k=10)]
        seen += batch[:3]
        total = EventCounts(*map(sum, zip(total, outbox.publish(batch, rejected=choices.randrange(3)), strict=True)))
    assert total.received == total.stored + total.duplicate + total.unmatched + total.invalid
    assert total.stored == Event.objects.count() == Delivery.objects.count()
    assert EventCounts(*(sum(column) for column in zip(*(row[2:] for row in tallies()), strict=True))) == total


# --- The cursor --------------------------------------------------------------------------------------------------------


def test_it_moves_the_cursor_with_the_events() -> None:
    make_subscription()
    row, newest = make_cursor(), datetime(2026, 5, 28, tzinfo=UTC)
    Outbox(make_source()).publish(many(2), [Progress(row.pk, 99, last_event_at=newest)])
    row.refresh_from_db()
    assert (row.cursor, row.last_event_at) == (99, newest)
    assert row.cursor_saved_at is not None


def test_it_keeps_what_it_was_not_told() -> None:
    row = make_cursor(last_event_at=datetime(2026, 5, 28, tzinfo=UTC))
    Outbox(make_source()).publish([], [Progress(row.pk, None)], rejected=1)
    row.refresh_from_db()
    assert (row.cursor, row.last_event_at) == (5, datetime(2026, 5, 28, tzinfo=UTC))


def test_it_stores_nothing_when_the_cursor_cannot_move() -> None:
    make_subscription()
    row, batch, outbox = make_cursor(), many(3), Outbox(make_source())
    with pytest.raises((DataError, OverflowError)):
        outbox.publish(batch, [Progress(row.pk, 2**63)])
    row.refresh_from_db()
    assert row.cursor == 5
    assert not Event.objects.exists()
    assert not Delivery.objects.exists()
    assert not EventTally.objects.exists()
    assert outbox.publish(batch, [Progress(row.pk, 6)]) == EventCounts(3, 3, 0, 0, 0)


def test_it_moves_no_cursor_when_an_event_cannot_be_stored() -> None:
    make_subscription()
    row = make_cursor()
    with pytest.raises((DataError, OverflowError)):
        Outbox(make_source()).publish([*many(2), make_incoming(cursor=2**63)], [Progress(row.pk, 9)])
    row.refresh_from_db()
    assert row.cursor == 5
    assert not Event.objects.exists()


# --- Wakes -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The queue of wakes, empty, and a waker that has sent none."""
    monkeypatch.setattr(module, "waker", Waker())
    with current_app.connection_for_read() as broker:
        queue = broker.SimpleQueue("lanes")
        queue.clear()
        yield queue
        queue.close()


def woken(queue: Any) -> int:
    """The lane of the next wake."""
    message = queue.get(timeout=20)
    message.ack()
    assert message.headers["task"] == "delivery.drain"
    ((lane,), _, _) = message.payload
    return int(lane)


def test_it_wakes_the_lanes_that_have_work_and_no_owner(lanes: Any) -> None:
    for shard in (0, 1, 2, 10):
        make_subscription(endpoint=make_endpoint(shard=shard))
    make_subscription(endpoint=make_endpoint(shard=3), collections=[LIKE])
    assert Holding(lane_lease(1), 60).take()
    Outbox(make_source()).publish(many(5))
    assert [woken(lanes), woken(lanes)] == [0, 2]
    with pytest.raises(Empty):
        lanes.get(block=False)


def test_it_wakes_nobody_for_what_is_not_owed(lanes: Any) -> None:
    make_subscription(endpoint=make_endpoint(shard=1))
    make_subscription(endpoint=make_endpoint(shard=5), collections=[LIKE])
    event, outbox = make_incoming(type="app.bsky.graph.follow"), Outbox(make_source())
    owner = Holding(lane_lease(1), 60)
    assert owner.take()
    outbox.publish([event])
    owner.release()
    assert outbox.publish([event], rejected=1).duplicate == 1
    assert Holding(lane_lease(1), 60).take()
    outbox.publish([make_incoming(type=LIKE)])
    # A wake for the duplicate would stand before this one.
    assert woken(lanes) == 5


def test_it_wakes_nobody_when_nothing_was_stored(lanes: Any) -> None:
    make_subscription(endpoint=make_endpoint(shard=1), collections=[POST])
    make_subscription(endpoint=make_endpoint(shard=5), collections=[LIKE])
    outbox, row = Outbox(make_source()), make_cursor()
    with pytest.raises((DataError, OverflowError)):
        outbox.publish(many(1), [Progress(row.pk, 2**63)])
    outbox.publish([make_incoming(type=LIKE)])
    assert woken(lanes) == 5


# --- batches that owe very much ------------------------------------------------------------------------------------


class CountedOutbox(Outbox):
    """Remembers how many deliveries each of its transactions made, and fails before the one it is told to."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.owed: list[int] = []
        self.fails_at = -1

    def _store(self, batch: Sequence[Incoming], *args: Any, **kwargs: Any) -> EventCounts:
        if len(self.owed) == self.fails_at:
            raise DataError("no")
        before = Delivery.objects.count()
        counts = super()._store(batch, *args, **kwargs)
        self.owed.append(Delivery.objects.count() - before)
        return counts


def make_wide_outbox(monkeypatch: pytest.MonkeyPatch, endpoints: int = 6) -> CountedOutbox:
    monkeypatch.setattr(module, "MAX_OWED", 20)
    source = make_source()
    for _ in range(endpoints):
        make_subscription(source=source, collections=["*"])
    return CountedOutbox(source)


def test_it_stores_what_owes_very_much_in_transactions_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = make_wide_outbox(monkeypatch)
    host = make_cursor(source=outbox.source)
    batch = many(11)
    counts = outbox.publish(batch, [Progress(host.pk, 77)], rejected=2)
    assert outbox.owed == [18, 18, 18, 12]
    assert counts == EventCounts(13, 11, 0, 0, 2)
    assert outbox.inserted.keys() == {event.dedup_key for event in batch}
    host.refresh_from_db()
    assert host.cursor == 77


def test_an_event_that_owes_more_than_that_is_stored_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = make_wide_outbox(monkeypatch, endpoints=25)
    outbox.publish(many(3))
    assert outbox.owed == [25, 25, 25]


def test_a_crash_between_such_transactions_loses_and_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = make_wide_outbox(monkeypatch)
    host = make_cursor(source=outbox.source)
    batch = many(11)
    outbox.fails_at = 2
    with pytest.raises(DataError):
        outbox.publish(batch, [Progress(host.pk, 77)])
    host.refresh_from_db()
    assert host.cursor != 77
    assert Event.objects.count() == 6
    again = Outbox(outbox.source)
    assert again.publish(batch, [Progress(host.pk, 77)]) == EventCounts(11, 5, 6, 0, 0)
    assert Delivery.objects.count() == 11 * 6
    host.refresh_from_db()
    assert host.cursor == 77
