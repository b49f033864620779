"""Lanes: drained here, in the test, against a real database and a real receiver."""

import socket
import threading
from collections import Counter
from datetime import datetime, timedelta
from time import monotonic, time
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from delivery import breaker, crew, lanes, retry, settling, signing, tenure, window
from delivery.engines.base import AttemptRow, Settlement
from delivery.leases import Holding, lane_lease, live
from delivery.models import Attempt, AttemptTally, Delivery, EndpointHealth, Lease
from delivery.outcomes import Done
from delivery.replay import replay
from delivery.retry import Outcome, Verdict
from subscriptions.ids import new_id, to_public
from subscriptions.models import Endpoint, new_secret
from tests.builders import make_delivery, make_endpoint, make_event
from tests.draining import LANE, bodies, drain_all, endpoint_at, owe, replying, states
from tests.receiver import Handler, Received, Receiver
from tests.threads import Elsewhere, eventually, patiently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


# --- one delivery --------------------------------------------------------------------------------------------------


def test_it_delivers_and_logs_the_attempt(receiver: Receiver) -> None:
    receiver.answer = replying(202, b"thanks", {"X-Thing": "yes"})
    delivery = make_delivery(endpoint=endpoint_at(receiver))
    before = timezone.now()
    assert lanes.drain(LANE) is False
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, delivery.tries, delivery.last_status, delivery.last_error) == (Delivery.State.DELIVERED, 1, 1, 202, "")
    assert delivery.settled_at is not None
    assert before <= delivery.settled_at <= timezone.now()
    (attempt,) = delivery.attempts.all()
    assert (attempt.number, attempt.status, attempt.error, attempt.error_detail, bytes(attempt.response_body)) == (1, 202, "", "", b"thanks")
    assert "X-Thing: yes" in attempt.response_headers
    assert before - timedelta(seconds=1) <= attempt.started_at <= delivery.settled_at
    assert 0 <= attempt.dns_ms <= attempt.connect_ms <= attempt.first_byte_ms <= attempt.total_ms
    assert attempt.total_ms > 0
    assert attempt.tls_ms == 0


def test_it_counts_attempts_in_the_tallies(receiver: Receiver) -> None:
    good, bad = endpoint_at(receiver), endpoint_at(receiver, url=receiver.url + "/bad", retry_schedule_s=[0])
    receiver.answer = lambda handler, received: handler.reply(500 if "bad" in received.path else 200)
    owe(good, 3)
    owe(bad, 2)
    drain_all()
    counts: Counter[tuple[UUID, str]] = Counter()
    for row in AttemptTally.objects.all():
        counts[row.endpoint_id, row.outcome] += row.attempts
        assert sum(row.buckets().values()) == row.attempts
        assert row.total_ms > 0
        assert (row.minute.second, row.minute.microsecond) == (0, 0)
    assert counts == {(good.id, "delivered"): 3, (bad.id, "retry"): 2, (bad.id, "dead"): 2}


def test_it_sends_the_body_byte_for_byte_and_signed(receiver: Receiver) -> None:
    body = '{"text":"Wörtchen  日本語 🎈","n": 1.0}\n'.encode()
    endpoint = endpoint_at(receiver, bearer_token="a-token")
    delivery = make_delivery(endpoint=endpoint, event=make_event(body=body))
    drain_all()
    (request,) = receiver.requests
    assert request.body == body
    assert request.webhook_id == to_public("evt", delivery.event_id)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer a-token"
    assert request.headers["user-agent"] == f"Jetrelay/{settings.VERSION}"
    Webhook(endpoint.secret).verify(request.body, dict(request.headers))


def test_it_sends_no_authorization_without_a_token(receiver: Receiver) -> None:
    make_delivery(endpoint=endpoint_at(receiver))
    drain_all()
    assert "authorization" not in receiver.requests[0].headers


def test_it_signs_with_both_secrets_while_they_rotate(receiver: Receiver) -> None:
    old = new_secret()
    endpoint = endpoint_at(receiver, previous_secret=old, previous_secret_expires_at=timezone.now() + timedelta(hours=1))
    make_delivery(endpoint=endpoint)
    drain_all()
    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in (endpoint.secret, old):
        Webhook(secret).verify(request.body, dict(request.headers))


def test_it_signs_with_the_new_secret_alone_after_the_overlap(receiver: Receiver) -> None:
    old = new_secret()
    endpoint = endpoint_at(receiver, previous_secret=old, previous_secret_expires_at=timezone.now() - timedelta(seconds=1))
    make_delivery(endpoint=endpoint)
    drain_all()
    (request,) = receiver.requests
    Webhook(endpoint.secret).verify(request.body, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(request.body, dict(request.headers))


def test_it_keeps_no_token_that_a_receiver_echoes(receiver: Receiver) -> None:
    receiver.answer = lambda handler, received: handler.reply(200, received.headers["authorization"].encode(), {"X-Echo": received.headers["authorization"]})
    delivery = make_delivery(endpoint=endpoint_at(receiver, bearer_token="a-secret-token"))
    drain_all()
    (attempt,) = delivery.attempts.all()
    assert "X-Echo: Bearer" in attempt.response_headers
    assert "a-secret-token" not in attempt.response_headers
    assert bytes(attempt.response_body).startswith(b"Bearer")
    assert b"a-secret-token" not in bytes(attempt.response_body)


def test_it_keeps_whatever_a_receiver_answers(receiver: Receiver) -> None:
    header = bytes(range(0x80, 0x100)).decode("latin-1")
    receiver.answer = replying(200, bytes(range(256)), {"X-Odd": header})
    delivery = make_delivery(endpoint=endpoint_at(receiver))
    drain_all()
    (attempt,) = delivery.attempts.all()
    assert header in attempt.response_headers
    assert bytes(attempt.response_body) == bytes(range(256))


# --- failures ------------------------------------------------------------------------------------------------------


def test_a_replay_during_the_last_attempt_outlives_its_failure(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, retry_schedule_s=[3600])
    owe(endpoint, 1)
    Delivery.objects.update(tries=1, attempt_count=1)

    def answer(handler: Handler, _: Received) -> None:
        if len(receiver.requests) == 1:
            patiently(lambda: replay(list(Delivery.objects.values_list("pk", flat=True))))
            connections.close_all()
        handler.reply(500)

    receiver.answer = answer
    drain_all()
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.tries, delivery.attempt_count) == (Delivery.State.PENDING, 1, 3)
    assert (len(receiver.requests), Attempt.objects.count()) == (2, 2)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_it_moves_a_failure_on_as_the_schedule_says(status: int, receiver: Receiver) -> None:
    receiver.answer = replying(status, b"", {"Location": receiver.url})
    delivery = make_delivery(endpoint=endpoint_at(receiver, retry_schedule_s=[60, 3600]))
    for count, wait_s in enumerate((60, 3600), 1):
        before = timezone.now()
        assert lanes.drain(LANE) is False
        delivery.refresh_from_db()
        assert (delivery.state, delivery.attempt_count, delivery.tries, delivery.last_status) == (Delivery.State.PENDING, count, count, status)
        assert before + timedelta(seconds=wait_s) <= delivery.due_at <= timezone.now() + timedelta(seconds=wait_s)
        assert len(receiver.requests) == count
        Delivery.objects.update(due_at=timezone.now())
    drain_all()
    assert delivery.refreshed().state == Delivery.State.DEAD


def test_it_is_dead_after_the_last_attempt_with_all_of_them_logged(receiver: Receiver) -> None:
    receiver.answer = replying(500, b"sorry")
    delivery = make_delivery(endpoint=endpoint_at(receiver, retry_schedule_s=[0, 0, 0]))
    assert lanes.drain(LANE) is False
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, delivery.last_status) == (Delivery.State.DEAD, 4, 500)
    assert delivery.settled_at is not None
    assert list(delivery.attempts.values_list("number", "status")) == [(number, 500) for number in (1, 2, 3, 4)]
    assert {request.webhook_id for request in receiver.requests} == {to_public("evt", delivery.event_id)}


def test_it_starts_the_schedule_again_when_replayed(receiver: Receiver) -> None:
    receiver.answer = replying(500)
    delivery = make_delivery(endpoint=endpoint_at(receiver, retry_schedule_s=[0]))
    drain_all()
    replay([delivery.id])
    drain_all()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, delivery.tries) == (Delivery.State.DEAD, 4, 2)
    assert list(delivery.attempts.values_list("number", flat=True)) == [1, 2, 3, 4]


def test_it_is_dead_at_once_by_a_permanent_failure_where_only_transient_ones_are_retried(receiver: Receiver) -> None:
    receiver.answer = replying(404)
    delivery = make_delivery(endpoint=endpoint_at(receiver, retry_on=Endpoint.RetryOn.TRANSIENT))
    drain_all()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, delivery.last_status) == (Delivery.State.DEAD, 1, 404)
    assert len(receiver.requests) == 1


def test_it_names_what_went_wrong_where_no_answer_came() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    urls = {f"http://127.0.0.1:{port}/": "connect", "http://10.255.255.1/": "refused_address", "http://nowhere.invalid/": "dns", "ftp://127.0.0.1/": "bad_url"}
    urls["http://%ff.invalid/"] = "dns"  # libcurl's words about it are not text
    deliveries = {url: make_delivery(endpoint=make_endpoint(url=url, shard=LANE)) for url in urls}
    drain_all()
    for url, error in urls.items():
        delivery = deliveries[url].refreshed()
        (attempt,) = delivery.attempts.all()
        assert (delivery.state, delivery.last_status, delivery.last_error) == (Delivery.State.PENDING, None, error)
        assert (attempt.status, attempt.error) == (None, error)
        assert attempt.error_detail


def test_it_gives_up_a_delivery_whose_event_is_gone(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    gone, there = make_delivery(endpoint=endpoint), make_delivery(endpoint=endpoint)
    Delivery.objects.filter(pk=gone.pk).update(event_id=new_id())
    drain_all()
    gone.refresh_from_db()
    assert (gone.state, gone.last_error, gone.attempt_count) == (Delivery.State.DEAD, "missing_event", 1)
    assert [attempt.error for attempt in gone.attempts.all()] == ["missing_event"]
    assert there.refreshed().state == Delivery.State.DELIVERED
    assert len(receiver.requests) == 1


def test_it_sends_for_others_when_one_endpoint_cannot_be_used(receiver: Receiver) -> None:
    broken, well = endpoint_at(receiver, secret="whsec_not base64!"), endpoint_at(receiver)
    owe(broken, 1)
    owe(well, 2)
    lanes.drain(LANE)
    assert (states(broken), states(well)) == ({"pending": 1}, {"delivered": 2})


# --- what is sent, and when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [Endpoint.State.PAUSED, Endpoint.State.DISABLED])
def test_it_holds_the_deliveries_of_an_endpoint_that_is_not_active(state: Endpoint.State, receiver: Receiver) -> None:
    held, active = endpoint_at(receiver, state=state), endpoint_at(receiver)
    owe(held, 3)
    owe(active, 1)
    assert lanes.drain(LANE) is False
    assert (states(held), states(active)) == ({"pending": 3}, {"delivered": 1})
    Endpoint.objects.filter(pk=held.pk).set_state(Endpoint.State.ACTIVE, "")
    drain_all()
    assert states(held) == {"delivered": 3}


def test_it_leaves_other_lanes_and_what_is_not_due_alone(receiver: Receiver) -> None:
    other, mine = endpoint_at(receiver, shard=LANE + 1), endpoint_at(receiver, shard=LANE + settings.JETRELAY_LANES)
    owe(other, 1)
    owe(mine, 1)
    later = make_delivery(endpoint=mine, due_at=timezone.now() + timedelta(hours=1))
    drain_all()
    assert (states(other), states(mine)) == ({"pending": 1}, {"delivered": 1, "pending": 1})
    assert later.refreshed().attempt_count == 0


def test_it_sends_what_falls_due_while_it_drains(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    first = make_delivery(endpoint=endpoint)
    second = make_delivery(endpoint=endpoint, due_at=timezone.now() + timedelta(hours=1))

    def answer(handler: Handler, _: Received) -> None:
        if len(receiver.requests) == 1:
            patiently(lambda: Delivery.objects.filter(pk=second.pk).update(due_at=timezone.now()))
            connections.close_all()
        handler.reply(200)

    receiver.answer = answer
    drain_all()
    assert [delivery.refreshed().state for delivery in (first, second)] == [Delivery.State.DELIVERED] * 2


def test_it_stops_soon_when_the_endpoint_is_paused(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    owed = owe(endpoint, 300)

    def answer(handler: Handler, _: Received) -> None:
        if len(receiver.requests) == 3:
            patiently(lambda: Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.PAUSED, "a test"))
            connections.close_all()
        receiver.closing.wait(0.01)  # a receiver that takes its time
        handler.reply(200)

    receiver.answer = answer
    assert lanes.drain(LANE) is False
    sent = len(receiver.requests)
    assert 3 <= sent < 200
    assert states(endpoint) == {"delivered": sent, "pending": 300 - sent}
    receiver.answer = replying(200)
    Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.ACTIVE, "")
    drain_all()
    assert states(endpoint) == {"delivered": 300}
    assert sorted(bodies(receiver)) == sorted(owed)


def test_it_sends_to_the_new_url_when_it_changes(receiver: Receiver, hanging: Receiver) -> None:
    endpoint = endpoint_at(hanging, max_in_flight=1)
    owe(endpoint, 5)
    draining = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 1)
    endpoint.url, endpoint.max_in_flight = receiver.url, 2
    patiently(endpoint.save)
    receiver.wait_for(lambda got: len(got) == 4)
    hanging.closing.set()
    draining.result()
    assert states(endpoint) == {"delivered": 5}
    assert (len(hanging.requests), len(receiver.requests)) == (1, 4)


@pytest.mark.parametrize("limit", [1, 4])
def test_it_never_has_more_open_than_the_endpoint_allows(limit: int, receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=limit)
    owe(endpoint, 40)
    lock = threading.Condition()
    open_now, most = 0, 0

    def answer(handler: Handler, _: Received) -> None:
        nonlocal open_now, most
        with lock:
            open_now += 1
            most = max(most, open_now)
            lock.notify_all()
            lock.wait_for(lambda: most >= limit, 10)
        receiver.closing.wait(0.005)  # long enough for one too many to come in
        with lock:
            open_now -= 1
        handler.reply(200)

    receiver.answer = answer
    drain_all()
    assert most == limit
    assert states(endpoint) == {"delivered": 40}


def test_it_sends_the_oldest_first(receiver: Receiver) -> None:
    endpoint, now = endpoint_at(receiver, max_in_flight=1), timezone.now()
    ages = [5, 50, 1, 500, 5, 5000]
    deliveries = [make_delivery(endpoint=endpoint, due_at=now - timedelta(seconds=age)) for age in ages]
    drain_all()
    expected = sorted(deliveries, key=lambda delivery: (delivery.due_at, delivery.id))
    assert bodies(receiver) == [bytes(delivery.event.body) for delivery in expected]


def test_it_drains_a_backlog_that_is_larger_than_its_window(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WAITING", 80)
    monkeypatch.setattr(crew, "SETTLE_AT", 10)
    monkeypatch.setattr("delivery.looking_back.EVERY_S", 0.05)
    one, other = endpoint_at(receiver, max_in_flight=4), endpoint_at(receiver, max_in_flight=7)
    owed = owe(one, 300) + owe(other, 200)
    drain_all()
    assert sorted(bodies(receiver)) == sorted(owed)
    assert (states(one), states(other)) == ({"delivered": 300}, {"delivered": 200})
    assert Attempt.objects.count() == 500


def test_it_drains_a_long_backlog_with_its_own_numbers(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    owed = owe(endpoint, window.WAITING // 2 + 500)
    drain_all()
    assert sorted(bodies(receiver)) == sorted(owed)
    assert states(endpoint) == {"delivered": len(owed)}


# --- endpoints beside each other -----------------------------------------------------------------------------------


def test_it_does_not_let_a_hanging_endpoint_hold_up_another(receiver: Receiver, hanging: Receiver) -> None:
    slow, quick = endpoint_at(hanging), endpoint_at(receiver)
    owe(slow, 20)
    owed = owe(quick, 200)
    draining = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 20)
    receiver.wait_for(lambda got: len(got) == 200)
    eventually(lambda: states(quick) == {"delivered": 200})
    more = patiently(lambda: owe(quick, 5))
    receiver.wait_for(lambda got: len(got) == 205)
    eventually(lambda: states(quick) == {"delivered": 205})
    assert states(slow) == {"pending": 20}
    assert draining.running
    hanging.closing.set()
    draining.result()
    assert states(slow) == {"delivered": 20}
    assert sorted(bodies(receiver)) == sorted(owed + more)


def test_it_does_not_let_a_failing_endpoint_hold_up_another(receiver: Receiver) -> None:
    bad, good = endpoint_at(receiver, url=receiver.url + "/bad"), endpoint_at(receiver)
    receiver.answer = lambda handler, received: handler.abort() if "bad" in received.path else handler.reply(200)
    owe(bad, 50)
    owe(good, 50)
    drain_all()
    assert (states(bad), states(good)) == ({"pending": 50}, {"delivered": 50})
    # Those that were under way when the breaker opened have been tried, and only those that opened it have lost an attempt.
    assert breaker.THRESHOLD <= Delivery.objects.filter(endpoint=bad, attempt_count=1).count() <= breaker.THRESHOLD + bad.max_in_flight
    assert Delivery.objects.filter(endpoint=bad, tries=1).count() == breaker.THRESHOLD


# --- owners --------------------------------------------------------------------------------------------------------


def test_it_leaves_a_lane_that_this_process_drains_already(hanging: Receiver) -> None:
    endpoint = endpoint_at(hanging)
    owe(endpoint, 1)
    draining = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 1)
    started = monotonic()
    assert lanes.drain(LANE) is False
    assert monotonic() - started < 1
    assert draining.running
    hanging.closing.set()
    draining.result()
    assert len(hanging.requests) == 1


def test_it_leaves_a_lane_that_somebody_else_owns(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver)
    owe(endpoint, 2)
    other = Holding(lane_lease(LANE), 60)
    other.take()
    assert lanes.drain(LANE) is False
    assert receiver.requests == []
    assert other.renew()
    other.release()
    drain_all()
    assert states(endpoint) == {"delivered": 2}


def test_it_gives_the_lease_up_when_nothing_is_due() -> None:
    assert lanes.drain(LANE) is False
    assert live([lane_lease(LANE)]) == set()
    assert Lease.objects.filter(name=lane_lease(LANE)).exists()


def test_it_keeps_the_lease_for_as_long_as_it_works(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "LEASE_S", 1.2)
    endpoint = endpoint_at(receiver, max_in_flight=1)
    owe(endpoint, 25)
    other = Holding(lane_lease(LANE), 60)
    taken: list[bool] = []

    def answer(handler: Handler, _: Received) -> None:
        receiver.closing.wait(0.1)  # 25 of these take more than two leases
        taken.append(patiently(other.take))
        connections.close_all()
        handler.reply(200)

    receiver.answer = answer
    drain_all()
    assert taken == [False] * 25
    assert states(endpoint) == {"delivered": 25}


def test_it_stops_when_the_lease_went_to_somebody_else(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "LEASE_S", 0.3)
    endpoint, thief = endpoint_at(receiver, max_in_flight=1), new_id()
    owe(endpoint, 300)

    def answer(handler: Handler, _: Received) -> None:
        if len(receiver.requests) == 1:
            later = timezone.now() + timedelta(minutes=1)
            patiently(lambda: Lease.objects.filter(name=lane_lease(LANE)).update(token=thief, expires_at=later))
            connections.close_all()
        receiver.closing.wait(0.01)  # a receiver that takes its time
        handler.reply(200)

    receiver.answer = answer
    assert lanes.drain(LANE) is False
    sent = len(receiver.requests)
    assert sent < 200
    assert states(endpoint) == {"delivered": sent, "pending": 300 - sent}
    assert Lease.objects.get(name=lane_lease(LANE)).token == thief


def test_it_says_that_work_is_left_at_the_end_of_its_slice(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "SLICE_S", 0.1)
    endpoint = endpoint_at(receiver, max_in_flight=1)
    owed = owe(endpoint, 60)

    def answer(handler: Handler, _: Received) -> None:
        receiver.closing.wait(0.01)  # a receiver that takes its time
        handler.reply(200)

    receiver.answer = answer
    assert lanes.drain(LANE) is True
    assert live([lane_lease(LANE)]) == set()
    sent = len(receiver.requests)
    assert 0 < sent < 60
    assert states(endpoint) == {"delivered": sent, "pending": 60 - sent}
    drain_all()
    assert bodies(receiver) == owed


def test_it_drains_and_gives_the_lane_up_when_it_is_told_to_stop(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, max_in_flight=1)
    owe(endpoint, 300)

    def answer(handler: Handler, _: Received) -> None:
        if len(receiver.requests) == 3:
            tenure.stopping.set()
        receiver.closing.wait(0.01)  # a receiver that takes its time
        handler.reply(200)

    receiver.answer = answer
    assert lanes.drain(LANE) is False
    sent = len(receiver.requests)
    assert 3 <= sent < 200
    assert states(endpoint) == {"delivered": sent, "pending": 300 - sent}
    assert live([lane_lease(LANE)]) == set()
    assert lanes.drain(LANE) is False
    assert len(receiver.requests) == sent


def test_it_waits_for_what_hangs_no_longer_than_the_grace(hanging: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "GRACE_S", 0.2)
    endpoint = endpoint_at(hanging)
    owe(endpoint, 1)
    draining = Elsewhere(lambda: lanes.drain(LANE))
    hanging.wait_for(lambda got: len(got) == 1)
    tenure.stopping.set()
    assert draining.result() is False
    assert live([lane_lease(LANE)]) == set()
    assert states(endpoint) == {"pending": 1}
    # Whoever drains next sends it again, with the same id.
    hanging.closing.set()
    tenure.stopping.clear()
    drain_all()
    assert states(endpoint) == {"delivered": 1}
    assert len({request.webhook_id for request in hanging.requests}) == 1


def test_it_finds_lanes_with_due_work_and_no_owner(receiver: Receiver) -> None:
    count, now = settings.JETRELAY_LANES, timezone.now()
    make_delivery(endpoint=endpoint_at(receiver, shard=count + 1))
    make_delivery(endpoint=endpoint_at(receiver, shard=2), due_at=now + timedelta(hours=1))
    make_delivery(endpoint=endpoint_at(receiver, shard=3, state=Endpoint.State.PAUSED))
    make_delivery(endpoint=endpoint_at(receiver, shard=4), state=Delivery.State.DEAD)
    make_delivery(endpoint=endpoint_at(receiver, shard=5))
    make_delivery(endpoint=endpoint_at(receiver, shard=6))
    endpoint_at(receiver, shard=7)
    Holding(lane_lease(5), 60).take()
    ended = Holding(lane_lease(6), 60)
    ended.take()
    ended.release()
    assert lanes.lanes_due() == {1, 6}


# --- settling ------------------------------------------------------------------------------------------------------


def done(delivery: Delivery, verdict: Verdict, status: int | None, due_at: datetime | None = None) -> Done:
    """A finished attempt at a delivery as it stands now."""
    settlement = Settlement(delivery.id, delivery.attempt_count, status, "" if status else "timeout", due_at)
    attempt = AttemptRow(new_id(), delivery.id, delivery.attempt_count + 1, timezone.now(), 0, 1, 0, 2, 3, status, settlement.error, "", "", b"")
    return Done(delivery.endpoint_id, verdict, settlement, attempt, delivery.event_id)


def as_it_stands(delivery: Delivery) -> dict[str, Any]:
    return dict(Delivery.objects.filter(pk=delivery.pk).values().get())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_it_changes_nothing_when_it_settles_the_same_twice(outcome: Outcome) -> None:
    delivery, later = make_delivery(), timezone.now() + timedelta(hours=1)
    news = [done(delivery, Verdict(outcome), 200 if outcome is Outcome.DELIVERED else 500, later if outcome is Outcome.RETRY else None)]
    settling.save(news)
    settled = as_it_stands(delivery)
    assert settled["attempt_count"] == 1
    settling.save(news)
    assert as_it_stands(delivery) == settled
    assert delivery.attempts.count() == 1


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.DEAD])
def test_it_does_not_reopen_what_was_delivered_meanwhile(outcome: Outcome) -> None:
    delivery = make_delivery()
    late = done(delivery, Verdict(outcome), 500, timezone.now() + timedelta(hours=1) if outcome is Outcome.RETRY else None)
    settling.save([done(delivery, retry.DELIVERED, 200)])
    settled = as_it_stands(delivery)
    settling.save([late])
    assert as_it_stands(delivery) == settled
    assert delivery.attempts.count() == 2


def test_it_does_not_bury_by_late_news_what_somebody_else_will_try_again() -> None:
    delivery = make_delivery()
    late = done(delivery, retry.DEAD, 404)
    settling.save([done(delivery, Verdict(Outcome.RETRY), 500, timezone.now() + timedelta(hours=1))])
    waiting = as_it_stands(delivery)
    settling.save([late])
    assert as_it_stands(delivery) == waiting


def test_it_takes_late_news_of_a_success() -> None:
    delivery = make_delivery()
    late = done(delivery, retry.DELIVERED, 200)
    settling.save([done(delivery, Verdict(Outcome.RETRY), 500, timezone.now() + timedelta(hours=1))])
    settling.save([late])
    assert delivery.refreshed().state == Delivery.State.DELIVERED


def test_it_leaves_a_cancelled_delivery_cancelled() -> None:
    delivery = make_delivery()
    late = done(delivery, retry.DELIVERED, 200)
    Delivery.objects.update(state=Delivery.State.CANCELLED)
    settling.save([late])
    assert delivery.refreshed().state == Delivery.State.CANCELLED


def test_it_settles_the_rest_when_one_answer_cannot_be_stored() -> None:
    good, odd = make_delivery(), make_delivery()
    news = [done(good, retry.DELIVERED, 200), done(odd, retry.DELIVERED, 200)]
    news[1] = news[1]._replace(attempt=news[1].attempt._replace(response_headers="a\0b"))
    settling.save_one_by_one(news)
    assert [delivery.refreshed().state for delivery in (good, odd)] == [Delivery.State.DELIVERED] * 2
    assert Attempt.objects.count() == 2


@pytest.mark.parametrize(
    ("over", "waits"),
    [
        ({}, [30, 300, 1800, 7200]),
        ({"retry_strategy": "schedule", "retry_schedule_s": [7], "retry_count": 9}, [7]),
        ({"retry_strategy": "exponential"}, [30, 120, 480, 1920, 7200]),
        ({"retry_strategy": "exponential", "retry_first_s": 5, "retry_factor": 3, "retry_longest_s": 40, "retry_count": 3, "retry_step_s": 1}, [5, 15, 40]),
        ({"retry_strategy": "linear", "retry_first_s": 5, "retry_step_s": 3, "retry_longest_s": 10, "retry_count": 3, "retry_factor": 9}, [5, 8, 10]),
        ({"retry_strategy": "fixed", "retry_first_s": 5, "retry_count": 2, "retry_longest_s": 1}, [5, 5]),
        ({"retry_strategy": "fixed", "retry_count": 0}, []),
    ],
)
def test_it_retries_by_the_strategy_of_the_endpoint(over: dict[str, Any], waits: list[float], receiver: Receiver) -> None:
    receiver.answer = replying(500)
    delivery = make_delivery(endpoint=endpoint_at(receiver, **over))
    for wait_s in waits:
        before = timezone.now()
        lanes.drain(LANE)
        due_at = delivery.refreshed().due_at
        assert before + timedelta(seconds=wait_s) <= due_at <= timezone.now() + timedelta(seconds=wait_s)
        Delivery.objects.update(due_at=timezone.now())
        # As if others had been delivered meanwhile: or the breaker would open.
        EndpointHealth.objects.all().delete()
    drain_all()
    assert delivery.refreshed().state == Delivery.State.DEAD
    assert len(receiver.requests) == len(waits) + 1


def test_it_sends_nothing_by_a_strategy_that_it_does_not_know(receiver: Receiver) -> None:
    odd, well = endpoint_at(receiver, retry_strategy="prayer"), endpoint_at(receiver)
    owe(odd, 1)
    owe(well, 1)
    lanes.drain(LANE)
    assert (states(odd), states(well)) == ({"pending": 1}, {"delivered": 1})


# --- what goes along with a request --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", list(signing.Scheme))
def test_it_signs_as_the_endpoint_chose(scheme: signing.Scheme, receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, signature_scheme=scheme.value)
    delivery = make_delivery(endpoint=endpoint)
    drain_all()
    (request,) = receiver.requests
    assert request.webhook_id == to_public("evt", delivery.event_id)
    signing.verify([endpoint.secret], dict(request.headers), request.body, time(), scheme)
    for other in set(signing.Scheme) - {scheme}:
        with pytest.raises(signing.InvalidSignature):
            signing.verify([endpoint.secret], dict(request.headers), request.body, time(), other)


@pytest.mark.parametrize("scheme", list(signing.Scheme))
def test_it_satisfies_a_receiver_with_the_old_secret_during_an_overlap(scheme: signing.Scheme, receiver: Receiver) -> None:
    old = new_secret()
    endpoint = endpoint_at(receiver, signature_scheme=scheme.value, secret=old)
    endpoint.replace_secret(new_secret())
    endpoint.save()
    make_delivery(endpoint=endpoint)
    drain_all()
    (request,) = receiver.requests
    signing.verify([old], dict(request.headers), request.body, time(), scheme)
    if scheme is not signing.Scheme.HOOKSTREAM:
        signing.verify([endpoint.secret], dict(request.headers), request.body, time(), scheme)


def test_it_sends_extra_headers_along(receiver: Receiver) -> None:
    make_delivery(endpoint=endpoint_at(receiver, bearer_token="a-token", extra_headers="X-Api-Key: a key of two; words\nX-Env: test"))
    drain_all()
    (request,) = receiver.requests
    sent = {name: request.headers[name] for name in ("x-api-key", "x-env", "authorization", "content-type")}
    assert sent == {"x-api-key": "a key of two; words", "x-env": "test", "authorization": "Bearer a-token", "content-type": "application/json"}
    assert request.webhook_id


def test_it_keeps_no_key_that_a_receiver_echoes(receiver: Receiver) -> None:
    echo = "Token k3y-of-15-chars; Bearer k3y-of-15-chars-and-more; env=short; 12345678; 1234567"
    receiver.answer = replying(200, echo.encode(), {"X-Echo": echo})
    headers = "X-Api-Key: Token k3y-of-15-chars\nX-Env: short\nX-Eight: 12345678\nX-Seven: 1234567"
    delivery = make_delivery(endpoint=endpoint_at(receiver, bearer_token="k3y-of-15-chars-and-more", extra_headers=headers))
    drain_all()
    (attempt,) = delivery.attempts.all()
    kept = "Token ***; Bearer ***; env=short; ***; 1234567"
    assert f"X-Echo: {kept}" in attempt.response_headers
    assert bytes(attempt.response_body).decode() == kept
