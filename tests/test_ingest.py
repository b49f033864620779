"""Events over HTTP into the outbox: who comes together shares a transaction, and nobody's fault is another's."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, InterfaceError, OperationalError, connection, connections
from pytest_django import DjangoAssertNumQueries

from delivery import ingest, throttle
from delivery.engines.base import EventCounts
from delivery.ingest import Accepted, GroupCommit, NotStored, OneByOne, Posted, Publisher, store
from delivery.models import Delivery, Event, EventTally
from delivery.outbox import Outbox
from delivery.sources.incoming import Incoming
from delivery.throttle import Cost
from jetrelay.away import is_demoted
from subscriptions.ids import new_id
from subscriptions.models import Source
from tests.builders import make_api_source, make_posted, make_subscription, make_tenant
from tests.threads import Elsewhere

# What the committer stores it stores on a connection of its own.
committed = pytest.mark.django_db(transaction=True)
in_this_transaction = pytest.mark.django_db

Fault = Callable[[Sequence[Incoming]], Exception | None]


class WatchedOutbox(Outbox):
    """Remembers its transactions, waits before the first one until it is let, and fails where it is told to."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.sizes: list[int] = []
        self.entered, self.let = threading.Event(), threading.Event()
        self.fault: Fault = lambda _: None

    def publish(self, batch: Sequence[Incoming], *args: Any, **kwargs: Any) -> EventCounts:
        self.entered.set()
        assert self.let.wait(30)
        self.sizes.append(len(batch))
        if error := self.fault(batch):
            raise error
        return super().publish(batch, *args, **kwargs)


class Committer(GroupCommit):
    """A committer whose outboxes are watched. `end` closes its thread's connection."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Any] = []

    def watch(self, source: Source) -> WatchedOutbox:
        outbox = self._outboxes[source.pk] = WatchedOutbox(source)
        return outbox

    def waiting(self) -> int:
        with self._something:
            return sum(len([order for order in queue if not order.taken]) for queue in self._queues.values())

    def _commit(self, parts: Any) -> None:
        if connection not in self.connections:
            self.connections.append(connections["default"])
        super()._commit(parts)


def id_in(posted: Posted) -> UUID:
    assert posted.event.id
    return posted.event.id


@pytest.fixture
def committer() -> Iterator[Committer]:
    """Its thread cannot be ended: that it holds no connection any more has to do."""
    committer = Committer()
    yield committer
    for each in committer.connections:
        each.inc_thread_sharing()
        each.close()


def publish_together(committer: Committer, outbox: WatchedOutbox, orders: Sequence[Sequence[Posted]]) -> list[Elsewhere[list[Accepted]]]:
    """One call that is under way, and all the others behind it; then let them go."""
    calls: list[Elsewhere[list[Accepted]]] = []
    for number, order in enumerate(orders):
        calls.append(Elsewhere(lambda order=order: committer.publish(outbox.source, order)))  # type: ignore[misc]
        if number == 0:
            assert outbox.entered.wait(30)
        else:
            while committer.waiting() < number:
                threading.Event().wait(0.001)
    outbox.let.set()
    return calls


@committed
def test_those_that_come_meanwhile_share_one_transaction(committer: Committer) -> None:
    source = make_api_source()
    endpoint = make_subscription(source=source, kinds=["api"]).endpoint
    outbox = committer.watch(source)
    orders = [[make_posted()] for _ in range(6)] + [[make_posted(), make_posted()]]
    calls = publish_together(committer, outbox, orders)
    for call, order in zip(calls, orders, strict=True):
        assert [(accepted.id, accepted.deliveries, accepted.duplicate) for accepted in call.result()] == [(each.event.id, 1, False) for each in order]
    assert outbox.sizes == [1, 7]
    assert Delivery.objects.filter(endpoint=endpoint).count() == Event.objects.count() == 8


@committed
def test_a_group_ends_at_what_one_batch_holds(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_BATCH", 4)
    outbox = committer.watch(make_api_source())
    orders = [[make_posted() for _ in range(size)] for size in (1, 2, 2, 1, 6, 1)]
    for order, call in zip(orders, publish_together(committer, outbox, orders), strict=True):
        assert [accepted.id for accepted in call.result()] == [each.event.id for each in order]
    # An order goes into as many transactions as it needs.
    assert outbox.sizes == [1, 4, 4, 4]


@committed
def test_a_transaction_ends_at_so_many_deliveries(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_OWED", 60)
    source = make_api_source()
    for _ in range(25):
        make_subscription(source=source, kinds=["api"])
    outbox = committer.watch(source)
    orders = [[make_posted()], [make_posted() for _ in range(5)], [make_posted()]]
    calls = publish_together(committer, outbox, orders)
    assert [len(call.result()) for call in calls] == [1, 5, 1]
    assert outbox.sizes == [1, 2, 2, 2]
    assert Delivery.objects.count() == 7 * 25


@committed
def test_a_transaction_ends_at_so_many_bytes_and_takes_one_event_of_any_size(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = committer.watch(make_api_source())
    batch = [make_posted(data="x" * size) for size in (1, 200, 200, 200, 9000, 1)]
    monkeypatch.setattr(ingest, "MAX_BYTES", sum(len(each.event.body) for each in batch[:4]))
    orders = [[make_posted()], batch]
    for call in publish_together(committer, outbox, orders):
        call.result()
    assert outbox.sizes == [1, 4, 1, 1]


@committed
def test_another_tenant_waits_for_one_turn_of_a_batch(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_BATCH", 2)
    sources = [make_api_source(tenant=make_tenant(slug=slug)) for slug in ("greedy", "other")]
    greedy, other = [committer.watch(source) for source in sources]
    other.let.set()
    batch = Elsewhere(lambda: committer.publish(greedy.source, [make_posted() for _ in range(40)]))
    assert greedy.entered.wait(30)
    small = Elsewhere(lambda: committer.publish(other.source, [make_posted()]))
    while committer.waiting() < 1:
        threading.Event().wait(0.001)
    seen = list[int]()

    def look(_: Sequence[Incoming]) -> None:
        seen.append(Event.objects.filter(source=other.source).count())

    greedy.fault = look
    greedy.let.set()
    assert len(small.result()) == 1
    assert len(batch.result()) == 40
    # It came while the first turn of the batch was under way, and was stored after the second at the latest.
    assert len(seen) == len(greedy.sizes) == 21
    assert seen[2:] == [1] * 19


@committed
def test_a_busy_tenants_transactions_are_small_beside_somebody_who_posts_little(committer: Committer) -> None:
    source = make_api_source(tenant=make_tenant(slug="busy"))
    outbox = committer.watch(source)
    ingest.posting.worked(str(source.tenant_id), 100.0)
    ingest.posting.came("modest")
    # Of the next rows each takes a millisecond, as it has learned.
    committer._rows = Cost(0.001, memory=1_000_000)
    calls = publish_together(committer, outbox, [[make_posted()], [make_posted() for _ in range(3)]])
    assert [len(call.result()) for call in calls] == [1, 3]
    assert outbox.sizes == [1, 1, 1, 1]


@committed
def test_a_busy_tenant_rests_and_others_do_not_wait_for_that(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, modest = [committer.watch(make_api_source(tenant=make_tenant(slug=slug))) for slug in ("busy", "modest")]
    for outbox in (busy, modest):
        outbox.let.set()
    for name in ("REST_FACTOR", "MOST_REST_S"):
        monkeypatch.setattr(throttle, name, 3600.0)
    ingest.posting.came(str(modest.source.tenant_id))
    ingest.posting.worked(str(busy.source.tenant_id), 1.0)
    waiting = Elsewhere(lambda: committer.publish(busy.source, [make_posted()]))
    for _ in range(3):
        committer.publish(modest.source, [make_posted()])
    assert not busy.sizes, "it rests"
    ingest.posting.forget()
    committer.publish(modest.source, [make_posted()])
    assert len(waiting.result()) == 1


@committed
def test_many_sources_of_a_tenant_are_no_more_turns(committer: Committer) -> None:
    greedy, other = make_tenant(slug="greedy"), make_tenant(slug="other")
    sources = [make_api_source(tenant=greedy, name=f"{number}") for number in range(8)]
    theirs = make_api_source(tenant=other)
    seen = list[int]()

    def look(_: Sequence[Incoming]) -> None:
        seen.append(Event.objects.filter(source=theirs).count())

    outboxes = [committer.watch(source) for source in sources]
    for outbox in outboxes:
        outbox.fault = look
    for outbox in (*outboxes[1:], committer.watch(theirs)):
        outbox.let.set()
    calls = [Elsewhere(lambda: committer.publish(sources[0], [make_posted()]))]
    assert outboxes[0].entered.wait(30)
    for number, source in enumerate([*sources[1:], theirs], 1):
        calls.append(Elsewhere(lambda source=source: committer.publish(source, [make_posted()])))  # type: ignore[misc]
        while committer.waiting() < number:
            threading.Event().wait(0.001)
    outboxes[0].let.set()
    assert [len(call.result()) for call in calls] == [1] * 9
    # The first was under way; one more of the greedy tenant's may come before the other's.
    assert seen.count(0) <= 2


@committed
def test_what_nobody_waits_for_any_more_is_left(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_BATCH", 2)
    monkeypatch.setattr(ingest, "PATIENCE_S", 0.05)
    outbox = committer.watch(make_api_source())
    with pytest.raises(NotStored, match="has not answered"):
        committer.publish(outbox.source, [make_posted() for _ in range(40)])
    monkeypatch.setattr(ingest, "PATIENCE_S", 30)
    outbox.let.set()
    assert len(committer.publish(outbox.source, [make_posted()])) == 1
    # What was under way when the caller gave up, and the new one.
    assert outbox.sizes == [1, 1]


@committed
def test_each_source_has_its_own_transaction(committer: Committer) -> None:
    sources = [make_api_source(), make_api_source(name="another")]
    outboxes = [committer.watch(source) for source in sources]
    outboxes[1].let.set()
    first = Elsewhere(lambda: committer.publish(sources[0], [make_posted()]))
    assert outboxes[0].entered.wait(30)
    rest = [Elsewhere(lambda source=source: committer.publish(source, [make_posted(id="o-1")])) for source in sources]  # type: ignore[misc]
    while committer.waiting() < 2:
        threading.Event().wait(0.001)
    outboxes[0].let.set()
    assert [call.result()[0].duplicate for call in (first, *rest)] == [False] * 3
    assert sorted(Event.objects.values_list("source", flat=True)) == sorted([sources[0].pk, *(source.pk for source in sources)])


@committed
def test_one_that_the_database_refuses_is_refused_alone(committer: Committer) -> None:
    outbox = committer.watch(make_api_source())
    outbox.fault = lambda batch: DataError("no") if any(event.subject == "bad" for event in batch) else None
    orders = [[make_posted()], [make_posted()], [make_posted(subject="bad")], [make_posted()]]
    calls = publish_together(committer, outbox, orders)
    for number, call in enumerate(calls):
        if number == 2:
            with pytest.raises(NotStored):
                call.result()
        else:
            assert call.result()[0].id == orders[number][0].event.id
    assert Event.objects.count() == 3
    assert outbox.sizes == [1, 3, 1, 1, 1]


@committed
def test_a_source_whose_tenant_is_gone_costs_nobody_else_an_event(committer: Committer) -> None:
    source = make_api_source()
    gone = Source(tenant_id=new_id(), kind=Source.Kind.API, name="gone")
    with pytest.raises(NotStored):
        committer.publish(gone, [make_posted()])
    assert committer.publish(source, [make_posted()])[0].stored


@committed
def test_it_does_not_try_one_by_one_what_fails_for_all(committer: Committer) -> None:
    outbox = committer.watch(make_api_source())
    outbox.fault = lambda batch: OperationalError("gone") if len(outbox.sizes) > 1 else None
    calls = publish_together(committer, outbox, [[make_posted()] for _ in range(4)])
    calls[0].result()
    for call in calls[1:]:
        with pytest.raises(NotStored):
            call.result()
    # The group, and once more on a new connection.
    assert outbox.sizes == [1, 3, 3]
    outbox.fault = lambda _: None
    assert not committer.publish(outbox.source, [make_posted()])[0].duplicate


@committed
def test_whoever_waits_too_long_hears_that_nothing_is_sure(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "PATIENCE_S", 0.05)
    outbox = committer.watch(make_api_source())
    with pytest.raises(NotStored, match="has not answered"):
        committer.publish(outbox.source, [make_posted(id="o-1")])
    monkeypatch.undo()
    outbox.let.set()
    # It was stored all the same: whoever sends it again learns that.
    assert committer.publish(outbox.source, [make_posted(id="o-1")])[0].duplicate
    assert Event.objects.count() == 1


@committed
@pytest.mark.parametrize("error", [OperationalError("server closed the connection"), InterfaceError("connection already closed")])
@pytest.mark.parametrize("kind", ["group", "one by one"])
def test_it_tries_once_more_on_a_new_connection(kind: str, error: Exception, committer: Committer) -> None:
    outbox = committer.watch(make_api_source())
    outbox.let.set()
    one_by_one = OneByOne()
    one_by_one._local.outboxes = {outbox.source.pk: outbox}
    publisher: Publisher = committer if kind == "group" else one_by_one
    outbox.fault = lambda _: error if len(outbox.sizes) == 1 else None
    assert not publisher.publish(outbox.source, [make_posted()])[0].duplicate
    assert (outbox.sizes, Event.objects.count()) == ([1, 1], 1)


@pytest.mark.postgresql
@committed
def test_a_server_that_was_started_again_costs_no_request(committer: Committer) -> None:
    outbox = committer.watch(make_api_source())
    outbox.let.set()
    committer.publish(outbox.source, [make_posted()])
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [committer.connections[0].connection.info.backend_pid])
    assert not committer.publish(outbox.source, [make_posted()])[0].duplicate
    assert Event.objects.count() == 2


@pytest.mark.postgresql
@committed
def test_a_session_that_may_only_read_by_now_costs_no_request(committer: Committer) -> None:
    """As after a switchover to another server: a new session is one with the primary."""
    outbox = committer.watch(make_api_source())
    outbox.let.set()
    committer.publish(outbox.source, [make_posted()])
    committer.connections[0].connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    assert not committer.publish(outbox.source, [make_posted()])[0].duplicate
    assert (outbox.sizes, Event.objects.count()) == ([1, 1, 1], 2)


@pytest.mark.postgresql
@committed
def test_a_group_is_not_taken_apart_where_nothing_is_written(committer: Committer) -> None:
    outbox = committer.watch(make_api_source())

    def read_only(_: Sequence[Incoming]) -> None:
        connection.ensure_connection()
        connection.connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    outbox.fault = read_only
    calls = publish_together(committer, outbox, [[make_posted()] for _ in range(4)])
    for call in calls:
        with pytest.raises(NotStored) as caught:
            call.result()
        assert is_demoted(caught.value.__cause__)
    assert outbox.sizes == [1, 1, 3, 3]
    outbox.fault = lambda _: None
    assert not committer.publish(outbox.source, [make_posted()])[0].duplicate


@committed
def test_every_thread_has_an_outbox_of_its_own_where_each_commits_for_itself() -> None:
    source, publisher = make_api_source(), OneByOne()
    made = [publisher.publish(source, [make_posted(id="o-1")])[0] for _ in range(2)]
    other = Elsewhere(lambda: publisher.publish(source, [make_posted(id="o-1")])[0]).result()
    assert [(each.id, each.duplicate) for each in (*made, other)] == [(made[0].id, False), (made[0].id, True), (made[0].id, True)]


@committed
def test_one_by_one_says_so_where_the_database_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    source, publisher = make_api_source(), OneByOne()
    outbox = WatchedOutbox(source)
    outbox.let.set()
    outbox.fault = lambda _: DataError("no")
    publisher._local.outboxes = {source.pk: outbox}
    with pytest.raises(NotStored):
        publisher.publish(source, [make_posted()])


# --- What is answered ----------------------------------------------------------------------------------------------


@in_this_transaction
def test_it_says_how_many_deliveries_each_event_owes() -> None:
    source = make_api_source()
    for types in (["*"], ["order.*"], ["order.paid"], ["user.*"]):
        make_subscription(source=source, kinds=["api"], collections=types)
    posted = [make_posted(type=type) for type in ("order.paid", "order.sent", "user.made", "x")]
    assert [(each.id, each.deliveries) for each in store(Outbox(source), posted)] == [
        (each.event.id, owed) for each, owed in zip(posted, (3, 2, 2, 1), strict=True)
    ]


@in_this_transaction
def test_an_event_that_comes_twice_is_stored_once_whoever_remembers_it() -> None:
    source = make_api_source()
    make_subscription(source=source, kinds=["api"])
    outbox = Outbox(source)
    first, twice, *_ = store(outbox, [make_posted(id="o-1", data=1), make_posted(id="o-1", data=1), make_posted(id="o-2")])
    assert (first.duplicate, first.deliveries, twice) == (False, 1, Accepted(first.id, 0, duplicate=True))
    for each in (outbox, Outbox(source)):
        assert store(each, [make_posted(id="o-1", data=1)]) == [Accepted(first.id, 0, duplicate=True)]
        assert store(each, [make_posted(id="o-1", data=2)]) == [Accepted(first.id, 0, duplicate=True, same=False)]
    assert Event.objects.count() == Delivery.objects.count() == 2


@in_this_transaction
def test_the_very_same_order_is_no_duplicate_of_itself() -> None:
    source, posted = make_api_source(), make_posted(id="o-1")
    store(Outbox(source), [posted])
    # Committed, and then the connection broke before that was known: the second try finds its own event.
    assert store(Outbox(source), [posted]) == [Accepted(id_in(posted), 0)]


@committed  # what is staged for PostgreSQL is gone at the end of a transaction
def test_an_id_whose_event_was_pruned_is_new_again() -> None:
    source = make_api_source()
    make_subscription(source=source, kinds=["api"])
    outbox = Outbox(source, remembered=0)
    gone, kept = store(outbox, [make_posted(id="gone"), make_posted(id="kept", data=1)])
    Delivery.objects.filter(event=gone.id).delete()
    Event.objects.filter(pk=gone.id).delete()
    posted = make_posted(id="gone")
    assert store(outbox, [make_posted(id="kept", data=1), posted]) == [Accepted(kept.id, 0, duplicate=True), Accepted(id_in(posted), 1)]


@in_this_transaction
@pytest.mark.parametrize("id", [{}, {"id": "o-1"}])
def test_what_nobody_wants_is_taken_and_dropped_where_the_source_keeps_no_such_events(id: dict[str, str]) -> None:
    source = make_api_source(keep_unmatched=False)
    make_subscription(source=source, kinds=["api"], collections=["order.*"])
    unwanted, wanted = make_posted(type="user.made", **id), make_posted()
    accepted = store(Outbox(source), [unwanted, wanted])
    assert [(each.id, each.deliveries, each.stored) for each in accepted] == [(unwanted.event.id, 0, False), (wanted.event.id, 1, True)]
    assert list(Event.objects.values_list("pk", flat=True)) == [wanted.event.id]
    (tally,) = EventTally.objects.filter(type="user.made")
    assert (tally.received, tally.unmatched) == (1, 1)


@in_this_transaction
def test_what_is_stored_is_known_though_nobody_wants_it_any_more() -> None:
    source = make_api_source()
    first = store(Outbox(source), [make_posted(id="o-1", data=1)])[0]
    source.keep_unmatched = False
    assert store(Outbox(source), [make_posted(id="o-1", data=1)]) == [Accepted(first.id, 0, duplicate=True)]


@in_this_transaction
@pytest.mark.parametrize("count", [1, 100])
def test_a_group_costs_the_same_statements_whatever_its_size(count: int, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    source = make_api_source()
    make_subscription(source=source, kinds=["api"])
    outbox = Outbox(source)
    store(outbox, [make_posted()])
    with django_assert_max_num_queries(9):
        store(outbox, [make_posted() for _ in range(count)])
