"""Cancelling what deleted endpoints were owed, in chunks."""

import logging
from typing import Any

import pytest
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Sum
from django.utils import timezone

from delivery import cancelling, tasks
from delivery.cancelling import cancel, cancel_of_deleted
from delivery.engines import engine
from delivery.models import AttemptTally, Delivery
from subscriptions.models import Endpoint
from tests.builders import make_delivery, make_endpoint
from tests.threads import Elsewhere

PENDING, CANCELLED = Delivery.State.PENDING, Delivery.State.CANCELLED


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(engine()), "prune_chunk", 2)


def never(_seconds: float) -> bool:
    return False


def make_deleted(owed: int) -> Endpoint:
    endpoint = make_endpoint(state=Endpoint.State.DELETED)
    # Of one moment, as after a replay of many: then the id alone tells them apart.
    now = timezone.now()
    for _ in range(owed):
        make_delivery(endpoint=endpoint, due_at=now)
    return endpoint


def left() -> int:
    return Delivery.objects.pending().count()


@pytest.mark.django_db
@pytest.mark.usefixtures("chunks_of_two")
def test_it_cancels_chunk_by_chunk_with_a_rest_after_each() -> None:
    rests: list[float] = []

    def rest(seconds: float) -> bool:
        rests.append(seconds)
        return False

    make_deleted(5)
    assert cancel_of_deleted(rest) == (5, True)
    assert len(rests) == 3
    assert all(0 < seconds <= cancelling.MAX_REST_S for seconds in rests)
    assert list(Delivery.objects.values_list("state", flat=True)) == [CANCELLED] * 5
    assert not Delivery.objects.filter(settled_at=None).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("chunks_of_two")
def test_it_stops_when_it_is_told_to_and_goes_on_the_next_time() -> None:
    make_deleted(3)
    make_deleted(3)
    assert cancel_of_deleted(lambda _: True) == (2, False)
    assert cancel_of_deleted(never, budget_s=0.0) == (1, False)
    assert cancel_of_deleted(never) == (3, True)
    assert left() == 0


@pytest.mark.django_db
def test_it_leaves_endpoints_alone_that_are_not_deleted() -> None:
    for state in set(Endpoint.State) - {Endpoint.State.DELETED}:
        make_delivery(endpoint=make_endpoint(state=state))
    assert cancel_of_deleted(never) == (0, True)
    assert left() == len(Endpoint.State) - 1


@pytest.mark.django_db
def test_it_asks_little_where_there_is_nothing_to_do(django_assert_num_queries: Any) -> None:
    make_deleted(0)
    make_delivery()
    with django_assert_num_queries(1):
        cancel_of_deleted(never)


@pytest.mark.django_db
@pytest.mark.usefixtures("chunks_of_two")
def test_it_counts_what_it_cancels() -> None:
    endpoint = make_deleted(3)
    cancel_of_deleted(never)
    found = AttemptTally.objects.filter(endpoint=endpoint, outcome="cancelled").aggregate(count=Sum("attempts"))
    assert found["count"] == 3


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_it_leaves_what_is_being_settled_to_whoever_settles_it() -> None:
    endpoint = make_deleted(3)
    settled = Delivery.objects.order_by("id")[1]
    with transaction.atomic():
        Delivery.objects.filter(pk=settled.pk).update(state=Delivery.State.DELIVERED)
        assert Elsewhere(lambda: cancel(endpoint.pk, never, 60)).result() == (2, True)
    assert settled.refreshed().state == Delivery.State.DELIVERED
    assert left() == 0


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_it_finds_what_was_stored_by_somebody_who_had_not_heard_of_the_deletion() -> None:
    endpoint = make_deleted(1)
    with transaction.atomic():
        make_delivery(endpoint=endpoint)
        assert Elsewhere(lambda: cancel_of_deleted(never)).result() == (1, True)
    assert cancel_of_deleted(never) == (1, True)


@pytest.mark.django_db
def test_its_task_says_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    make_deleted(2)
    with caplog.at_level(logging.INFO, "delivery.cancelling"):
        tasks.cancel()
        tasks.cancel()
    assert caplog.messages == ["Cancelled 2 deliveries of deleted endpoints."]


def test_its_task_leaves_a_broken_database_to_the_next_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise DatabaseError("server closed the connection\n")

    monkeypatch.setattr(cancelling, "cancel_of_deleted", broken)
    tasks.cancel()
    assert caplog.messages == ["Cancelling was cut short by the database; the next run goes on. server closed the connection"]


@pytest.mark.parametrize("broken", [False, True])
def test_it_asks_for_its_task_and_goes_on_without_a_broker(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def send_task(name: str, **options: Any) -> None:
        sent.append(name)
        if broken:
            raise OSError("no broker")

    monkeypatch.setattr(current_app, "send_task", send_task)
    cancelling.ask()
    assert sent == [tasks.cancel.name]


def test_its_task_is_scheduled() -> None:
    entry: dict[str, Any] = settings.CELERY_BEAT_SCHEDULE["cancel"]
    assert entry["task"] == tasks.cancel.name
    # A run is over before the next one starts.
    assert entry["schedule"] > cancelling.BUDGET_S + cancelling.MAX_REST_S
