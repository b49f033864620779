"""Many deliveries at once: which, how fast, and that none is skipped or taken twice whatever happens."""

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from delivery import tasks, tenure
from delivery.engines import engine
from delivery.leases import Holding
from delivery.models import Attempt, AttemptTally, Delivery, Event, Replay
from delivery.order import order_key
from delivery.replay import cancel, dismiss, moves, orders, preview, replay, running, start
from delivery.replay.running import run, step
from subscriptions.ids import new_id
from subscriptions.models import Endpoint
from tests.builders import id_of, make_attempt, make_delivery, make_endpoint, make_event, make_replay, make_subscription, make_tenant
from tests.threads import Elsewhere, eventually
from tests.whole import ROOT

pytestmark = pytest.mark.django_db

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
HOUR = timedelta(hours=1)


def order(**over: Any) -> Replay:
    return start(Replay(**over), by="ada")


def carry_out(wish: Replay, most: int | None = None, moment: datetime | None = None) -> Replay:
    """To its end, however long that would take."""
    now = moment or timezone.now()
    for _ in range(1000):
        if not step(wish.pk, now, most):
            if not wish.refreshed().running:
                return wish
            now = max(now, wish.next_at)
    raise AssertionError("it does not end")


def done(**over: Any) -> Replay:
    return carry_out(order(**over))


def old_delivery(age: timedelta, state: int = DEAD, **over: Any) -> Delivery:
    moment = timezone.now() - age
    return make_delivery(**{"id": id_of(age), "created_at": moment, "due_at": moment, "state": state} | over)


def old_event(age: timedelta, **over: Any) -> Event:
    return make_event(**{"id": id_of(age), "received_at": timezone.now() - age} | over)


def pending(rows: list[Delivery]) -> list[bool]:
    return [row.refreshed().state == PENDING for row in rows]


# --- Which deliveries --------------------------------------------------------------------------------------------------


def test_it_starts_each_delivery_again_and_keeps_its_attempts() -> None:
    now = timezone.now()
    row = make_delivery(state=DEAD, due_at=now - HOUR, attempt_count=5, tries=5, last_status=500, settled_at=now)
    make_attempt(delivery=row)
    ended = done(delivery_state=DEAD)
    row.refresh_from_db()
    assert (row.state, row.tries, row.attempt_count, row.settled_at) == (PENDING, 0, 5, None)
    assert row.due_at >= now
    assert Attempt.objects.filter(delivery=row).count() == 1
    assert (ended.state, ended.done, ended.skipped, ended.expected_text) == ("finished", 1, 0, "1")
    assert ended.ended_at is not None


def test_it_leaves_out_what_is_pending_unless_that_is_asked_for() -> None:
    later = timezone.now() + HOUR
    rows = [make_delivery(state=state, due_at=later) for state in Delivery.State]
    assert done().done == 3
    assert [row.refreshed().due_at == later for row in rows] == [True, False, False, False]
    Delivery.objects.update(due_at=later)
    assert done(delivery_state=PENDING).done == 4
    assert not Delivery.objects.filter(due_at=later).exists()


@pytest.mark.parametrize("state", [None, DELIVERED, DEAD, CANCELLED])
@pytest.mark.parametrize("whose", ["one endpoint", "all"])
@pytest.mark.parametrize("most", [1, 3, None])
def test_it_takes_all_that_match_and_no_others(state: Delivery.State | None, whose: str, most: int | None) -> None:
    endpoints = [make_endpoint() for _ in range(3)]
    rows = [make_delivery(endpoint=endpoint, state=each) for _ in range(2) for each in (DELIVERED, DEAD, CANCELLED) for endpoint in endpoints]
    endpoint = endpoints[1] if whose == "one endpoint" else None
    wish = Replay(endpoint=endpoint, delivery_state=state)
    expected = [(state is None or row.state == state) and endpoint in (None, row.endpoint) for row in rows]
    assert preview(wish) == (sum(expected), False)
    assert carry_out(order(endpoint=endpoint, delivery_state=state), most).done == sum(expected)
    assert pending(rows) == expected


def test_it_replays_one_event_to_all_endpoints_or_to_one() -> None:
    event, endpoints = make_event(), [make_endpoint() for _ in range(3)]
    rows = [make_delivery(event=event, endpoint=endpoint, state=DELIVERED) for endpoint in endpoints]
    other = make_delivery(state=DELIVERED)
    assert done(event=event, endpoint=endpoints[1]).done == 1
    assert pending([*rows, other]) == [False, True, False, False]
    assert carry_out(order(event=event), most=1).done == 2
    assert pending([*rows, other]) == [True, True, True, False]


@pytest.mark.parametrize("endpoint", [True, False])
@pytest.mark.parametrize("state", [None, DEAD])
def test_it_takes_a_time_range(state: Delivery.State | None, endpoint: bool) -> None:
    here = make_endpoint()
    rows = [old_delivery(HOUR * age, endpoint=here if endpoint else make_endpoint()) for age in (5, 4, 3, 2, 1)]
    since, until = rows[1].created_at, rows[3].created_at
    assert done(delivery_state=state, endpoint=here if endpoint else None, since=since, until=until).done == 2
    assert pending(rows) == [False, True, True, False, False]


def test_a_row_is_as_old_as_it_says_and_not_as_its_id() -> None:
    moment = timezone.now() - HOUR
    early, late = (make_delivery(id=id_of(HOUR - lateness), created_at=moment, state=DEAD) for lateness in (timedelta(0), timedelta(seconds=20)))
    assert done(since=moment, until=moment + timedelta(seconds=1)).done == 2
    assert pending([early, late]) == [True, True]


@pytest.mark.parametrize(
    ("collections", "expected"),
    [
        (["app.bsky.feed.post"], [True, False, False, False]),
        (["app.bsky.feed.*"], [True, True, False, False]),
        (["app.*"], [True, True, True, False]),
        (["app.bsky.feed.like", "app.bsky.graph.*"], [False, True, True, False]),
        (["*"], [True, True, True, True]),
        (["app.bsky.feed"], [False, False, False, False]),
    ],
)
def test_it_takes_the_wildcards_of_subscriptions(collections: list[str], expected: list[bool]) -> None:
    events = [make_event(type=type) for type in ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow")]
    rows = [make_delivery(event=event, state=DEAD) for event in [*events, make_event(kind="identity", type="")]]
    assert preview(Replay(collections=collections)) == (sum(expected), False)
    assert done(collections=collections).done == sum(expected)
    assert pending(rows) == expected


def test_it_leaves_alone_what_is_made_after_it_was_asked_for() -> None:
    first, wish = make_delivery(state=DEAD), order(delivery_state=DEAD)
    late = make_delivery(state=DEAD, endpoint=first.endpoint)
    carry_out(wish)
    assert pending([first, late]) == [True, False]


@pytest.mark.parametrize("state", [None, DEAD])
def test_a_tenants_replay_touches_no_other_tenant(state: Delivery.State | None) -> None:
    mine, other = make_tenant(slug="mine"), make_tenant(slug="other")
    event = make_event()
    rows = [make_delivery(event=event, endpoint=make_endpoint(tenant=tenant), state=DEAD) for tenant in (other, mine, other, mine)]
    assert done(tenant=mine, delivery_state=state).done == 2
    assert pending(rows) == [False, True, False, True]
    Delivery.objects.update(state=DEAD)
    assert done(tenant=mine, event=event).done == 2
    assert pending(rows) == [False, True, False, True]
    assert done(tenant=mine, action="dismiss").done == 0
    assert Delivery.objects.filter(state=DEAD).count() == 2


def test_a_replay_of_an_endpoint_belongs_to_its_tenant() -> None:
    endpoint = make_endpoint(tenant=make_tenant(slug="mine"))
    assert order(endpoint=endpoint).tenant == endpoint.tenant


def test_it_skips_and_counts_what_has_nothing_to_send_or_nowhere_to_go() -> None:
    orphan, gone, unverified = (make_delivery(state=DEAD) for _ in range(3))
    Event.objects.filter(pk=orphan.event_id)._raw_delete("default")
    Endpoint.objects.filter(pk=gone.endpoint_id).update(state="deleted")
    Endpoint.objects.filter(pk=unverified.endpoint_id).update(state="unverified")
    held = make_delivery(state=DEAD, endpoint=make_endpoint(state="paused"))
    ended = done(delivery_state=DEAD)
    assert (ended.state, ended.done, ended.skipped) == ("finished", 1, 3)
    assert pending([orphan, gone, unverified, held]) == [False, False, False, True]
    assert replay([orphan.pk, gone.pk, unverified.pk]) == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_it_gives_deliveries_of_ordered_endpoints_their_key(ordered: bool) -> None:
    row = make_delivery(state=DEAD, endpoint=make_endpoint(ordered=ordered), event=make_event(subject="did:plc:x"))
    done()
    assert row.refreshed().order_key == (order_key("did:plc:x") if ordered else None)
    Delivery.objects.update(state=DEAD, order_key=None)
    replay([row.pk])
    assert row.refreshed().order_key == (order_key("did:plc:x") if ordered else None)


# --- A crash, a cancel, two at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoints", [1, 4])
@pytest.mark.parametrize("state", [None, DEAD])
def test_it_takes_no_delivery_twice_even_if_it_is_dead_again(state: Delivery.State | None, endpoints: int) -> None:
    places = [make_endpoint() for _ in range(endpoints)]
    rows = [make_delivery(endpoint=places[number % endpoints], state=DEAD) for number in range(9)]
    wish, taken = order(delivery_state=state), []
    while step(wish.pk, timezone.now(), 2):
        now_pending = set(Delivery.objects.pending().values_list("pk", flat=True))
        taken += sorted(now_pending)
        Delivery.objects.filter(pk__in=now_pending).update(state=DEAD)
    taken += Delivery.objects.pending().values_list("pk", flat=True)
    assert sorted(taken) == sorted(row.pk for row in rows)
    assert wish.refreshed().done == 9


class Crash(Exception):
    pass


@pytest.mark.parametrize("steps", range(5))
def test_a_crash_before_the_commit_undoes_a_step_as_a_whole(steps: int) -> None:
    rows = [make_delivery(state=DEAD) for _ in range(8)]
    wish = order(delivery_state=DEAD)
    for _ in range(steps):
        step(wish.pk, timezone.now(), 2)
    before = (wish.refreshed().done, wish.after_id)
    try:
        with transaction.atomic():
            step(wish.pk, timezone.now(), 2)
            raise Crash
    except Crash:
        pass
    assert (wish.refreshed().done, wish.after_id) == before
    assert sum(pending(rows)) == before[0]
    assert carry_out(wish, most=2).done == 8
    assert all(pending(rows))


def test_it_can_be_cancelled_midway() -> None:
    rows = [make_delivery(state=DEAD) for _ in range(6)]
    wish = order(delivery_state=DEAD)
    step(wish.pk, timezone.now(), 2)
    assert cancel(wish, by="bob")
    assert not step(wish.pk, timezone.now(), 2)
    wish.refresh_from_db()
    assert (wish.state, wish.done, wish.created_by, wish.ended_by) == ("cancelled", 2, "ada", "bob")
    assert sum(pending(rows)) == 2
    assert not cancel(wish, by="eve")
    assert wish.refreshed().ended_by == "bob"


def test_what_was_settled_since_it_was_asked_for_is_no_longer_dead() -> None:
    rows = [make_delivery(state=DEAD) for _ in range(2)]
    wish = order(delivery_state=DEAD)
    replay([rows[0].pk])
    Delivery.objects.filter(pk=rows[0].pk).update(state=DELIVERED)
    assert carry_out(wish).done == 1
    assert rows[0].refreshed().state == DELIVERED


@pytest.mark.django_db(transaction=True)
def test_many_workers_take_each_delivery_once() -> None:
    rows = [make_delivery(endpoint=endpoint, state=DEAD) for endpoint in [make_endpoint()] for _ in range(60)]
    wish = order(endpoint=rows[0].endpoint)

    def work() -> None:
        while step(wish.pk, timezone.now(), 3):
            # What has been put back dies at once, so that taking it twice would show.
            Delivery.objects.pending().update(state=DEAD)

    for worker in [Elsewhere(work) for _ in range(3)]:
        worker.result()
    assert (wish.refreshed().state, wish.done, wish.looked_at) == ("finished", 60, 60)


def somebody_waits() -> bool:
    """Whether another connection waits for this one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        ((found,),) = cursor.fetchall()
    return bool(found)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_cancel_waits_for_the_step_and_the_next_one_sees_it() -> None:
    rows = [make_delivery(state=DEAD) for _ in range(4)]
    wish = order(delivery_state=DEAD)
    with transaction.atomic():
        step(wish.pk, timezone.now(), 2)
        cancelling = Elsewhere(lambda: cancel(wish, by="bob"))
        eventually(somebody_waits)
    assert cancelling.result()
    assert not step(wish.pk, timezone.now(), 2)
    assert sum(pending(rows)) == 2


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_nothing_is_put_back_at_an_endpoint_that_is_being_deleted() -> None:
    row = make_delivery(state=DEAD)
    wish = order(delivery_state=DEAD)
    with transaction.atomic():
        Endpoint.objects.filter(pk=row.endpoint_id).update(state="deleted")
        stepping = Elsewhere(lambda: step(wish.pk, timezone.now()))
        eventually(somebody_waits)
    stepping.result()
    assert row.refreshed().state == DEAD
    assert (wish.refreshed().done, wish.skipped) == (0, 1)


def never(seconds: float) -> bool:
    """No rest, and no stop."""
    return False


def test_one_runs_at_a_time() -> None:
    row, others = make_delivery(state=DEAD), []
    order(delivery_state=DEAD)

    def rest(seconds: float) -> bool:
        others.append(run(never))
        return False

    order(delivery_state=DELIVERED)
    assert not run(rest)
    assert others == [False] * len(others)
    assert row.refreshed().state == PENDING
    assert Holding(running.LEASE, 60).take()


def test_nothing_is_done_while_somebody_else_has_the_lease() -> None:
    row = make_delivery(state=DEAD)
    order(delivery_state=DEAD)
    assert Holding(running.LEASE, 60).take()
    assert not run(never)
    assert row.refreshed().state == DEAD


def test_it_takes_no_lease_when_there_is_nothing_to_do(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert not run(never)


def test_replays_take_turns() -> None:
    endpoint, now, size = make_endpoint(), timezone.now(), engine().prune_chunk
    rows = [Delivery(event_id=new_id(), endpoint=endpoint, state=DEAD, due_at=now, created_at=now) for _ in range(2 * size)]
    Delivery.objects.bulk_create(rows)
    wishes = [order(delivery_state=DEAD) for _ in range(3)]
    stops = iter([False, False, True])
    assert not run(lambda seconds: next(stops))
    assert [wish.refreshed().looked_at for wish in wishes] == [size] * 3


def test_a_run_that_is_out_of_time_says_that_there_is_more() -> None:
    endpoint, event = make_endpoint(), make_event()
    now = timezone.now()
    rows = [Delivery(event_id=new_id(), endpoint=endpoint, state=DEAD, due_at=now, created_at=now) for _ in range(engine().prune_chunk + 1)]
    Delivery.objects.bulk_create(rows)
    make_delivery(event=event, endpoint=endpoint, state=DEAD)
    wish = order(delivery_state=DEAD)
    assert run(never, budget_s=0.0)
    assert wish.refreshed().looked_at == engine().prune_chunk
    assert not run(never)
    assert (wish.refreshed().state, wish.done, wish.skipped) == ("finished", 1, engine().prune_chunk + 1)


# --- Pace --------------------------------------------------------------------------------------------------------------


def paced(rate: float, count: int, moments: list[float]) -> list[int]:
    """How many deliveries had been put back at each of these seconds after the beginning."""
    endpoint = make_endpoint()
    for _ in range(count):
        make_delivery(endpoint=endpoint, state=DEAD)
    wish = order(delivery_state=DEAD, rate_per_s=rate)
    began, found = wish.next_at, []
    for seconds in moments:
        step(wish.pk, began + timedelta(seconds=seconds))
        found.append(wish.refreshed().done)
    return found


def test_it_keeps_to_its_rate_evenly() -> None:
    assert paced(10, 40, [0, 0.25, 0.49, 0.5, 0.9, 1.0, 1.5, 2.0]) == [5, 5, 5, 10, 10, 15, 20, 25]


def test_it_makes_up_for_being_a_little_late() -> None:
    assert paced(10, 40, [0, 0.7, 1.0, 1.4, 1.5]) == [5, 10, 15, 15, 20]


def test_it_never_makes_up_for_a_long_pause() -> None:
    assert paced(10, 40, [0, 60, 60, 60.25, 60.5]) == [5, 10, 10, 10, 15]


def test_a_slow_rate_is_one_delivery_at_a_time() -> None:
    assert paced(0.1, 5, [0, 5, 9.9, 10, 15, 21, 30, 40]) == [1, 1, 1, 2, 2, 3, 4, 5]


def test_a_slow_replay_holds_no_worker() -> None:
    for _ in range(3):
        make_delivery(state=DEAD)
    wish, rests = order(delivery_state=DEAD, rate_per_s=0.01), []

    def rest(seconds: float) -> bool:
        rests.append(seconds)
        return False

    assert not run(rest)
    assert wish.refreshed().done == 1
    assert sum(rests) < running.BUDGET_S


def test_what_does_not_match_costs_no_pace() -> None:
    endpoint = make_endpoint()
    for _ in range(5):
        make_delivery(endpoint=endpoint, state=DELIVERED)
    row = make_delivery(endpoint=endpoint, state=CANCELLED)
    wish = order(endpoint=endpoint, delivery_state=CANCELLED, rate_per_s=1)
    for _ in range(6):
        step(wish.pk, wish.next_at, 1)
    assert row.refreshed().state == PENDING


# --- Recover -----------------------------------------------------------------------------------------------------------


def test_it_makes_the_deliveries_that_an_endpoint_missed() -> None:
    before, after, other = old_event(HOUR * 3), old_event(HOUR), old_event(HOUR, type="app.bsky.graph.follow")
    mine = make_subscription(collections=["app.bsky.feed.*"]).endpoint
    make_subscription(collections=["app.bsky.graph.*"])
    now = timezone.now()
    wish = Replay(action="recover", endpoint=mine, since=now - HOUR * 2)
    assert preview(wish) == (1, False)
    ended = done(action="recover", endpoint=mine, since=now - HOUR * 2)
    row = Delivery.objects.get()
    assert (row.event, row.endpoint, row.state, row.tries, row.attempt_count, row.order_key) == (after, mine, PENDING, 0, 0, None)
    assert now <= row.created_at == row.due_at
    assert (ended.state, ended.done, ended.skipped) == ("finished", 1, 0)
    assert {before, other}.isdisjoint({row.event})


def test_it_makes_no_delivery_twice_and_leaves_those_that_exist() -> None:
    events = [old_event(HOUR * age) for age in (4, 3, 2, 1)]
    endpoint = make_subscription().endpoint
    there = make_delivery(event=events[1], endpoint=endpoint, state=DELIVERED)
    since = timezone.now() - HOUR * 5
    assert done(action="recover", endpoint=endpoint, since=since).done == 3
    assert there.refreshed().state == DELIVERED
    assert done(action="recover", endpoint=endpoint, since=since).done == 0
    assert [row.event for row in Delivery.objects.exclude(pk=there.pk).order_by("id")] == [events[0], *events[2:]]


def test_a_recovery_may_be_narrower_than_the_subscriptions() -> None:
    old_event(HOUR * 3)
    wanted = old_event(HOUR * 2, type="app.bsky.graph.follow")
    old_event(HOUR * 2, type="app.bsky.feed.like")
    old_event(HOUR / 2, type="app.bsky.graph.follow")
    now, endpoint = timezone.now(), make_subscription().endpoint
    assert done(action="recover", endpoint=endpoint, since=now - HOUR * 4, until=now - HOUR, collections=["app.bsky.graph.*"]).done == 1
    assert Delivery.objects.get().event == wanted


def test_a_recovery_follows_every_part_of_a_subscription() -> None:
    wanted = [old_event(HOUR, subject="did:plc:a", operation="delete"), old_event(HOUR, kind="identity", type="", operation="", subject="did:plc:a")]
    old_event(HOUR, subject="did:plc:b", operation="delete")
    old_event(HOUR, subject="did:plc:a")
    old_event(HOUR, kind="account", type="", operation="", subject="did:plc:a")
    endpoint = make_subscription(dids=["did:plc:a"], operations=["delete"], kinds=["commit", "identity"]).endpoint
    make_subscription(endpoint=endpoint, active=False)
    assert done(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 2).done == 2
    assert {row.event for row in Delivery.objects.all()} == set(wanted)


def test_a_recovery_waits_for_events_that_may_still_be_on_their_way() -> None:
    endpoint, now = make_subscription().endpoint, timezone.now()
    wish = order(action="recover", endpoint=endpoint, since=now - HOUR)
    now = wish.created_at
    assert step(wish.pk, now)
    # Stored by somebody who had looked at the subscriptions before this one was there.
    late = make_event()
    assert step(wish.pk, now + timedelta(seconds=9))
    assert Delivery.objects.get().event == late
    assert not step(wish.pk, now + timedelta(seconds=11))
    assert wish.refreshed().state == "finished"


@pytest.mark.parametrize("most", [1, 2, None])
def test_a_recovery_goes_on_after_a_crash(most: int | None) -> None:
    events = [old_event(HOUR * age) for age in (5, 4, 3, 2, 1)]
    endpoint = make_subscription().endpoint
    wish = order(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 6)
    step(wish.pk, timezone.now(), most)
    # One of its deliveries was cancelled and pruned since; it comes once.
    gone = Delivery.objects.order_by("id")[0]
    gone.delete()
    carry_out(wish, most)
    assert [row.event for row in Delivery.objects.order_by("id")] == [event for event in events if event.pk != gone.event_id]


def test_a_recovery_gives_ordered_endpoints_their_key_and_keeps_to_its_rate() -> None:
    for age in (5, 4, 3, 2, 1):
        old_event(HOUR * age, subject="did:plc:x")
    endpoint = make_subscription(endpoint=make_endpoint(ordered=True)).endpoint
    wish = order(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 6, rate_per_s=4)
    counts = []
    for seconds in (0, 0.25, 0.5, 1.0):
        step(wish.pk, wish.created_at + timedelta(seconds=seconds))
        counts.append(Delivery.objects.count())
    assert counts == [2, 2, 4, 5]
    assert set(Delivery.objects.values_list("order_key", flat=True)) == {order_key("did:plc:x")}


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_an_event_that_is_pruned_before_its_delivery_is_made_is_skipped() -> None:
    goes, stays = old_event(HOUR), old_event(HOUR)
    endpoint = make_subscription().endpoint
    wish = order(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 2)
    with transaction.atomic():
        assert engine().prune_events([goes.pk]) == 1
        stepping = Elsewhere(lambda: step(wish.pk, timezone.now()))
        eventually(somebody_waits)
    stepping.result()
    assert (wish.refreshed().done, wish.skipped) == (1, 1)
    assert Delivery.objects.get().event == stays


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_an_event_that_is_about_to_be_owed_is_not_pruned() -> None:
    event = old_event(HOUR)
    endpoint = make_subscription().endpoint
    wish = order(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 2)

    def prune() -> int:
        with transaction.atomic():
            return engine().prune_events([event.pk])

    with transaction.atomic():
        step(wish.pk, timezone.now())
        assert Elsewhere(prune).result() == 0
    assert prune() == 0
    assert Delivery.objects.get().event == event


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_recoveries_at_once_hold_the_same_events() -> None:
    events = [old_event(HOUR) for _ in range(3)]
    endpoints = [make_subscription().endpoint for _ in range(2)]
    first, second = (order(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 2) for endpoint in endpoints)
    with transaction.atomic():
        step(first.pk, timezone.now())
        Elsewhere(lambda: step(second.pk, timezone.now())).result()
    assert Delivery.objects.count() == 2 * len(events)


def test_a_recovery_sees_only_the_sources_of_its_tenant() -> None:
    old_event(HOUR)
    tenants = [make_tenant(slug="mine"), make_tenant(slug="other")]
    endpoints = [make_subscription(endpoint=make_endpoint(tenant=tenant)).endpoint for tenant in tenants]
    assert done(action="recover", endpoint=endpoints[0], since=timezone.now() - HOUR * 2).done == 1
    assert Delivery.objects.get().endpoint == endpoints[0]


def test_a_recovery_ends_without_a_delivery_when_its_endpoint_is_deleted_meanwhile() -> None:
    old_event(HOUR)
    endpoint = make_subscription().endpoint
    wish = order(action="recover", endpoint=endpoint, since=timezone.now() - HOUR * 2)
    Endpoint.objects.update(state="deleted")
    assert (carry_out(wish).state, Delivery.objects.count()) == ("finished", 0)


# --- Dismiss -----------------------------------------------------------------------------------------------------------


def test_it_dismisses_dead_letters_and_nothing_else() -> None:
    now = timezone.now()
    rows = [make_delivery(state=state, settled_at=None) for state in Delivery.State]
    ended = done(action="dismiss")
    assert [row.refreshed().state for row in rows] == [PENDING, DELIVERED, CANCELLED, CANCELLED]
    assert (rows[2].settled_at or now) >= now
    assert rows[3].settled_at is None
    assert (ended.done, ended.delivery_state) == (1, DEAD)
    assert list(AttemptTally.objects.values_list("endpoint", "outcome", "attempts")) == [(rows[2].endpoint_id, "cancelled", 1)]


def test_what_was_dismissed_can_be_replayed() -> None:
    row = make_delivery(state=DEAD, attempt_count=5, tries=5)
    assert dismiss([row.pk, row.pk, new_id()]) == 1
    assert dismiss([row.pk]) == 0
    assert row.refreshed().state == CANCELLED
    assert replay([row.pk]) == 1
    assert (row.refreshed().state, row.tries) == (PENDING, 0)


def test_dead_letters_of_a_deleted_endpoint_can_be_dismissed() -> None:
    row = make_delivery(state=DEAD, endpoint=make_endpoint(state="deleted"))
    assert done(action="dismiss").done == 1
    assert row.refreshed().state == CANCELLED


# --- Preview and bad input ---------------------------------------------------------------------------------------------


def test_a_preview_changes_nothing_and_counts_no_further_than_its_limit() -> None:
    rows = [make_delivery(state=DEAD) for _ in range(5)]
    assert [str(preview(Replay(delivery_state=DEAD), limit=limit)) for limit in (3, 5, 6)] == ["3+", "5", "5"]
    assert str(preview(Replay(delivery_state=DELIVERED), limit=3)) == "0+"
    assert not any(pending(rows))
    assert not Replay.objects.exists()


NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("over", "field", "words"),
    [
        ({"since": NOON, "until": NOON}, "until", "ends before it begins"),
        ({"since": NOON, "until": NOON - HOUR}, "until", "ends before it begins"),
        ({"since": datetime(2999, 1, 1, tzinfo=UTC)}, "since", "lies in the future"),
        ({"since": datetime.min.replace(tzinfo=UTC)}, "since", "choose a later time"),
        ({"until": datetime.min.replace(tzinfo=UTC)}, "until", "choose a later time"),
        ({"collections": ["app.*.post"]}, "collections", "is not a collection"),
        ({"collections": "app.bsky.feed.post"}, "collections", "JSON list"),
        ({"collections": [f"a.b{number}" for number in range(101)]}, "collections", "At most 100"),
        ({"rate_per_s": 0}, "rate_per_s", "A rate limit is"),
        ({"rate_per_s": -5}, "rate_per_s", "A rate limit is"),
        ({"rate_per_s": float("nan")}, "rate_per_s", "A rate limit is"),
        ({"action": "erase"}, "action", "not a valid choice"),
        ({"delivery_state": 9}, "delivery_state", "not a valid choice"),
        ({"action": "dismiss", "delivery_state": DELIVERED}, "delivery_state", "Only dead deliveries"),
        ({"action": "recover"}, "endpoint", "Say which endpoint"),
        ({"action": "recover"}, "since", "Say from which time"),
        ({"action": "recover", "delivery_state": DEAD}, "delivery_state", "Leave this empty"),
        ({"action": "recover", "event_id": new_id()}, "event", "Leave this empty"),
        ({"event_id": new_id()}, "event", "may have been pruned"),
    ],
)
def test_it_says_what_is_wrong_with_a_wish(over: dict[str, Any], field: str, words: str) -> None:
    for ask in (preview, start):
        with pytest.raises(ValidationError) as refusal:
            ask(Replay(**over))
        assert words in " ".join(refusal.value.message_dict[field])
    assert not Replay.objects.exists()


def test_it_refuses_an_endpoint_of_another_tenant() -> None:
    with pytest.raises(ValidationError, match="belongs to another tenant"):
        order(tenant=make_tenant(slug="mine"), endpoint=make_endpoint(tenant=make_tenant(slug="other")))


def test_it_says_how_far_back_events_exist() -> None:
    old_event(HOUR, received_at=datetime(2026, 7, 4, 12, 30, tzinfo=UTC))
    long_ago = timezone.now() - timedelta(days=settings.JETRELAY_RETENTION_DAYS, minutes=1)
    with pytest.raises(ValidationError, match=r"kept for 7 days .*, and the oldest one here came at 2026-07-04 12:30:00 UTC: choose a later time"):
        order(action="recover", endpoint=make_subscription().endpoint, since=long_ago)
    Event.objects.all()._raw_delete("default")
    with pytest.raises(ValidationError, match="there are none at present"):
        order(action="recover", endpoint=make_subscription().endpoint, since=long_ago)


def test_it_refuses_to_recover_for_nobody() -> None:
    since = timezone.now() - HOUR
    with pytest.raises(ValidationError, match="no active subscription"):
        order(action="recover", endpoint=make_subscription(active=False).endpoint, since=since)
    with pytest.raises(ValidationError, match="is unverified: nothing can be owed"):
        order(action="recover", endpoint=make_subscription(endpoint=make_endpoint(state="unverified")).endpoint, since=since)


# --- The task ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Wakes that the task sent, instead of a broker that takes them."""
    found: list[bool] = []
    monkeypatch.setattr(tenure, "stopping", threading.Event())
    monkeypatch.setattr(orders, "try_send", lambda: found.append(True))
    return found


def test_the_task_carries_replays_out(sent: list[bool]) -> None:
    row = make_delivery(state=DEAD)
    wish = order(delivery_state=DEAD)
    tasks.carry_on()
    assert (row.refreshed().state, wish.refreshed().state, sent) == (PENDING, "finished", [])


def test_the_task_ends_with_its_worker(sent: list[bool]) -> None:
    tenure.stopping.set()
    wish = order(delivery_state=DEAD)
    order(delivery_state=DEAD)
    tasks.carry_on()
    assert wish.refreshed().state == "finished"
    assert (Replay.objects.running().count(), sent) == (1, [])


def test_one_that_fails_lets_the_others_go_on(sent: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = order(delivery_state=DEAD), order(delivery_state=DEAD)
    honest: Callable[..., bool] = running.step

    def fail(id: Any, now: datetime) -> bool:
        if id == bad.pk:
            raise DatabaseError("deadlock detected\n")
        return honest(id, now)

    monkeypatch.setattr(running, "step", fail)
    tasks.carry_on()
    assert good.refreshed().state == "finished"
    assert bad.refreshed().next_at > timezone.now()
    assert caplog.messages == ["A replay could not go on; it is tried again soon. deadlock detected"]


def test_the_task_says_in_one_line_that_the_database_is_away(sent: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def away(*_: object) -> None:
        raise DatabaseError("server closed the connection\n")

    monkeypatch.setattr(running, "run", away)
    with caplog.at_level(logging.WARNING):
        tasks.carry_on()
    assert caplog.messages == ["Replays were cut short by the database; the next run goes on. server closed the connection"]


def test_the_task_is_scheduled() -> None:
    entry: dict[str, Any] = settings.CELERY_BEAT_SCHEDULE["replay"]
    assert entry["task"] == tasks.carry_on.name == orders.TASK
    assert entry["schedule"] <= 5


def test_moves_are_made_in_chunks_of_any_number() -> None:
    endpoint, now = make_endpoint(), timezone.now()
    event = make_event()
    rows = [make_delivery(endpoint=endpoint, event=event, state=DEAD)]
    assert moves.replay([*(new_id() for _ in range(moves.CHUNK * 2)), rows[0].pk]) == 1
    assert moves.dismiss([*(new_id() for _ in range(moves.CHUNK * 2)), rows[0].pk]) == 0
    assert rows[0].refreshed().due_at >= now


# --- The command, and a real process that dies -------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    call_command("replay", *arguments)
    return capsys.readouterr().out


def test_the_command_counts_orders_and_carries_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [make_delivery(state=DEAD) for _ in range(3)]
    assert said(capsys, "--state", "dead", "--dry-run") == "3 deliveries would be put back in the queue.\n"
    assert said(capsys, "--endpoint", rows[0].endpoint.public_id, "--rate", "5").endswith(": 1 delivery to be put back in the queue.\n")
    assert not any(pending(rows))
    assert said(capsys, "dismiss", "--event", rows[1].event.public_id, "--wait").endswith(": finished, 1 dismissed.\n")
    assert [row.refreshed().state for row in rows] == [PENDING, CANCELLED, DEAD]
    assert "manage.py" in Replay.objects.first().created_by  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "ep_0"], "There is no endpoint 'ep_0'"),
        (["--event", f"evt_{'0' * 32}"], "There is no event"),
        (["--since", "yesterday"], "is not a time"),
        (["--since", "2026-13-45T99:00:00"], "is not a time"),
        (["--rate", "0"], "rate_per_s: A rate limit is"),
        (["--collection", "a.*.b"], "collections: 'a.*.b' is not a collection"),
        (["recover"], "endpoint: Say which endpoint"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=re.escape(words)):
        call_command("replay", *arguments)


@pytest.mark.whole
@pytest.mark.django_db(transaction=True)
def test_a_process_that_is_killed_midway_is_continued_by_the_next_one() -> None:
    endpoint, event, now = make_endpoint(), make_event(), timezone.now()
    count = 8 * engine().prune_chunk
    events = [Event(**{"id": new_id(), "dedup_key": number.to_bytes(16)} | fields_of(event)) for number in range(count)]
    Event.objects.bulk_create(events)
    Delivery.objects.bulk_create(Delivery(event_id=each.pk, endpoint=endpoint, state=DEAD, due_at=now, created_at=now) for each in events)
    wish = order(endpoint=endpoint)
    name = connection.settings_dict["NAME"]
    url = f"sqlite:///{name}" if connection.vendor == "sqlite" else f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{name}"
    process = subprocess.Popen([sys.executable, "-m", "tests.replayer"], cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        for _ in range(3):
            assert process.stdout.readline() == b"a step is done\n"
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()  # type: ignore[union-attr]
    with transaction.atomic():
        # The server may still be busy with what the process had asked for last.
        reached = Replay.objects.select_for_update().get(pk=wish.pk).done
    assert 3 * engine().prune_chunk <= reached < count
    assert Delivery.objects.pending().count() == reached
    # Those that the dead process has put back die again: taking them twice would show.
    Delivery.objects.pending().update(state=DEAD)
    assert carry_out(wish).done == count
    assert Delivery.objects.pending().count() == count - reached


def fields_of(event: Event) -> dict[str, Any]:
    return {field.attname: getattr(event, field.attname) for field in Event._meta.concrete_fields if field.name not in ("id", "dedup_key")}


def test_a_tenant_with_many_replays_has_no_more_steps_than_one_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy, other = make_tenant(slug="greedy"), make_tenant(slug="other")
    many = [make_replay(tenant=greedy).pk for _ in range(5)]
    one = make_replay(tenant=other).pk
    steps: list[UUID] = []

    def note(id: UUID, _: datetime) -> bool:
        steps.append(id)
        return True

    monkeypatch.setattr(running, "step", note)
    run(lambda _: len(steps) >= 20)
    assert steps.count(one) == 10
    assert {steps.count(each) for each in many} == {2}
