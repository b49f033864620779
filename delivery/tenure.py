"""A tenure: one owner's time at one lane, from taking its lease to giving it up.

It says when the lane may go on, when nothing new is sent any more, and when it is over. What the lane's endpoints have waiting
and in flight is in its lines. The work itself, claiming and settling, is done for all lanes of a process at once: see `crew.py`.
"""

import logging
import threading
from collections.abc import Iterable
from time import monotonic
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connection, transaction

from delivery import health, order
from delivery.destinations.exchange import Inbox
from delivery.leases import Holding
from delivery.lines import Line
from delivery.models import EndpointHealth
from subscriptions.models import Endpoint

logger = logging.getLogger(__name__)

# How long a dead owner's lane stands still, at most. Renewed each third of it.
LEASE_S = 9.0
# A busy owner hands the lane on after this, if nothing slow is in flight, so that other workers get their share.
SLICE_S = 10.0
# A request that has been open for longer than this is slow: a lane does not wait for it to hand over.
SLOW_S = 0.25
# An owner gives up a lane that has had nothing to do for so long.
LINGER_S = 0.5
# What depends on the time, such as the end of a rotation, is looked at this often.
RECONFIGURE_EVERY_S = 60.0
# At shutdown, what is in flight gets this long to finish.
GRACE_S = 10.0

# Set once, when the process is asked to stop.
stopping = threading.Event()


class Tenure:
    def __init__(self, lane: int, holding: Holding, inbox: Inbox) -> None:
        self.lane = lane
        self.holding = holding
        self.inbox = inbox
        self.lines: dict[UUID, Line] = {}
        self.config_version = -1
        self.slice_started = self.busy_at = monotonic()
        self.configured_at = 0.0
        # Set while nothing new is sent: at the end of a slice, at shutdown, or because the lease is lost.
        self.stopped_at: float | None = None
        self.lost = False
        # Whether it ends in the middle of its work, for others to have their share.
        self.hands_on = False
        # Whether the lane has been given up, and why if it was for a fault.
        self.over = False
        self.fault: BaseException | None = None

    # --- whether to go on --------------------------------------------------------------------------------------

    @property
    def sends(self) -> bool:
        """Whether new requests may be made."""
        return self.stopped_at is None and self.holding.held

    def has_ended(self) -> bool:
        if self.fault:
            return True
        if self.stopped_at is None:
            if not (stopping.is_set() or self._slice_is_over()):
                return not self._is_busy() and monotonic() - self.busy_at > LINGER_S and not self._is_looking()
            self.hands_on = not stopping.is_set()
            self._stop_sending()
        if not self._is_busy():
            return True
        waited_s = monotonic() - (self.stopped_at or 0.0)
        if stopping.is_set() or self.lost:
            return waited_s > GRACE_S
        if waited_s > SLOW_S:
            self._go_on()
        return False

    def note_business(self) -> None:
        if self._is_busy():
            self.busy_at = monotonic()

    def _slice_is_over(self) -> bool:
        if monotonic() - self.slice_started < SLICE_S:
            return False
        if any(line.is_slow(SLOW_S) for line in self.lines.values()):
            self.slice_started = monotonic()
            return False
        return True

    def _is_busy(self) -> bool:
        """Whether anything is waiting, in flight or to be settled."""
        return any(line.owned for line in self.lines.values())

    def _is_looking(self) -> bool:
        """Whether an ordered endpoint has subjects that were not looked at yet."""
        return any(line.open and not line.claims.exhausted for line in self.lines.values())

    def _stop_sending(self) -> None:
        self.stopped_at = monotonic()
        for line in self.lines.values():
            line.close()

    def _go_on(self) -> None:
        self.stopped_at, self.hands_on = None, False
        self.slice_started = monotonic()
        self.config_version = -1

    # --- the lease ---------------------------------------------------------------------------------------------

    def keep_lease(self) -> None:
        if self.lost or not self.holding.ripe:
            return
        if self.holding.renew():
            for line in self.lines.values():
                line.extend(self.holding.believed_until)
        else:
            logger.warning("Lane %d went to another worker while this one was held up.", self.lane)
            self.lost = True
            self._stop_sending()

    def leave(self) -> None:
        """Give the lane up, with what the next owner has to know. What comes back of it from now on is dropped: its owner sends that again."""
        for line in self.lines.values():
            line.left = True
        try:
            with transaction.atomic():
                if self.holding.hold_on():
                    self._store()
            self.holding.release()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Lane %d could not be given up and is free again in %.0f s: %s", self.lane, LEASE_S, str(error).strip())
            connection.close()

    def _store(self) -> None:
        """What the next owner has to know."""
        for line in self.lines.values():
            line.rest()
        health.store((line.endpoint_id, line.version, line.health) for line in self.lines.values() if line.has_changed)
        paced = ((line, line.next_request_at) for line in self.lines.values())
        health.store_paces((line.endpoint_id, line.version, at) for line, at in paced if at)

    # --- its endpoints -------------------------------------------------------------------------------------------

    def refresh_lines(self, version: int) -> None:
        """Take over endpoints that changed, if the configuration has; those that were paused or disabled close."""
        if version == self.config_version and monotonic() - self.configured_at < RECONFIGURE_EVERY_S:
            return
        endpoints = {endpoint.id: endpoint for endpoint in Endpoint.objects.active().in_lane(self.lane)}
        healths = health.rows(endpoints)
        order.forget(row.pk for row in healths.values() if row.ordered_since and not endpoints[row.pk].ordered)
        for gone in self.lines.keys() - endpoints.keys():
            self.lines[gone].close()
        for id, endpoint in endpoints.items():
            self._configure(self.lines.setdefault(id, Line(id, self.inbox)), endpoint, healths.get(id))
        self.config_version, self.configured_at = version, monotonic()

    def _configure(self, line: Line, endpoint: Endpoint, row: EndpointHealth | None) -> None:
        try:
            line.configure(endpoint, row)
            line.extend(self.holding.believed_until)
        except ValueError as error:
            # Its deliveries wait until the endpoint is mended; the others of the lane go on.
            logger.error("Nothing is sent to %s (%s): %s", endpoint.name, endpoint.public_id, error)
            line.close()


def in_order(lines: Iterable[Line]) -> list[Line]:
    """As everybody locks their rows."""
    return sorted(lines, key=lambda line: line.endpoint_id)
