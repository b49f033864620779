"""Leases: one holder at a time, by the database's clock."""

import threading
from datetime import timedelta
from time import monotonic

import pytest
import time_machine
from django.utils import timezone

from delivery.leases import Holding, lane_lease, live
from delivery.models import Lease
from tests.threads import Elsewhere, eventually, patiently

NAME = "lane:7"


@pytest.mark.django_db
def test_it_gives_a_new_lease_to_the_first_taker_alone() -> None:
    first, second = Holding(NAME, 60), Holding(NAME, 60)
    assert first.take()
    assert not second.take()
    assert (first.held, second.held) == (True, False)
    lease = Lease.objects.get()
    assert (lease.name, lease.token) == (NAME, first.token)
    assert lease.owner


@pytest.mark.django_db
def test_it_stays_with_a_holder_that_takes_it_again() -> None:
    holding = Holding(NAME, 60)
    assert holding.take()
    assert holding.take()
    assert Lease.objects.get().token == holding.token


@pytest.mark.django_db
def test_it_keeps_leases_of_other_names_apart() -> None:
    assert Holding(lane_lease(1), 60).take()
    assert Holding(lane_lease(2), 60).take()
    assert live([lane_lease(1), lane_lease(2), lane_lease(3)]) == {lane_lease(1), lane_lease(2)}


@pytest.mark.django_db(transaction=True)
def test_it_goes_to_the_next_when_it_has_run_out() -> None:
    first, second = Holding(NAME, 0.2), Holding(NAME, 60)
    assert first.take()
    assert not second.take()
    eventually(second.take)
    assert not first.held
    assert Lease.objects.get().token == second.token


@pytest.mark.django_db(transaction=True)
def test_it_is_not_believed_in_for_longer_than_the_database_keeps_it() -> None:
    holding, next_one = Holding(NAME, 0.3), Holding(NAME, 60)
    assert holding.take()
    eventually(lambda: not holding.held or next_one.take())
    assert not next_one.held
    assert not holding.held


@pytest.mark.django_db(transaction=True)
def test_it_cannot_be_renewed_once_somebody_else_has_it() -> None:
    first, second = Holding(NAME, 0.05), Holding(NAME, 60)
    assert first.take()
    eventually(second.take)
    assert not first.renew()
    assert not first.held
    assert second.held
    assert Lease.objects.get().token == second.token


@pytest.mark.django_db(transaction=True)
def test_it_may_be_renewed_late_while_nobody_else_wanted_it() -> None:
    holding = Holding(NAME, 0.05)
    assert holding.take()
    eventually(lambda: NAME not in live([NAME]))
    holding.duration_s = 60
    assert holding.renew()
    assert holding.held
    assert not Holding(NAME, 60).take()


@pytest.mark.django_db(transaction=True)
def test_it_lasts_longer_when_renewed() -> None:
    holding = Holding(NAME, 60)
    assert holding.take()
    before, believed = Lease.objects.get().expires_at, holding.believed_until
    eventually(lambda: holding.renew() and Lease.objects.get().expires_at > before)
    assert holding.believed_until > believed


@pytest.mark.django_db
def test_it_is_free_at_once_when_released() -> None:
    first, second = Holding(NAME, 60), Holding(NAME, 60)
    first.take()
    first.release()
    assert not first.held
    assert live([NAME]) == set()
    assert second.take()


@pytest.mark.django_db
def test_it_is_not_released_by_somebody_else() -> None:
    first, second = Holding(NAME, 60), Holding(NAME, 60)
    first.take()
    second.release()
    assert live([NAME]) == {NAME}
    assert not second.take()


@pytest.mark.django_db
def test_it_cannot_be_renewed_after_its_release() -> None:
    holding = Holding(NAME, 60)
    holding.take()
    holding.release()
    assert not holding.renew()
    assert not holding.held


def test_it_is_not_held_before_it_is_taken() -> None:
    assert not Holding(NAME, 60).held


def test_it_stops_being_held_by_its_own_clock() -> None:
    holding = Holding(NAME, 9, believed_until=monotonic() + 9)
    assert (holding.held, holding.ripe) == (True, False)
    holding.believed_until = monotonic() + 6 - 0.01
    assert (holding.held, holding.ripe) == (True, True)
    holding.believed_until = monotonic()
    assert (holding.held, holding.ripe) == (False, True)


@pytest.mark.django_db
@pytest.mark.parametrize("off_s", [-86_400, 86_400])
def test_it_is_timed_by_the_clock_of_the_database(off_s: int) -> None:
    first, second = Holding(NAME, 60), Holding(NAME, 60)
    assert first.take()
    with time_machine.travel(timezone.now() + timedelta(seconds=off_s), tick=False):
        assert not second.take()
        assert live([NAME]) == {NAME}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("left", ["none", "free"])
def test_it_has_one_winner_when_many_take_it_at_once(left: str) -> None:
    if left == "free":
        earlier = Holding(NAME, 60)
        earlier.take()
        earlier.release()
    together = threading.Barrier(8)

    def take() -> bool:
        together.wait(10)
        return patiently(Holding(NAME, 60).take)

    takers = [Elsewhere(take) for _ in range(8)]
    assert sorted(taker.result() for taker in takers) == [False] * 7 + [True]
    assert Lease.objects.count() == 1
