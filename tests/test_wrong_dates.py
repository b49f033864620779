"""Times that a clock has written that was ahead, and is right by now: nobody waits for them, and they are named."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from delivery import breaker, lanes, leases, retry
from delivery import listener as listening
from delivery.breaker import Health
from delivery.leases import Holding, lane_lease, listener_lease
from delivery.listener import Listener
from delivery.models import Delivery, EndpointHealth, Lease, Replay
from delivery.replay import running
from jetrelay import readiness
from jetrelay.beat import PatientScheduler
from jetrelay.celery import app
from jetrelay.doctor import processes
from jetrelay.doctor.finding import Level
from tests.builders import make_health, make_host, make_replay, make_source, make_subscription
from tests.draining import LANE, endpoint_at, owe
from tests.receiver import Receiver
from tests.threads import Elsewhere, eventually

HOUR = timedelta(hours=1)


def dated(name: str, ahead: timedelta = HOUR) -> Lease:
    return Lease.objects.create(name=name, token=None, owner="elsewhere:7", expires_at=timezone.now() + ahead)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    readiness.shared.forget()
    yield
    readiness.shared.forget()


# --- leases ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_lease_dated_beyond_its_term_is_cut_to_it_and_named(caplog: pytest.LogCaptureFixture) -> None:
    dated("lane:7")
    taker = Holding("lane:7", 9)
    assert not taker.take()
    left = Lease.objects.get().expires_at - timezone.now()
    assert timedelta(seconds=5) < left <= timedelta(seconds=10)
    assert "The lease lane:7 was dated until" in caplog.text
    assert "elsewhere:7" in caplog.text
    caplog.clear()
    assert not taker.take()
    assert not caplog.text


@pytest.mark.django_db
def test_its_owner_keeps_it_if_it_lives() -> None:
    """The clock was put back while it held the lease: two owners at once are worse than one term of waiting."""
    owner, other = Holding("lane:7", 9), Holding("lane:7", 9)
    assert owner.take()
    Lease.objects.update(expires_at=timezone.now() + HOUR)
    assert not other.take()
    assert owner.renew()
    assert owner.held
    assert not other.take()
    assert Lease.objects.get().expires_at < timezone.now() + timedelta(seconds=10)


@pytest.mark.django_db(transaction=True)
def test_it_goes_to_who_wants_it_within_its_term() -> None:
    dated("lane:7")
    eventually(Holding("lane:7", 0.2).take)


@pytest.mark.django_db
def test_such_a_lease_holds_nothing() -> None:
    dated("lane:7")
    assert leases.live(["lane:7"]) == set()
    assert [lease.name for lease in leases.misdated()] == ["lane:7"]
    Lease.objects.update(expires_at=timezone.now() + timedelta(seconds=9))
    assert leases.live(["lane:7"]) == {"lane:7"}
    assert not leases.misdated()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_a_lane_is_drained_again_within_the_term(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.tenure.LEASE_S", 0.3)
    owe(endpoint_at(receiver), 1)
    dated(lane_lease(LANE))
    assert lanes.lanes_due() == {LANE}

    def swept() -> bool:
        """As it is done once a second."""
        for lane in lanes.lanes_due():
            lanes.drain(lane)
        return not Delivery.objects.pending().exists()

    eventually(swept)
    assert len(receiver.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_a_listener_takes_over_within_the_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "TICK_S", 0.05)
    monkeypatch.setattr(listening, "LEASE_S", 0.5)
    source = make_source()
    dated(listener_lease(source.pk))
    listener = Listener(source, ["ws://127.0.0.1:9/subscribe"])
    run = Elsewhere(listener.run)
    try:
        eventually(lambda: listener.holding.held)
    finally:
        listener.stop()
        run.result()


# --- what else is dated ----------------------------------------------------------------------------------------------


def test_a_breaker_and_a_pause_are_no_longer_than_they_are_made() -> None:
    now = timezone.now()
    for name, longest_s, held in (("open_until", breaker.LONGEST_COOLING_S, "open"), ("paused_until", breaker.LONGEST_PAUSE_S, "paused")):
        near, far = (Health(**{name: now + timedelta(seconds=longest_s + more_s)}) for more_s in (0, 61))  # type: ignore[arg-type]
        assert (near.state(now), near.room(8, now)) == (held, 0)
        assert far.state(now) == ("probing" if name == "open_until" else "closed")
        assert far.room(8, now) == (1 if name == "open_until" else 8)
        assert far.held_until(now) is None
    assert breaker.LONGEST_PAUSE_S == retry.MAX_RETRY_AFTER_S


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("over", [{"open_until": HOUR}, {"open_until": None, "paused_until": 2 * HOUR}, {"open_until": None, "paced_until": HOUR}])
def test_an_endpoint_is_sent_to_whatever_a_wrong_clock_wrote_of_it(over: dict[str, timedelta | None], receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, rate_limit_per_s=50.0)
    make_health(endpoint=endpoint, **{name: ahead and timezone.now() + ahead for name, ahead in over.items()})
    owe(endpoint, 1)
    assert lanes.lanes_due() == {LANE}
    lanes.drain(LANE)
    assert len(receiver.requests) == 1
    assert EndpointHealth.objects.get().open_until is None


@pytest.mark.django_db
def test_a_replay_goes_on_whatever_its_next_step_is_dated() -> None:
    make_replay(next_at=timezone.now() + HOUR, rate_per_s=1.0)
    running.run(lambda _: False, 0.1)
    assert Replay.objects.get().next_at <= timezone.now() + timedelta(minutes=1)


# --- beat ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep() -> PeriodicTask:
    every = IntervalSchedule.objects.create(every=300, period="seconds")
    return PeriodicTask.objects.create(name="sweep", task="delivery.sweep", interval=every, last_run_at=timezone.now() + HOUR)


@pytest.mark.django_db
def test_beat_runs_what_ran_last_in_the_future(sweep: PeriodicTask, caplog: pytest.LogCaptureFixture) -> None:
    entry = PatientScheduler.Entry(sweep, app=app)
    assert entry.is_due().is_due
    assert "The clock must have been ahead" in caplog.text.replace("the clock", "The clock")
    caplog.clear()
    after = next(entry)
    assert not after.is_due().is_due
    assert not caplog.text


@pytest.mark.django_db
def test_doctor_does_not_believe_that_beat_ran_in_the_future(sweep: PeriodicTask) -> None:
    (finding,) = processes.beat()
    assert (finding.level, "still to come" in finding.found) == (Level.PROBLEM, True)
    PeriodicTask.objects.update(last_run_at=timezone.now())
    assert [each.level for each in processes.beat()] == [Level.OK]


# --- whether all is well ---------------------------------------------------------------------------------------------


def unwell() -> dict[str, str]:
    return {name: problem.problem for name, problem in readiness.look().items() if isinstance(problem, readiness.Problem)}


@pytest.mark.django_db
def test_readiness_names_a_listener_that_is_none() -> None:
    source = make_source()
    make_subscription(source=source)
    dated(listener_lease(source.pk))
    assert unwell() == {"listener": "no listener reads the stream"}
    readiness.shared.forget()
    response = Client().get("/health/ready")
    assert (response.status_code, response.json()["parts"]["listener"]["status"]) == (503, "problem")


@pytest.mark.django_db
def test_readiness_goes_by_signs_of_life_and_not_by_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "STANDSTILL_S", 0.0)
    source = make_source()
    make_subscription(source=source)
    holding = Holding(listener_lease(source.pk), 60)
    assert holding.take()
    readiness.look()
    assert unwell()["listener"].startswith("the listener has given no sign of life for ")
    # One that moves is seen for the first time, at this very moment.
    monkeypatch.setattr(readiness, "STANDSTILL_S", 20.0)
    assert holding.renew()
    assert unwell() == {}
    make_host(source=source, seen_at=timezone.now() + HOUR)
    assert unwell() == {}
    monkeypatch.setattr(readiness, "STANDSTILL_S", 0.0)
    assert holding.renew()
    assert list(unwell()) == ["listener"]


@pytest.mark.django_db
def test_readiness_names_a_lane_that_is_kept_by_a_date(receiver: Receiver) -> None:
    dated(lane_lease(LANE))
    assert unwell() == {}
    owe(endpoint_at(receiver), 1)
    assert unwell()["deliveries"].startswith(f"work is due in lane {LANE}, and a lease that a wrong clock has dated")


@pytest.mark.django_db
def test_doctor_names_leases_that_are_dated_beyond_their_term() -> None:
    assert [each.level for each in processes.dates()] == [Level.OK]
    dated(lane_lease(LANE))
    (finding,) = processes.dates()
    assert (finding.level, f"the lease lane:{LANE} is dated until" in finding.found, bool(finding.advice)) == (Level.PROBLEM, True, True)
    assert [each.level for each in processes.machines()] == [Level.SKIPPED]


@pytest.mark.django_db(transaction=True)
def test_doctor_goes_by_whether_leases_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ANSWER_S", 0.3)
    monkeypatch.setattr(processes, "RENEWED_S", 0.3)
    source = make_source()
    make_subscription(source=source)
    holdings = [Holding(listener_lease(source.pk), 60), Holding(lane_lease(2), 60)]
    assert all(holding.take() for holding in holdings)
    assert [each.level for each in processes.worker()] == [Level.PROBLEM]
    assert next(iter(processes.listener())).found.endswith("has not renewed it within 0 s")
    monkeypatch.setattr(processes, "RENEWED_S", 20.0)
    asked = [Elsewhere(lambda check=check: [each.found for each in check()]) for check in (processes.worker, processes.listener)]  # type: ignore[misc]
    eventually(lambda: all(holding.renew() for holding in holdings) and not any(each.running for each in asked))
    assert asked[0].result() == ["1 of 8 lanes are being drained"]
    assert "is connected to no host yet" in asked[1].result()[0]
    connection.close()
