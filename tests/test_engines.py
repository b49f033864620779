"""The hot statements, on whichever database the suite runs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone

from delivery.engines import engine
from delivery.engines.base import AttemptRow, DeliveryRow, Due, EventCounts, EventRow, Settlement, Want
from delivery.models import Attempt, AttemptTally, Delivery, Event, EventTally
from delivery.sources.incoming import dedup_key
from subscriptions.ids import new_id
from subscriptions.models import Endpoint, Source
from tests.builders import DID, POST, make_delivery, make_endpoint, make_event, make_source

pytestmark = pytest.mark.django_db

BEGINNING = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
NOW = datetime(2026, 7, 4, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = NOW.replace(second=0, microsecond=0)
ODD = "NUL-free: \x01\x7f\x80\xff ä \u2028 \U0001f388 \ufeff ' \" \\ %s {} \\N \\."


def event_row(key: str, **over: Any) -> EventRow:
    fields: dict[str, Any] = {
        "id": new_id(),
        "source_id": make_source().id,
        "dedup_key": dedup_key([key]),
        "kind": "commit",
        "type": POST,
        "operation": "create",
        "subject": DID,
        "origin": "wss://stream.example",
        "origin_cursor": 1,
        "occurred_at": NOW,
        "received_at": NOW,
        "body": key.encode(),
    }
    return EventRow(**fields | over)


def attempt_row(delivery: Delivery, **over: Any) -> AttemptRow:
    fields: dict[str, Any] = {"id": new_id(), "delivery_id": delivery.id, "number": 1, "started_at": NOW}
    fields |= dict.fromkeys(("dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms"), 1.5)
    fields |= {"status": 200, "error": "", "error_detail": "", "response_headers": "", "response_body": b""}
    return AttemptRow(**fields | over)


@dataclass
class Backlog:
    """Deliveries of one endpoint, in the order in which they fall due."""

    endpoint: Endpoint
    ids: list[UUID]

    def claim(self, most: int = 100, after: tuple[datetime, UUID] = BEGINNING, now: datetime | None = None) -> list[Due]:
        return engine().claim([Want(self.endpoint.id, most, *after)], now or timezone.now())


def backlog(*due_s_ago: float) -> Backlog:
    endpoint, now = make_endpoint(), timezone.now()
    rows = [make_delivery(endpoint=endpoint, due_at=now - timedelta(seconds=ago)) for ago in due_s_ago]
    return Backlog(endpoint, [row.id for row in sorted(rows, key=lambda row: (row.due_at, row.id))])


# --- events --------------------------------------------------------------------------------------------------------


def test_it_stores_every_field_of_an_event() -> None:
    row = event_row("a", body=bytes(range(256)), subject=ODD, origin_cursor=2**62)
    with transaction.atomic():
        assert engine().insert_events([row]) == {row.id}
    event = Event.objects.get()
    assert {name: getattr(event, name) for name in EventRow._fields if name not in ("dedup_key", "body")} == {
        name: value for name, value in row._asdict().items() if name not in ("dedup_key", "body")
    }
    assert (bytes(event.dedup_key), bytes(event.body)) == (row.dedup_key, row.body)


def test_it_stores_an_event_without_a_cursor() -> None:
    engine().insert_events([event_row("a", origin_cursor=None)])
    assert Event.objects.get().origin_cursor is None


def test_it_names_the_new_events_when_all_are_new() -> None:
    rows = [event_row(str(number)) for number in range(1000)]
    with transaction.atomic():
        assert engine().insert_events(rows) == {row.id for row in rows}
    assert Event.objects.count() == 1000


def test_it_keeps_the_first_of_two_equal_events_in_one_batch() -> None:
    first, again, other = event_row("a"), event_row("a", body=b"later"), event_row("b")
    with transaction.atomic():
        assert engine().insert_events([first, again, other]) == {first.id, other.id}
    assert {bytes(event.body) for event in Event.objects.all()} == {b"a", b"b"}


def test_it_keeps_the_event_of_an_earlier_batch() -> None:
    earlier, again, new = event_row("a"), event_row("a"), event_row("b")
    with transaction.atomic():
        engine().insert_events([earlier])
    with transaction.atomic():
        assert engine().insert_events([again, new]) == {new.id}
    with transaction.atomic():
        assert engine().insert_events([event_row("a"), event_row("b")]) == set()
    assert set(Event.objects.values_list("id", flat=True)) == {earlier.id, new.id}


def test_it_tells_batches_of_one_transaction_apart() -> None:
    first, second = event_row("a"), event_row("b")
    with transaction.atomic():
        assert engine().insert_events([first]) == {first.id}
        assert engine().insert_events([event_row("a"), second]) == {second.id}
    assert Event.objects.count() == 2


def test_it_takes_equal_keys_of_two_sources_for_two_events() -> None:
    one, other = make_source(), Source.objects.create(kind=Source.Kind.API, name="API")
    rows = [event_row("a", source_id=one.id), event_row("a", source_id=other.id)]
    with transaction.atomic():
        assert engine().insert_events(rows) == {row.id for row in rows}


def test_it_finds_many_conflicts_among_many_events() -> None:
    with transaction.atomic():
        engine().insert_events([event_row(str(number)) for number in range(0, 1500, 2)])
    rows = [event_row(str(number)) for number in range(1500)]
    with transaction.atomic():
        assert engine().insert_events(rows) == {row.id for row in rows[1::2]}


def test_it_brings_the_bodies_that_are_there() -> None:
    events = [make_event(body=bytes([number]) * 3) for number in range(3)]
    wanted = [event.id for event in events] + [new_id()]
    assert engine().bodies(wanted) == {event.id: bytes(event.body) for event in events}


# --- deliveries ----------------------------------------------------------------------------------------------------


def test_it_inserts_deliveries_that_are_due() -> None:
    row = DeliveryRow(new_id(), make_event().id, make_endpoint().id)
    engine().insert_deliveries([row], NOW)
    delivery = Delivery.objects.get()
    assert DeliveryRow(delivery.id, delivery.event_id, delivery.endpoint_id) == row
    assert (delivery.state, delivery.due_at, delivery.created_at, delivery.settled_at) == (Delivery.State.PENDING, NOW, NOW, None)
    assert (delivery.attempt_count, delivery.tries, delivery.last_status, delivery.last_error) == (0, 0, None, "")


def test_it_claims_what_is_due_the_oldest_first() -> None:
    owed = backlog(5, 60, 0.5, 60, 3600)
    assert [due.id for due in owed.claim()] == owed.ids


def test_it_claims_no_more_than_was_asked_for() -> None:
    owed = backlog(3, 2, 1)
    assert [due.id for due in owed.claim(2)] == owed.ids[:2]


def test_it_claims_in_the_order_of_ids_where_the_time_is_the_same() -> None:
    endpoint, due_at = make_endpoint(), timezone.now() - timedelta(seconds=1)
    ids = sorted(new_id() for _ in range(5))
    for id in reversed(ids):
        make_delivery(id=id, endpoint=endpoint, due_at=due_at)
    assert [due.id for due in Backlog(endpoint, ids).claim()] == ids


def test_it_goes_on_after_a_position() -> None:
    owed, seen = backlog(9, 8, 8, 7, 6), []
    after = BEGINNING
    while found := owed.claim(2, after):
        seen += [due.id for due in found]
        after = (found[-1].due_at, found[-1].id)
    assert seen == owed.ids


def test_it_goes_on_between_two_of_the_same_time() -> None:
    endpoint, due_at = make_endpoint(), datetime(2026, 1, 1, tzinfo=UTC)  # no microseconds: SQLite writes it shorter
    ids = sorted(new_id() for _ in range(3))
    for id in ids:
        make_delivery(id=id, endpoint=endpoint, due_at=due_at)
    later = make_delivery(endpoint=endpoint, due_at=due_at + timedelta(microseconds=1))
    assert [due.id for due in Backlog(endpoint, ids).claim(10, (due_at, ids[0]))] == [*ids[1:], later.id]


def test_it_claims_nothing_that_is_not_due_or_not_pending() -> None:
    endpoint, now = make_endpoint(), timezone.now()
    make_delivery(endpoint=endpoint, due_at=now + timedelta(seconds=60))
    for state in (Delivery.State.DELIVERED, Delivery.State.DEAD, Delivery.State.CANCELLED):
        make_delivery(endpoint=endpoint, state=state)
    make_delivery()
    just = make_delivery(endpoint=endpoint, due_at=now)
    assert [due.id for due in Backlog(endpoint, []).claim(now=now)] == [just.id]


def test_it_tells_all_about_what_is_claimed() -> None:
    delivery = make_delivery(attempt_count=7, tries=2)
    (due,) = Backlog(delivery.endpoint, []).claim()
    assert due == Due(delivery.id, delivery.event_id, delivery.endpoint_id, delivery.due_at, 7, 2)


def test_it_claims_for_several_endpoints_each_its_own_share() -> None:
    owed = [backlog(3, 2, 1), backlog(30, 20), backlog()]
    found = engine().claim([Want(one.endpoint.id, 2, *BEGINNING) for one in owed], timezone.now())
    assert {one.endpoint.id: [due.id for due in found if due.endpoint_id == one.endpoint.id] for one in owed} == {one.endpoint.id: one.ids[:2] for one in owed}


# --- settling ------------------------------------------------------------------------------------------------------


def test_it_settles_pending_deliveries() -> None:
    one, other = make_delivery(attempt_count=3, tries=1), make_delivery()
    rows = [Settlement(one.id, 3, 200, ""), Settlement(other.id, 0, 204, "")]
    assert engine().settle(Delivery.State.DELIVERED, rows, NOW) == 2
    one.refresh_from_db()
    assert (one.state, one.settled_at, one.attempt_count, one.tries, one.last_status, one.last_error) == (Delivery.State.DELIVERED, NOW, 4, 2, 200, "")
    assert other.refreshed().last_status == 204


@pytest.mark.parametrize("state", [Delivery.State.DELIVERED, Delivery.State.DEAD, Delivery.State.CANCELLED])
def test_it_settles_nothing_that_is_settled(state: Delivery.State) -> None:
    delivery = make_delivery(state=state, attempt_count=1, last_status=200)
    assert engine().settle(Delivery.State.DEAD, [Settlement(delivery.id, 1, 500, "")], NOW) == 0
    assert engine().postpone([Settlement(delivery.id, 1, 500, "", NOW)]) == 0
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, delivery.last_status, delivery.settled_at) == (state, 1, 200, None)


def test_it_settles_and_postpones_nothing_when_there_is_nothing() -> None:
    assert engine().settle(Delivery.State.DELIVERED, [], NOW) <= 0
    assert engine().postpone([]) <= 0
    engine().insert_attempts([])


def test_it_postpones_a_failure() -> None:
    one, other = make_delivery(attempt_count=2, tries=1), make_delivery()
    later = NOW + timedelta(hours=2)
    assert engine().postpone([Settlement(one.id, 2, None, "timeout", later), Settlement(other.id, 0, 503, "", NOW)]) == 2
    one.refresh_from_db()
    assert (one.state, one.due_at, one.attempt_count, one.tries, one.last_status, one.last_error) == (Delivery.State.PENDING, later, 3, 2, None, "timeout")
    assert one.settled_at is None
    other.refresh_from_db()
    assert (other.due_at, other.last_status) == (NOW, 503)


def test_it_postpones_nothing_that_was_attempted_by_somebody_else_meanwhile() -> None:
    delivery = make_delivery(attempt_count=2)
    due_at = delivery.due_at
    assert engine().postpone([Settlement(delivery.id, 1, 500, "", NOW + timedelta(days=1))]) == 0
    delivery.refresh_from_db()
    assert (delivery.due_at, delivery.attempt_count, delivery.last_status) == (due_at, 2, None)


# --- attempts ------------------------------------------------------------------------------------------------------


def test_it_stores_every_field_of_an_attempt() -> None:
    delivery = make_delivery()
    row = attempt_row(delivery, number=4, status=None, error="timeout", error_detail="after 5 s", dns_ms=0.25, total_ms=5000.5, batch=new_id())
    alone = attempt_row(delivery)
    engine().insert_attempts([row, alone])
    assert Attempt.objects.get(pk=alone.id).batch is None
    attempt = Attempt.objects.get(pk=row.id)
    assert {name: getattr(attempt, name) for name in AttemptRow._fields if name != "response_body"} == {
        name: value for name, value in row._asdict().items() if name != "response_body"
    }


def test_it_stores_odd_text_and_any_bytes_that_a_receiver_sent() -> None:
    latin = bytes(range(1, 256)).decode("latin-1")
    row = attempt_row(make_delivery(), error_detail=ODD, response_headers=latin, response_body=bytes(range(256)) * 16)
    with transaction.atomic():
        engine().insert_attempts([row])
    attempt = Attempt.objects.get()
    assert (attempt.error_detail, attempt.response_headers, bytes(attempt.response_body)) == (ODD, latin, row.response_body)


# --- tallies -------------------------------------------------------------------------------------------------------


def test_it_adds_up_counts_of_events() -> None:
    source = make_source()
    for _ in range(2):
        engine().add_event_tallies(MINUTE, source.id, {("commit", POST): EventCounts(5, 3, 1, 1, 0), ("", ""): EventCounts(1, 0, 0, 0, 1)})
    engine().add_event_tallies(MINUTE + timedelta(minutes=1), source.id, {("commit", POST): EventCounts(1, 1, 0, 0, 0)})
    engine().add_event_tallies(MINUTE, source.id, {})
    rows = {(row.minute, row.kind): [getattr(row, name) for name in EventCounts._fields] for row in EventTally.objects.all()}
    assert rows == {
        (MINUTE, "commit"): [10, 6, 2, 2, 0],
        (MINUTE, ""): [2, 0, 0, 0, 2],
        (MINUTE + timedelta(minutes=1), "commit"): [1, 1, 0, 0, 0],
    }


def test_it_adds_up_counts_of_attempts() -> None:
    one, other = make_endpoint(), make_endpoint()
    engine().add_attempt_tallies(MINUTE, {(one.id, "delivered"): {"attempts": 2, "total_ms": 7.5, "ms_5": 2}, (other.id, "dead"): {"attempts": 1}})
    engine().add_attempt_tallies(MINUTE, {(one.id, "delivered"): {"attempts": 1, "total_ms": 60_000, "ms_over": 1}})
    row = AttemptTally.objects.get(endpoint=one)
    assert (row.minute, row.outcome, row.attempts, row.total_ms, row.ms_5, row.ms_over, row.ms_10) == (MINUTE, "delivered", 3, 60_007.5, 2, 1, 0)
    assert AttemptTally.objects.get(endpoint=other).attempts == 1


@pytest.mark.parametrize(
    ("ms", "name"), [(0, "ms_5"), (5, "ms_5"), (5.01, "ms_10"), (99, "ms_100"), (30_000, "ms_30000"), (30_000.1, "ms_over"), (10**9, "ms_over")]
)
def test_it_sorts_an_attempt_into_its_bucket(ms: float, name: str) -> None:
    assert AttemptTally.bucket(ms) == name
    assert name in AttemptTally().buckets()
