"""What Celery runs. Thin: a wake becomes a turn at a lane, the beat becomes a sweep, some pruning, or some replaying."""

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from django.db import InterfaceError, InternalError, OperationalError

from delivery import cancelling, interpreter, lanes, replay, tenure, totals, wakes
from delivery.folding import fold_for_a_while
from delivery.prune import prune_for_a_while
from delivery.replay import orders
from delivery.standin import StandIn

stand_in = StandIn()

# A database that is away, or read-only, is no news to a log: whoever was at work says so once, and the next sweep looks again.
_AWAY = (OperationalError, InterfaceError, InternalError)


@shared_task(name="delivery.drain", ignore_result=True, throws=_AWAY)
def drain(lane: int) -> None:
    """Drain the lane, and pass it on if there is more to do."""
    stand_in.hear()
    while lanes.drain(lane):
        if wakes.try_send(lane):
            return
        # The broker cannot pass the lane on: go on here.


@shared_task(name="delivery.sweep", ignore_result=True, throws=_AWAY)
def sweep() -> None:
    """Wake every lane that has due work and no owner. Once a second, this makes up for every lost wake."""
    stand_in.hear()
    for lane in lanes.lanes_due():
        wakes.try_send(lane)


@shared_task(name="delivery.prune", ignore_result=True)
def prune() -> None:
    """Delete some of what is older than its retention, add up new tallies, fold old ones. A shutdown ends it after the current chunk."""
    # Pruning adds up what it deletes; folding relies on it.
    if prune_for_a_while(tenure.stopping.wait) and totals.add_up_for_a_while():
        fold_for_a_while(tenure.stopping.wait)


@shared_task(name=orders.TASK, ignore_result=True)
def carry_on() -> None:
    """Take replays some seconds further, and pass them on if there is more to do. A shutdown ends it after the current step."""
    if replay.run_for_a_while(tenure.stopping.wait):
        orders.try_send()


@shared_task(name="delivery.cancel", ignore_result=True)
def cancel() -> None:
    """Cancel some of what is pending for deleted endpoints. A shutdown ends it after the current chunk."""
    cancelling.cancel_for_a_while(tenure.stopping.wait)


@worker_ready.connect
def settle_in(**_: object) -> None:
    interpreter.take_short_turns()
    interpreter.collect_rarely()
    interpreter.return_large_blocks()


@worker_ready.connect
def stand_by(**_: object) -> None:
    stand_in.start()


@worker_shutdown.connect
def wait_for_stand_in(**_: object) -> None:
    stand_in.join()


@worker_shutting_down.connect
def stop_lanes(**_: object) -> None:
    """Let the lanes settle what is in flight and give up their leases, instead of being waited for."""
    tenure.stopping.set()
