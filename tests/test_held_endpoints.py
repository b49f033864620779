"""Endpoints in trouble: the breaker, Retry-After, 410, and days of failure, on real lanes with a real receiver."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from pytest_django import Settings

from delivery import endpoints, lanes
from delivery.breaker import HOPELESS, THRESHOLD
from delivery.models import Attempt, Delivery, EndpointHealth, Lease
from subscriptions.ids import new_id
from subscriptions.models import ConfigVersion, Endpoint
from tests.draining import LANE, cool, drain_all, endpoint_at, health, owe, replying, retry_now, states, time_left, when
from tests.receiver import Answer, Receiver
from tests.threads import Elsewhere, eventually, patiently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

DOWN = replying(500)
UP = replying(200)


def refusing(poisoned: Collection[bytes]) -> Answer:
    """An answer of a receiver that fails on some events and takes the others."""
    return lambda handler, received: handler.reply(500 if received.body in poisoned else 200)


def broken(receiver: Receiver, **over: Any) -> Endpoint:
    """An endpoint whose breaker is open, and that has something waiting."""
    endpoint = endpoint_at(receiver, **{"max_in_flight": 1} | over)
    receiver.answer = DOWN
    owe(endpoint, 20)
    drain_all()
    assert time_left(health(endpoint).open_until) > timedelta(0)
    receiver.requests.clear()
    return endpoint


# --- the breaker -------------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_open_the_breaker_and_nothing_more_is_sent(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    receiver.answer = DOWN
    owe(endpoint, 100)
    drain_all()
    assert len(receiver.requests) == THRESHOLD
    row = health(endpoint)
    assert (row.failures, row.trips, row.ramp, row.reason) == (THRESHOLD, 1, None, "500")
    assert timedelta(seconds=20) < time_left(row.open_until) <= timedelta(seconds=30)
    assert states(endpoint) == {"pending": 100}
    assert not lanes.lanes_due()


def test_an_outage_stops_the_claimed_backlog_within_what_was_in_flight(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=8)
    receiver.answer = lambda handler, _: handler.abort()
    owe(endpoint, 1000)
    drain_all()
    assert THRESHOLD <= len(receiver.requests) < THRESHOLD + endpoint.max_in_flight
    assert Delivery.objects.filter(endpoint=endpoint, tries=1).count() == THRESHOLD
    assert Delivery.objects.filter(endpoint=endpoint, tries__gt=1).count() == 0
    assert "reset" in health(endpoint).reason or "empty_response" in health(endpoint).reason


def test_while_it_is_open_another_owner_sends_nothing_either(receiver: Receiver) -> None:
    endpoint = broken(receiver)
    retry_now(endpoint)
    drain_all()
    assert receiver.requests == []
    assert states(endpoint) == {"pending": 20}


def test_one_probe_goes_out_when_it_has_cooled_and_a_failure_costs_it_nothing(receiver: Receiver) -> None:
    endpoint = broken(receiver)
    cool(endpoint)
    drain_all()
    assert len(receiver.requests) == 1
    row = health(endpoint)
    assert (row.trips, row.failures) == (2, THRESHOLD + 1)
    assert timedelta(seconds=50) < time_left(row.open_until) <= timedelta(seconds=60)
    (probe,) = Delivery.objects.filter(endpoint=endpoint, attempt_count=1, tries=0)
    assert probe.due_at <= timezone.now(), "nothing but the breaker holds it"


def test_each_probe_is_another_delivery(receiver: Receiver) -> None:
    endpoint = broken(receiver)
    for _ in range(4):
        cool(endpoint)
        drain_all()
    assert len({request.webhook_id for request in receiver.requests}) == 4


def test_an_outage_of_any_length_costs_no_dead_letters(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, retry_schedule_s=[0], max_in_flight=1)
    receiver.answer = DOWN
    owe(endpoint, 3)
    # The third delivery's first attempt opens the breaker: two are dead by then, as their schedule says.
    drain_all()
    assert states(endpoint) == {"dead": 2, "pending": 1}
    for _ in range(30):
        cool(endpoint)
        retry_now(endpoint)
        drain_all()
    assert len(receiver.requests) == THRESHOLD + 30
    assert states(endpoint) == {"dead": 2, "pending": 1}
    receiver.answer = UP
    cool(endpoint)
    retry_now(endpoint)
    drain_all()
    assert states(endpoint) == {"dead": 2, "delivered": 1}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("poison", [6, 150])
def test_events_that_the_receiver_never_takes_do_not_hold_up_what_it_takes(poison: int, ordered: bool, receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=8, ordered=ordered)
    receiver.answer = refusing(poisoned := set[bytes]())
    poisoned.update(owe(endpoint, poison, [f"poison {number}" for number in range(poison)] if ordered else [""]))
    drain_all()
    assert health(endpoint).trips == 1
    receiver.requests.clear()
    healthy = owe(endpoint, 5, [f"healthy {number}" for number in range(5)] if ordered else [""])
    coolings = 0
    while not set(healthy) <= {request.body for request in receiver.requests} and coolings < 10:
        cool(endpoint)
        drain_all()
        coolings += 1
    assert coolings <= 1, "half a minute"
    assert states(endpoint)["pending"] == poison


def test_what_the_receiver_takes_is_found_whether_it_is_older_or_newer(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    poisoned = set[bytes]()
    receiver.answer = refusing(poisoned)
    poisoned.update(owe(endpoint, 5))
    healthy = owe(endpoint, 3)
    poisoned.update(owe(endpoint, 100))
    drain_all()
    assert health(endpoint).trips == 1
    coolings = 0
    while not set(healthy) <= {request.body for request in receiver.requests} and coolings < 10:
        cool(endpoint)
        drain_all()
        coolings += 1
    assert coolings <= 2


def test_a_probe_was_tried_as_seldom_as_any(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    receiver.answer = DOWN
    owe(endpoint, 12)
    drain_all()
    for _ in range(12 - THRESHOLD):
        cool(endpoint)
        drain_all()
    assert set(Delivery.objects.filter(endpoint=endpoint).values_list("attempt_count", flat=True)) == {1}


def test_a_probe_that_arrives_closes_it_and_the_backlog_follows_in_steps(receiver: Receiver) -> None:
    endpoint = broken(receiver, max_in_flight=4)
    retry_now(endpoint)
    cool(endpoint)
    open_at_once, most = [0], [0]

    def answer(handler: Any, _: Any) -> None:
        open_at_once[0] += 1
        most[0] = max(most[0], open_at_once[0])
        if len(receiver.requests) == 1:
            assert states(endpoint) == {"pending": 20}
            connections.close_all()
        open_at_once[0] -= 1
        handler.reply(200)

    receiver.answer = answer
    drain_all()
    assert states(endpoint) == {"delivered": 20}
    assert most[0] <= 4
    row = health(endpoint)
    assert (row.open_until, row.ramp, row.trips, row.failures) == (None, None, 0, 0)


def test_it_recovers_one_request_at_a_time_first(receiver: Receiver, hanging: Receiver) -> None:
    endpoint = broken(receiver, max_in_flight=8)
    Endpoint.objects.filter(pk=endpoint.pk).update(url=hanging.url)
    EndpointHealth.objects.filter(pk=endpoint.pk).update(open_until=None, ramp=2, version=7)
    ConfigVersion.bump()
    retry_now(endpoint)
    drain = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 2)
    with pytest.raises(TimeoutError):
        hanging.wait_for(lambda got: len(got) > 2, timeout_s=0.5)
    hanging.closing.set()
    drain.result()
    drain_all()
    assert states(endpoint) == {"delivered": 20}


def test_its_state_outlives_the_owner_and_its_recovery_goes_on_where_it_was(receiver: Receiver) -> None:
    endpoint = broken(receiver, max_in_flight=8)
    before = health(endpoint)
    drain_all()
    assert health(endpoint).open_until == before.open_until
    cool(endpoint)
    receiver.answer = UP
    some = list(Delivery.objects.filter(endpoint=endpoint).order_by("id").values_list("pk", flat=True)[:3])
    Delivery.objects.filter(pk__in=some).update(due_at=timezone.now())
    Delivery.objects.exclude(pk__in=some).update(due_at=timezone.now() + timedelta(hours=1))
    drain_all()
    row = health(endpoint)
    # The probe closed it, one success made two of one, and the turn that ended well is a step of its own.
    assert (row.open_until, row.ramp, row.trips) == (None, 4, 1)


def test_people_can_reset_it_while_its_lane_runs(receiver: Receiver) -> None:
    endpoint = broken(receiver)
    other = endpoint_at(receiver, url=receiver.url + "/other")
    with Receiver() as gate:
        gate.answer = when(gate.closing)
        Endpoint.objects.filter(pk=other.pk).update(url=gate.url)
        owe(other, 1)
        drain = Elsewhere(lambda: lanes.drain(LANE))
        gate.wait_for(lambda got: len(got) == 1)
        receiver.answer = UP
        retry_now(endpoint)
        patiently(lambda: EndpointHealth.objects.filter(pk=endpoint.pk).update(open_until=None, ramp=1, failures=0, trips=0, version=1))
        patiently(ConfigVersion.bump)
        eventually(lambda: states(endpoint) == {"delivered": 20})
        gate.closing.set()
        drain.result()


def test_what_an_owner_writes_late_does_not_undo_what_people_did(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    EndpointHealth.objects.create(endpoint=endpoint, version=3)

    def answer(handler: Any, _: Any) -> None:
        if len(receiver.requests) == THRESHOLD:
            # Nobody bumps the configuration: the lane does not know.
            patiently(lambda: EndpointHealth.objects.filter(pk=endpoint.pk).update(version=4))
            connections.close_all()
        handler.reply(500)

    receiver.answer = answer
    owe(endpoint, 10)
    lanes.drain(LANE)
    row = health(endpoint)
    assert (row.version, row.open_until, row.failures) == (4, None, 0)


def test_an_owner_that_lost_the_lane_says_nothing_about_its_endpoints(receiver: Receiver) -> None:
    """It still believes in its lease: somebody took it a moment ago."""
    endpoint = endpoint_at(receiver, max_in_flight=1)

    def answer(handler: Any, _: Any) -> None:
        patiently(lambda: Lease.objects.update(token=new_id()))
        connections.close_all()
        handler.reply(503, b"", {"Retry-After": "600"})

    receiver.answer = answer
    owe(endpoint, 1)
    drain_all()
    assert Attempt.objects.count() == 1
    assert not EndpointHealth.objects.exists()


def test_failures_of_a_quiet_endpoint_add_up_over_the_turns_of_its_lane(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    receiver.answer = DOWN
    for _ in range(THRESHOLD):
        owe(endpoint, 1)
        lanes.drain(LANE)
    row = health(endpoint)
    assert (row.failures, row.trips) == (THRESHOLD, 1)
    assert time_left(row.open_until) > timedelta(0)


def test_a_success_in_a_later_turn_starts_the_count_again(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    receiver.answer = lambda handler, _: handler.reply(200 if len(receiver.requests) == THRESHOLD else 500)
    for _ in range(2 * THRESHOLD - 1):
        owe(endpoint, 1)
        lanes.drain(LANE)
    row = health(endpoint)
    assert (row.failures, row.open_until) == (THRESHOLD - 1, None)


def test_a_quiet_endpoint_recovers_by_turns_with_nothing_but_successes(receiver: Receiver) -> None:
    endpoint = broken(receiver, max_in_flight=8)
    Delivery.objects.all().delete()
    cool(endpoint)
    receiver.answer, ramps = UP, []
    for _ in range(4):
        owe(endpoint, 1)
        lanes.drain(LANE)
        ramps.append(health(endpoint).ramp)
    assert (ramps[0], ramps[-1]) == (1, None)
    assert health(endpoint).trips == 0


def test_a_refused_probe_dies_in_the_end_where_nothing_else_can_be_tried(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, retry_schedule_s=[0] * 8, max_in_flight=1)
    receiver.answer = replying(400)
    owe(endpoint, 1)
    drain_all()
    assert health(endpoint).trips == 1
    coolings = 0
    while states(endpoint) == {"pending": 1} and coolings < 20:
        cool(endpoint)
        drain_all()
        coolings += 1
    # Five attempts opened the breaker, three probes cost nothing, four more were counted.
    assert (states(endpoint), coolings) == ({"dead": 1}, 7)


def test_an_answer_from_the_old_url_says_nothing_of_the_new_one(receiver: Receiver, hanging: Receiver) -> None:
    endpoint = endpoint_at(hanging)
    hanging.answer = when(hanging.closing, 410)
    owe(endpoint, 1)
    drain = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 1)
    endpoint.url = receiver.url
    patiently(endpoint.save)
    # That this one is sent to says that the lane has seen what has changed.
    patiently(lambda: owe(endpoint_at(receiver), 1))
    receiver.wait_for(lambda got: len(got) == 1)
    patiently(lambda: owe(endpoint, 3))
    eventually(lambda: states(endpoint) == {"pending": 1, "delivered": 3})
    hanging.closing.set()
    drain.result()
    drain_all()
    assert endpoint.refreshed().state == Endpoint.State.ACTIVE
    assert states(endpoint) == {"delivered": 4}


def test_a_reset_lets_go_on_what_was_put_off(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, ordered=True, retry_schedule_s=[0])
    receiver.answer = replying(503, b"", {"Retry-After": "3600"})
    owe(endpoint, 5)
    drain_all()
    receiver.answer = UP
    endpoints.reset_breaker(Endpoint.objects.all())
    drain_all()
    assert states(endpoint) == {"delivered": 5}


def test_single_failures_leave_no_trace_in_the_table(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    receiver.answer = lambda handler, _: handler.reply(500 if len(receiver.requests) % 2 else 200)
    owe(endpoint, 20)
    drain_all()
    assert not EndpointHealth.objects.exists()


# --- Retry-After -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_pauses_the_whole_endpoint(status: int, receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    receiver.answer = replying(status, b"", {"Retry-After": "600"})
    owe(endpoint, 10)
    drain_all()
    assert len(receiver.requests) == 1
    row = health(endpoint)
    assert timedelta(seconds=590) < time_left(row.paused_until) <= timedelta(seconds=600)
    assert row.open_until is None
    assert not lanes.lanes_due()
    receiver.answer = UP
    cool(endpoint)
    retry_now(endpoint)
    drain_all()
    assert states(endpoint) == {"delivered": 10}


def test_retry_after_is_bounded_to_an_hour(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    receiver.answer = replying(503, b"", {"Retry-After": "864000"})
    owe(endpoint, 1)
    drain_all()
    assert timedelta(minutes=59) < time_left(health(endpoint).paused_until) <= timedelta(hours=1)
    assert Delivery.objects.get().due_at <= timezone.now() + timedelta(minutes=1), "nothing but the endpoint holds it"


def test_those_that_were_in_flight_when_it_asked_lose_no_attempt(receiver: Receiver) -> None:
    endpoint, everyone = endpoint_at(receiver, max_in_flight=8), []

    def answer(handler: Any, received: Any) -> None:
        everyone.append(received)
        receiver.wait_for(lambda got: len(got) >= 8)
        handler.reply(429, b"", {"Retry-After": "60"})

    receiver.answer = answer
    owe(endpoint, 8)
    drain_all()
    assert Delivery.objects.filter(tries=1).count() == 1
    assert Delivery.objects.filter(tries=0, attempt_count=1).count() == 7
    assert health(endpoint).failures == 1


@pytest.mark.parametrize("status", [500, 404])
def test_retry_after_of_other_answers_is_not_what_it_looks_like(status: int, receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, retry_schedule_s=[30])
    receiver.answer = replying(status, b"", {"Retry-After": "600"})
    owe(endpoint, 1)
    drain_all()
    assert health(endpoint).paused_until is None
    assert Delivery.objects.get().due_at <= timezone.now() + timedelta(seconds=30)


# --- disabled ----------------------------------------------------------------------------------------------------------


def test_410_disables_the_endpoint_at_once_and_keeps_what_it_is_owed(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1, retry_on=Endpoint.RetryOn.TRANSIENT)
    receiver.answer = replying(410)
    owe(endpoint, 10)
    drain_all()
    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.state_reason) == (Endpoint.State.DISABLED, "the receiver answered 410: it wants no more")
    assert len(receiver.requests) == 1
    assert states(endpoint) == {"pending": 10}
    assert set(Delivery.objects.values_list("tries", flat=True)) == {0}
    assert [attempt.status for attempt in Attempt.objects.all()] == [410]


def test_enabling_it_again_resumes_what_waits(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    receiver.answer = replying(410)
    owe(endpoint, 10)
    drain_all()
    receiver.answer = UP
    Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.ACTIVE, "")
    drain_all()
    assert states(endpoint) == {"delivered": 10}


def test_it_may_be_enabled_again_while_the_very_lane_that_disabled_it_runs(receiver: Receiver, hanging: Receiver) -> None:
    endpoint, other = endpoint_at(receiver, max_in_flight=1), endpoint_at(hanging)
    receiver.answer = replying(410)
    owe(endpoint, 5)
    owe(other, 1)
    drain = Elsewhere(lambda: lanes.drain(LANE))
    eventually(lambda: Endpoint.objects.get(pk=endpoint.pk).state == Endpoint.State.DISABLED)
    receiver.answer = UP
    patiently(lambda: Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.ACTIVE, ""))
    eventually(lambda: states(endpoint) == {"delivered": 5})
    hanging.closing.set()
    drain.result()


def failing_for(endpoint: Endpoint, age: timedelta, failures: int = HOPELESS) -> None:
    EndpointHealth.objects.filter(pk=endpoint.pk).update(failing_since=timezone.now() - age, failures=failures)


def test_days_of_nothing_but_failures_disable_it_with_the_reason(receiver: Receiver) -> None:
    endpoint = broken(receiver)
    failing_for(endpoint, timedelta(days=5))
    cool(endpoint)
    drain_all()
    endpoint.refresh_from_db()
    assert endpoint.state == Endpoint.State.DISABLED
    assert endpoint.state_reason.startswith("everything failed since ")
    assert endpoint.state_reason.endswith("; the last: 500")
    assert states(endpoint) == {"pending": 20}


@pytest.mark.parametrize(("days", "age", "state"), [(5, 4.9, "active"), (0, 300, "active"), (2, 2, "disabled")])
def test_how_many_days_is_a_setting(days: int, age: float, state: str, receiver: Receiver, settings: Settings) -> None:
    settings.JETRELAY_DISABLE_AFTER_DAYS = days
    endpoint = broken(receiver)
    failing_for(endpoint, timedelta(days=age))
    cool(endpoint)
    drain_all()
    assert endpoint.refreshed().state == state
