"""Pruning: what goes, what stays, and that nobody notices while it runs."""

import json
import logging
import re
import signal
import statistics
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from delivery import prune, tasks, tenure
from delivery.engines import engine
from delivery.engines.base import Want
from delivery.engines.postgresql import CLAIM
from delivery.leases import Holding
from delivery.models import Attempt, AttemptTally, Delivery, Event, EventTally, Lease, StreamGap
from delivery.prune import Cutoffs, Pruner, Report, trial
from delivery.replay import replay
from subscriptions.ids import first_id, new_id
from subscriptions.models import Endpoint, Source
from tests.builders import id_of, make_attempt, make_delivery, make_endpoint, make_event, make_gap, make_source
from tests.threads import Elsewhere

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
RETENTION = timedelta(days=7)
DEAD_LETTERS = timedelta(days=30)
A_MINUTE = timedelta(minutes=1)
BEGINNING = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


def never(seconds: float) -> bool:
    """No rest, and no stop."""
    return False


def run(**options: Any) -> Report:
    """One pass, to its end."""
    report = Pruner(**options).run(never)
    assert report is not None
    assert report.finished
    return report


def old_event(age: timedelta, **over: Any) -> Event:
    moment = timezone.now() - age
    return make_event(**{"id": id_of(age), "occurred_at": moment, "received_at": moment} | over)


def old_delivery(age: timedelta, state: int = DELIVERED, settled_ago: timedelta | None = None, **over: Any) -> Delivery:
    """A delivery made so long ago (as was its event) and settled at once, or so long ago."""
    now = timezone.now()
    fields: dict[str, Any] = {"id": id_of(age), "state": state, "created_at": now - age, "due_at": now - age}
    if state != PENDING:
        fields["settled_at"] = now - (age if settled_ago is None else settled_ago)
    return make_delivery(**{"event": over.pop("event", None) or old_event(age)} | fields | over)


def here(row: Any) -> bool:
    return type(row)._default_manager.filter(pk=row.pk).exists()


def attempts_of(delivery: Delivery) -> int:
    return Attempt.objects.filter(delivery_id=delivery.pk).count()


# --- What goes and what stays ------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "age", "stays"),
    [
        (DELIVERED, RETENTION - A_MINUTE, True),
        (DELIVERED, RETENTION + A_MINUTE, False),
        (CANCELLED, RETENTION - A_MINUTE, True),
        (CANCELLED, RETENTION + A_MINUTE, False),
        (DEAD, RETENTION + A_MINUTE, True),
        (DEAD, DEAD_LETTERS - A_MINUTE, True),
        (DEAD, DEAD_LETTERS + A_MINUTE, False),
        (PENDING, DEAD_LETTERS * 100, True),
    ],
)
def test_it_keeps_each_kind_for_its_time(state: Delivery.State, age: timedelta, stays: bool) -> None:
    delivery = old_delivery(age, state)
    make_attempt(delivery=delivery)
    report = run()
    assert (here(delivery), here(delivery.event), attempts_of(delivery)) == (stays, stays, int(stays))
    assert report.counts == ({} if stays else {f"{state.label} deliveries": 1, "attempts": 1, "events": 1})


@pytest.mark.django_db
@pytest.mark.parametrize(("state", "term"), [(DELIVERED, RETENTION), (CANCELLED, RETENTION), (DEAD, DEAD_LETTERS)])
def test_the_time_of_a_delivery_starts_when_it_is_settled(state: int, term: timedelta) -> None:
    stays = old_delivery(term * 3, state, settled_ago=term - A_MINUTE)
    goes = old_delivery(term * 3, state, settled_ago=term + A_MINUTE)
    run()
    assert (here(stays), here(stays.event), here(goes), here(goes.event)) == (True, True, False, False)


@pytest.mark.django_db
def test_a_delivery_that_does_not_say_when_it_was_settled_is_as_old_as_itself() -> None:
    goes, stays = old_delivery(RETENTION * 2, settled_at=None), old_delivery(RETENTION / 2, settled_at=None)
    run()
    assert (here(goes), here(stays)) == (False, True)


@pytest.mark.django_db
def test_dead_letters_may_go_before_the_others(settings: Any) -> None:
    settings.JETRELAY_DEAD_LETTER_DAYS = 1
    dead, delivered = old_delivery(timedelta(days=2), DEAD), old_delivery(timedelta(days=2))
    run()
    # The event is younger than the retention.
    assert (here(dead), here(dead.event), here(delivered)) == (False, True, True)


@pytest.mark.django_db
def test_it_follows_the_settings(settings: Any) -> None:
    settings.JETRELAY_RETENTION_DAYS = 100
    delivery = old_delivery(timedelta(days=99))
    run()
    assert here(delivery)
    settings.JETRELAY_RETENTION_DAYS = 98
    run()
    assert not here(delivery)


@pytest.mark.django_db
@pytest.mark.parametrize("owed", [PENDING, DEAD])
def test_an_event_stays_while_another_delivery_needs_it(owed: int) -> None:
    delivered = old_delivery(RETENTION * 2)
    needs_it = old_delivery(RETENTION * 2, owed, event=delivered.event)
    run()
    assert (here(delivered), here(needs_it), here(delivered.event)) == (False, True, True)
    assert bytes(needs_it.event.refreshed().body) == bytes(delivered.event.body)
    Delivery.objects.filter(pk=needs_it.pk).update(state=DELIVERED, settled_at=timezone.now() - RETENTION * 2)
    run()
    assert (here(needs_it), here(delivered.event)) == (False, False)


@pytest.mark.django_db
def test_an_event_that_nobody_wanted_goes_in_its_time() -> None:
    api = Source.objects.create(kind=Source.Kind.API, name="API")
    goes, stays = old_event(RETENTION + A_MINUTE, source=api), old_event(RETENTION - A_MINUTE, source=api)
    assert run().counts == {"events": 1}
    assert (here(goes), here(stays)) == (False, True)


@pytest.mark.django_db
def test_a_late_delivery_of_an_old_event_keeps_it() -> None:
    event = old_event(RETENTION * 2)
    delivery = make_delivery(event=event)
    run()
    assert (here(event), here(delivery)) == (True, True)


@pytest.mark.django_db
def test_all_attempts_of_a_delivery_go_and_no_others() -> None:
    goes, stays = old_delivery(RETENTION * 2), old_delivery(RETENTION / 2)
    for number in range(3):
        make_attempt(delivery=goes, number=number)
        make_attempt(delivery=stays, number=number, id=id_of(RETENTION * 2))
    assert run().counts["attempts"] == 3
    assert (attempts_of(goes), attempts_of(stays)) == (0, 3)


@pytest.mark.django_db
def test_tallies_go_in_their_time() -> None:
    now, source, endpoint = timezone.now(), make_source(), make_endpoint()
    for days in (prune.TALLY_DAYS - 1, prune.TALLY_DAYS + 1, prune.TALLY_DAYS + 2):
        for number in range(3):
            EventTally.objects.create(minute=now - timedelta(days=days), source=source, kind="commit", type=str(number), received=1)
            AttemptTally.objects.create(minute=now - timedelta(days=days), endpoint=endpoint, outcome=str(number), attempts=1)
    assert run(chunk=2).counts == {"event tallies": 6, "attempt tallies": 6}
    assert (EventTally.objects.count(), AttemptTally.objects.count()) == (3, 3)
    assert {row.minute for row in EventTally.objects.all()} == {now - timedelta(days=prune.TALLY_DAYS - 1)}


@pytest.mark.django_db
def test_filled_gaps_go_in_their_time_and_open_ones_stay() -> None:
    now = timezone.now()
    term = timedelta(days=prune.FILLED_GAP_DAYS)
    make_gap(filled_by="wss://other.example", filled_at=now - term - A_MINUTE)
    stay = [make_gap(filled_by="wss://other.example", filled_at=now - term + A_MINUTE), make_gap(noticed_at=now - term * 10, id=id_of(term * 10))]
    assert run().counts == {"filled gaps": 1}
    assert set(StreamGap.objects.all()) == set(stay)


@pytest.mark.django_db
def test_it_finds_nothing_in_empty_tables() -> None:
    assert run() == Report(prune.Counts(), True)
    assert str(run()) == "nothing"


def test_ids_are_cut_where_time_is() -> None:
    before, id, after = timezone.now(), new_id(), timezone.now()
    assert first_id(before) <= id < first_id(after + timedelta(milliseconds=1))
    moment = datetime(2026, 7, 4, 12, tzinfo=UTC)
    assert first_id(moment).hex[:12] == f"{int(moment.timestamp()) * 1000:012x}"
    assert first_id(moment).hex[12:] == "0" * 20


# --- While others work -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("state", [DELIVERED, DEAD])
def test_what_is_replayed_after_it_was_looked_at_stays(state: int) -> None:
    terms = Cutoffs.at(timezone.now()).deliveries
    goes, replayed = (old_delivery(DEAD_LETTERS * 2, state) for _ in range(2))
    make_attempt(delivery=replayed)
    looked = engine().look_at_deliveries(UUID(int=0), first_id(terms.settled_before), 10, terms)
    assert looked == {goes.pk: state, replayed.pk: state}
    assert replay([replayed.pk]) == 1
    with transaction.atomic():
        assert engine().prune_deliveries(list(looked), terms) == ({state: 1}, 0)
    assert (here(goes), here(replayed), attempts_of(replayed)) == (False, True, 1)


@pytest.mark.django_db
def test_what_is_replayed_during_a_pass_stays_with_its_event() -> None:
    deliveries = [old_delivery(RETENTION * 2 - A_MINUTE * number) for number in range(6)]

    def replay_the_last(seconds: float) -> bool:
        replay([deliveries[-1].pk])
        return False

    report = Pruner(chunk=2).run(replay_the_last)
    assert report is not None
    assert [here(delivery) for delivery in deliveries] == [False] * 5 + [True]
    assert [here(delivery.event) for delivery in deliveries] == [False] * 5 + [True]
    assert deliveries[-1].refreshed().state == PENDING


@pytest.mark.django_db
def test_an_event_that_is_owed_again_after_it_was_looked_at_stays() -> None:
    wanted, unwanted = old_event(RETENTION * 2), old_event(RETENTION * 2)
    make_delivery(event=wanted)
    with transaction.atomic():
        assert engine().prune_events([wanted.pk, unwanted.pk]) == 1
    assert (here(wanted), here(unwanted)) == (True, False)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_it_does_not_wait_for_a_replay_that_is_under_way() -> None:
    goes, replayed = old_delivery(RETENTION * 2), old_delivery(RETENTION * 2)
    with transaction.atomic():
        replay([replayed.pk])
        assert Elsewhere(run).result().counts == {"delivered deliveries": 1, "events": 1}
    assert (here(goes), here(replayed), here(replayed.event)) == (False, True, True)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_it_leaves_an_event_that_is_being_given_a_delivery() -> None:
    event = old_event(RETENTION * 2)
    with transaction.atomic():
        Event.objects.select_for_update(of=("self",), no_key=True).get(pk=event.pk)
        make_delivery(event=event)
        assert Elsewhere(run).result().counts == {}
    assert run().counts == {}
    assert here(event)


# --- A chunk at a time -------------------------------------------------------------------------------------------------


class Crash(Exception):
    pass


def crash_after(chunks: int) -> Callable[[float], bool]:
    left = iter(range(chunks))

    def rest(seconds: float) -> bool:
        if next(left, None) is None:
            raise Crash
        return False

    return rest


@pytest.mark.django_db
@pytest.mark.parametrize("afresh", [False, True])
@pytest.mark.parametrize("chunks", range(8))
def test_it_goes_on_after_a_crash_between_two_chunks(chunks: int, afresh: bool) -> None:
    deliveries = [old_delivery(RETENTION * 2 - A_MINUTE * number) for number in range(6)]
    stays = [old_delivery(RETENTION * 3, PENDING), make_delivery()]
    for delivery in deliveries:
        make_attempt(delivery=delivery)
    pruner = Pruner(chunk=2)
    try:
        pruner.run(crash_after(chunks))
    except Crash:
        # Whatever went, went as a whole.
        assert {attempt.delivery_id for attempt in Attempt.objects.all()} == {row.pk for row in deliveries if here(row)}
        assert all(here(row.event) for row in Delivery.objects.all())
    report = (Pruner(chunk=2) if afresh else pruner).run(never)
    assert report is not None
    assert set(Delivery.objects.all()) == set(stays)
    assert set(Event.objects.all()) == {row.event for row in stays}
    assert not Attempt.objects.exists()


@pytest.mark.django_db
def test_a_run_ends_when_its_time_is_up_and_the_next_one_goes_on_behind_it() -> None:
    for number in range(4):
        old_delivery(RETENTION * 3 - A_MINUTE * number, PENDING)
    goes = old_delivery(RETENTION * 2)
    pruner = Pruner(chunk=2)
    reports = [pruner.run(never, budget_s=0.0) for _ in range(6)]
    # Two chunks of what stays, then one with something to delete; the same for the events; and the end.
    assert [report.counts.total() for report in reports if report] == [0, 0, 1, 0, 0, 1]
    assert not any(report.finished for report in reports if report)
    assert pruner.run(never, budget_s=0.0) == Report(prune.Counts(), True)
    assert not here(goes)


@pytest.mark.django_db
def test_a_new_pass_starts_from_the_beginning() -> None:
    later = old_delivery(RETENTION * 3, PENDING)
    old_delivery(RETENTION * 2)
    pruner = Pruner()
    pruner.run(never)
    Delivery.objects.filter(pk=later.pk).update(state=DELIVERED, settled_at=timezone.now() - RETENTION * 2)
    pruner.run(never)
    assert not here(later)


@pytest.mark.django_db
def test_it_rests_after_each_chunk_in_proportion_and_stops_when_asked_to() -> None:
    for _ in range(6):
        old_event(RETENTION * 2)
    rests: list[float] = []

    def rest(seconds: float) -> bool:
        rests.append(seconds)
        return len(rests) == 2

    report = Pruner(chunk=2).run(rest)
    assert report == Report(prune.Counts(events=4), False)
    assert Event.objects.count() == 2
    assert all(0 < seconds <= prune.MAX_REST_S for seconds in rests)


@pytest.mark.django_db
def test_two_at_once_are_one() -> None:
    for _ in range(6):
        old_event(RETENTION * 2)
    others: list[Report | None] = []

    def rest(seconds: float) -> bool:
        others.append(Pruner().run(never))
        return False

    report = Pruner(chunk=2).run(rest)
    assert others == [None] * 3
    assert report == Report(prune.Counts(events=6), True)


@pytest.mark.django_db
@pytest.mark.parametrize("rest", [never, lambda seconds: True, crash_after(0)])
def test_it_gives_the_lease_back(rest: Callable[[float], bool]) -> None:
    old_event(RETENTION * 2)
    try:
        Pruner().run(rest)
    except Crash:
        pass
    assert Holding(prune.LEASE, 60).take()


@pytest.mark.django_db
def test_it_stops_when_somebody_else_has_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "LEASE_S", 0.0)  # always due for renewal
    for _ in range(6):
        old_event(RETENTION * 2)

    def rest(seconds: float) -> bool:
        Lease.objects.filter(name=prune.LEASE).update(token=new_id())
        return False

    assert Pruner(chunk=2).run(rest) == Report(prune.Counts(events=2), False)


# --- Command, task, pages ----------------------------------------------------------------------------------------------


def make_one_of_each() -> None:
    shared = old_delivery(DEAD_LETTERS * 2, DEAD)
    for state, event in ((DELIVERED, None), (CANCELLED, None), (DELIVERED, shared.event), (PENDING, None)):
        make_attempt(delivery=old_delivery(DEAD_LETTERS * 2, state, event=event))
    old_delivery(RETENTION * 2, event=old_delivery(RETENTION * 2, DEAD).event)
    make_delivery(state=DELIVERED, settled_at=timezone.now())
    AttemptTally.objects.create(minute=timezone.now() - timedelta(days=1000), endpoint=make_endpoint(), outcome="dead")
    make_gap(filled_by="wss://other.example", filled_at=timezone.now() - timedelta(days=1000))


ONE_OF_EACH = "attempt tallies: 1, attempts: 3, cancelled deliveries: 1, dead deliveries: 1, delivered deliveries: 3, events: 3, filled gaps: 1"


@pytest.mark.django_db
def test_a_trial_counts_what_would_go_and_changes_nothing() -> None:
    make_one_of_each()
    models = (Delivery, Event, Attempt, AttemptTally, StreamGap)
    before = [model._default_manager.count() for model in models]
    expected = trial()
    assert str(expected) == ONE_OF_EACH
    assert before == [model._default_manager.count() for model in models]
    assert run() == expected
    assert str(trial()) == "nothing"


@pytest.mark.django_db
def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    make_one_of_each()
    handler = signal.getsignal(signal.SIGTERM)
    for options in (["--dry-run"], [], ["--all"]):
        call_command("prune", *options)
    assert capsys.readouterr().out.splitlines() == [f"Would delete {ONE_OF_EACH}.", f"Deleted {ONE_OF_EACH}.", "Deleted nothing."]
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.django_db
def test_the_command_says_that_somebody_else_prunes() -> None:
    assert Holding(prune.LEASE, 60).take()
    with pytest.raises(CommandError, match="Somebody else is pruning"):
        call_command("prune")


@pytest.fixture
def pruner(monkeypatch: pytest.MonkeyPatch) -> Pruner:
    """A fresh one for the task, whose own remembers where the last pass stopped."""
    fresh = Pruner()
    monkeypatch.setattr(prune, "pruner", fresh)
    monkeypatch.setattr(tenure, "stopping", threading.Event())
    return fresh


@pytest.mark.django_db
def test_the_task_logs_one_line_when_it_deleted_something(pruner: Pruner, caplog: pytest.LogCaptureFixture) -> None:
    old_event(RETENTION * 2)
    with caplog.at_level(logging.INFO, "delivery.prune"):
        tasks.prune()
        tasks.prune()
    assert caplog.messages == ["Pruned events: 1."]


@pytest.mark.django_db
def test_the_task_ends_with_its_worker(pruner: Pruner, caplog: pytest.LogCaptureFixture) -> None:
    pruner.chunk = 2
    for _ in range(6):
        old_event(RETENTION * 2)
    tenure.stopping.set()
    with caplog.at_level(logging.INFO, "delivery.prune"):
        tasks.prune()
    assert caplog.messages == ["Pruned events: 2. There is more: the next run goes on."]


@pytest.mark.django_db
def test_the_task_does_nothing_while_somebody_else_prunes(pruner: Pruner) -> None:
    event = old_event(RETENTION * 2)
    assert Holding(prune.LEASE, 60).take()
    tasks.prune()
    assert here(event)


def test_the_task_says_in_one_line_that_the_database_is_away(pruner: Pruner, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise DatabaseError("server closed the connection\n")

    monkeypatch.setattr(pruner, "run", away)
    tasks.prune()
    assert caplog.messages == ["Pruning was cut short by the database; the next run goes on. server closed the connection"]


def test_the_task_is_scheduled() -> None:
    entry: dict[str, Any] = settings.CELERY_BEAT_SCHEDULE["prune"]
    assert entry["task"] == tasks.prune.name
    # A run is over before the next one starts.
    assert entry["schedule"] > prune.BUDGET_S + prune.MAX_REST_S


@pytest.mark.django_db
def test_pages_go_on_without_what_was_pruned(admin_client: Client) -> None:
    delivery, dead = old_delivery(RETENTION * 2), old_delivery(RETENTION * 2, DEAD)
    make_attempt(delivery=delivery)
    run()
    assert admin_client.get(reverse("delivery", args=[delivery.pk])).status_code == 404
    for url in (reverse("deliveries"), reverse("delivery", args=[dead.pk]), reverse("admin:delivery_event_change", args=[dead.event_id])):
        assert admin_client.get(url).status_code == 200, url
    # One whose event is gone although it is here; pruning leaves none, a restored backup may.
    Delivery.objects.filter(pk=dead.pk).update(event_id=new_id())
    for url in (reverse("deliveries"), reverse("delivery", args=[dead.pk]), reverse("admin:delivery_delivery_change", args=[dead.pk])):
        assert admin_client.get(url).status_code == 200, url


# --- Indexes -----------------------------------------------------------------------------------------------------------


def one_chunk(tables: int) -> None:
    """Every statement that pruning makes of these many of its tables, undone at the end."""
    cutoffs = Cutoffs.at(timezone.now())
    for kind in prune.WALKS[:tables]:
        walk = kind(cutoffs)
        stretch = walk.look(None, 100, False)
        assert stretch is not None
        assert walk.look(stretch.last, 100, False) != stretch
        with transaction.atomic():
            walk.delete(list(stretch.over))
            transaction.set_rollback(True)


def assert_by_index(work: Callable[[], None]) -> None:
    """No statement of this work reads a whole table."""
    with CaptureQueriesContext(connection) as captured:
        work()
    statements = [query["sql"] for query in captured if query["sql"].startswith(("SELECT", "DELETE"))]
    assert len(statements) > 5
    for sql in statements:
        with connection.cursor() as cursor:
            cursor.execute(f"{'EXPLAIN' if connection.vendor == 'postgresql' else 'EXPLAIN QUERY PLAN'} {sql}")
            plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
        assert not re.search(r"Seq Scan|SCAN (?!CONSTANT)", plan), f"{sql}\n{plan}"


@pytest.mark.django_db
def test_every_statement_has_an_index() -> None:
    with transaction.atomic():
        engine().by_index()  # so that PostgreSQL takes small tables for big ones
        for _ in range(3):
            make_attempt(delivery=old_delivery(RETENTION * 2))
            old_event(RETENTION * 2)
        EventTally.objects.create(minute=timezone.now() - timedelta(days=1000), source=make_source(), kind="commit")
        AttemptTally.objects.create(minute=timezone.now() - timedelta(days=1000), endpoint=make_endpoint(), outcome="dead")
        assert_by_index(lambda: one_chunk(4))


# --- At size -----------------------------------------------------------------------------------------------------------

ENDPOINTS = 5
EVENTS = 200_000
OWED = 4000
CLAIMED = 500
# What pruning may take; a quarter of it is usual.
MOST_S = 150
# What pruning may take; a quarter of it is usual.
MOST_S = 150
# Pages of 8 KiB that a claim reads: a row of a table and one of an index each time, if no two share a page.
MOST_BUFFERS = 2 * ENDPOINTS * CLAIMED


def fill(endpoints: list[Endpoint]) -> None:
    """A million deliveries of 200,000 events, delivered two weeks ago, each with an attempt at the first endpoint; and some that are due."""
    old_ms, new_ms = (int((timezone.now() - age).timestamp() * 1000) for age in (RETENTION * 2, timedelta(hours=1)))
    owed_to = ", ".join(f"('{endpoint.pk}'::uuid, {place})" for place, endpoint in enumerate(endpoints, 1))
    event, delivery = (
        f"(lpad(to_hex(%d + n), 12, '0') || '70008' || lpad(to_hex({place}), 3, '0') || lpad(to_hex(n), 12, '0'))::uuid" for place in (0, "place")
    )
    with connection.cursor() as cursor:
        for ms, count, state, settled in ((old_ms, EVENTS, DELIVERED, "moment"), (new_ms, OWED, PENDING, "NULL")):
            rows = f"(SELECT n, to_timestamp(({ms} + n) / 1000.0) AS moment FROM generate_series(1, {count}) n) made"
            cursor.execute(
                "INSERT INTO delivery_event (id, source_id, dedup_key, kind, type, operation, subject, origin, occurred_at, received_at, body)"
                f" SELECT {event % ms}, '{make_source().pk}', decode(md5('{ms} ' || n), 'hex'), 'commit', 'app.bsky.feed.post', 'create', 'did:plc:x', '',"
                f" moment, moment, repeat('x', 400)::bytea FROM {rows}"
            )
            cursor.execute(
                "INSERT INTO delivery_delivery (id, event_id, endpoint_id, state, due_at, attempt_count, tries, last_error, settled_at, created_at)"
                f" SELECT {delivery % ms}, {event % ms}, endpoint, {state:d}, moment, 1, 1, '', {settled}, moment"
                f" FROM {rows}, (VALUES {owed_to}) AS owed (endpoint, place)"
            )
        cursor.execute(
            "INSERT INTO delivery_attempt (id, delivery_id, number, started_at, dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, status,"
            " error, error_detail, response_headers, response_body)"
            " SELECT id, id, 1, created_at, 1, 1, 1, 1, 1, 200, '', '', 'content-type: text/plain', 'ok'::bytea"
            " FROM delivery_delivery WHERE state = 1 AND endpoint_id = %s",
            [endpoints[0].pk],
        )
        for table in ("event", "delivery", "attempt"):
            cursor.execute(f"ANALYZE delivery_{table}")


class Claims:
    """The query that lanes live by: how long it takes, and what it reads."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.wants = [Want(endpoint.pk, CLAIMED, *BEGINNING) for endpoint in endpoints]
        self.times_ms: dict[str, list[float]] = {}
        self.buffers: dict[str, list[int]] = {}

    def measure(self, when: str) -> None:
        started = perf_counter()
        assert len(engine().claim(self.wants, timezone.now())) == ENDPOINTS * CLAIMED
        self.times_ms.setdefault(when, []).append((perf_counter() - started) * 1000)

    def explain(self) -> tuple[set[str], int]:
        """The indexes that the query's plan uses, and the pages that it read."""
        columns = [list(column) for column in zip(*self.wants, strict=True)]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {CLAIM}", [*columns, timezone.now()])
            ((found,),) = cursor.fetchall()
        plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
        return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def assert_cheap(self, when: str) -> None:
        indexes, buffers = self.explain()
        self.buffers.setdefault(when, []).append(buffers)
        assert indexes == {"delivery_due"}
        # A count of pages, which no busy machine makes longer.
        assert buffers <= 2 * self.buffers["before"][0]

    def __str__(self) -> str:
        figures = (
            f"{when} {statistics.median(times):.1f} ms ({len(times)} claims, worst {max(times):.1f}; up to {max(self.buffers[when]):,} pages)"
            for when, times in self.times_ms.items()
        )
        return "median claim: " + "; ".join(figures)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.mark.postgresql
@pytest.mark.timeout(300)
@pytest.mark.django_db(transaction=True)
def test_a_million_rows_go_without_the_claims_noticing() -> None:
    endpoints = [make_endpoint() for _ in range(ENDPOINTS)]
    fill(endpoints)
    assert_by_index(lambda: one_chunk(2))
    claims = Claims(endpoints)
    for _ in range(50):
        claims.measure("before")
    claims.assert_cheap("before")

    worked, ended = threading.Event(), threading.Event()

    def no_rest(seconds: float) -> bool:
        worked.set()
        return ended.is_set()

    started = perf_counter()
    pruning = Elsewhere(lambda: Pruner().run(no_rest))
    assert worked.wait(30)
    while pruning.running and perf_counter() - started < MOST_S:
        for _ in range(10):
            claims.measure("during")
            ended.wait(0.02)
        claims.assert_cheap("during")
    ended.set()
    took_s = perf_counter() - started
    assert pruning.result() == Report(prune.Counts({"delivered deliveries": ENDPOINTS * EVENTS, "attempts": EVENTS, "events": EVENTS}), True)
    for _ in range(50):
        claims.measure("after")
    claims.assert_cheap("after")
    assert Delivery.objects.count() == ENDPOINTS * OWED
    assert Event.objects.count() == OWED
    print(f"\n{claims}; {(ENDPOINTS + 2) * EVENTS / took_s:,.0f} rows/s pruned, without rests, with claims beside it")
