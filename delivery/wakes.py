"""Wakes: hints through Celery that a lane has work. Losing one costs a second (the sweep), never a delivery.

A wake is sent only for a lane that nobody owns: an owner looks for new work many times a second until it gives the
lane up, and looks once more after that. So under load there are no wakes at all, and while no worker lives the broker
does not fill with them: a lane that stays without an owner is woken less and less often.
"""

import logging
import threading
from collections.abc import Iterable
from queue import SimpleQueue
from time import monotonic

from celery import current_app
from django.db import DatabaseError, InterfaceError

from delivery import leases

logger = logging.getLogger(__name__)

# Between two wakes of a lane, in seconds: at least the first; doubling up to the last while it finds no owner.
_FIRST_INTERVAL_S = 0.05
_LAST_INTERVAL_S = 5.0
# A worker that was away for longer has sweeps to tell it.
_EXPIRES_S = 60


class Waker:
    """Sends wakes on a thread of its own, so that a slow or dead broker never holds up whoever stores events."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[int] = SimpleQueue()
        self._next_at: dict[int, float] = {}
        self._interval_s: dict[int, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self, lanes: Iterable[int]) -> None:
        """Wake those of the lanes that nobody owns. Call it after the commit."""
        lanes = set(lanes)
        try:
            owned = leases.live(leases.lane_lease(lane) for lane in lanes)
        except (DatabaseError, InterfaceError):
            return  # what was to be told is committed; the sweep tells it
        for lane in lanes:
            if leases.lane_lease(lane) in owned:
                self._interval_s.pop(lane, None)
            else:
                self._send_in_time(lane)

    def _send_in_time(self, lane: int) -> None:
        now = monotonic()
        with self._lock:
            if now < self._next_at.get(lane, 0.0):
                return
            interval_s = self._interval_s.get(lane, _FIRST_INTERVAL_S)
            self._next_at[lane] = now + interval_s
            self._interval_s[lane] = min(interval_s * 2, _LAST_INTERVAL_S)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="waker", daemon=True)
                thread.start()
                self._thread = thread
        self._queue.put(lane)

    def _run(self) -> None:
        failing = False
        while True:
            lane = self._queue.get()
            try:
                send(lane)
            except Exception as error:  # noqa: BLE001 - whatever the broker's client raises, the sweep makes up for it
                if not failing:
                    logger.warning("Cannot reach the broker: %s. Lanes at work go on, the others wait until it is back; check BROKER_URL.", error)
                failing = True
            else:
                if failing:
                    logger.info("The broker is back.")
                failing = False


def send(lane: int) -> None:
    """Ask some worker to drain the lane."""
    current_app.send_task("delivery.drain", args=[lane], queue="lanes", expires=_EXPIRES_S, retry=False, ignore_result=True)


def try_send(lane: int) -> bool:
    """`send`, for those who can go on without the broker. Returns whether the wake was sent."""
    try:
        send(lane)
    except Exception as error:  # noqa: BLE001 - as above
        logger.debug("A wake for lane %d could not be sent: %s", lane, error)
        return False
    return True


waker = Waker()
