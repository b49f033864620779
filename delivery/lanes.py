"""Lanes: whose turn it is. One owner at a time drains a lane: take the lease, claim, send, settle.

The work is a sliding window, not batches: claims run ahead of free slots, requests leave as slots come free, and what
has finished is settled every 50 ms or 500 results while the rest is still in flight. A slow request holds back neither
the settling of fast ones nor the claims of other endpoints.

The sender starts waiting requests by itself, so a lane that is busy with the database holds nothing up.

What happens at a crash: everything claimed or in flight is still pending in the database, so the next owner sends it;
what was in flight may arrive twice, with the same `webhook-id`. A settlement names the state it expects, so an owner
that lost its lease without noticing changes nothing that the next one has settled.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from time import monotonic, sleep, thread_time
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from delivery import health, leases, order
from delivery.destinations.exchange import POKED, Inbox
from delivery.engines import engine
from delivery.engines.base import Due, Head, Want
from delivery.leases import Holding, lane_lease
from delivery.lines import Line, Sent
from delivery.models import Delivery, EndpointHealth
from delivery.outcomes import Done
from delivery.settling import settle
from subscriptions.models import ConfigVersion, Endpoint

logger = logging.getLogger(__name__)

# How long a dead owner's lane stands still, at most. Renewed each third of it.
LEASE_S = 9.0
# A busy owner hands the lane on after this, if nothing slow is in flight, so that other workers get their share.
SLICE_S = 10.0
# A request that has been open for longer than this is slow: a lane does not wait for it to hand over.
SLOW_S = 0.25
SETTLE_EVERY_S = 0.05
SETTLE_AT = 500
# Claimed ahead in one lane, over all its endpoints.
WINDOW = 2000
# … while one of them has only a few to deliver.
CONSIDERATE_WINDOW = 250
# An owner with nothing to do looks again this often, and gives up the lane after the second.
IDLE_POLL_S = 0.025
# … or less often, where looking takes this thread's processor long: a thousand endpoints with nothing to do must not keep those waiting
# that have. (What it waits for others meanwhile does not count: the busier they are, the later a new delivery would be seen.)
IDLE_POLL_FACTOR = 10
MAX_POLL_S = 0.25
LINGER_S = 0.5
CONFIG_EVERY_S = 0.5
# What depends on the time, such as the end of a rotation, is looked at this often.
RECONFIGURE_EVERY_S = 60.0
# Every line starts its claims again from the oldest this often: a replay, or a commit that came late, may lie behind.
REWIND_EVERY_S = 1.0
# At shutdown, what is in flight gets this long to finish.
GRACE_S = 10.0

# Set once, when the process is asked to stop.
stopping = threading.Event()

_here: dict[int, Inbox] = {}
_here_lock = threading.Lock()


def drain(lane: int) -> bool:
    """Drain the lane until nothing is due, if nobody else does. Returns whether somebody should go on."""
    inbox = Inbox(enough=SETTLE_AT // 2)
    with _here_lock:
        if lane in _here:
            _here[lane].poke()
            return False
        _here[lane] = inbox
    try:
        holding = Holding(lane_lease(lane), LEASE_S)
        if stopping.is_set() or not holding.take():
            return False
        with bound_contextvars(lane=lane):
            _Drain(lane, holding, inbox).run()
    finally:
        with _here_lock:
            del _here[lane]
    # Whoever published while the lane was owned sent no wake. Now that it is free, look once more.
    return not stopping.is_set() and lane in lanes_due()


def lanes_due() -> set[int]:
    """Lanes with a delivery that could be sent now and that nobody owns."""
    now = timezone.now()
    owed = Delivery.objects.due(now).filter(endpoint=OuterRef("pk"))
    ready = Endpoint.objects.active().filter(Exists(owed)).exclude(health.held(now))
    due = {shard % settings.JETRELAY_LANES for shard in ready.filter(ordered=False).values_list("shard", flat=True).distinct()}
    for endpoint, shard, since in ready.filter(ordered=True).values_list("pk", "shard", "health__ordered_since"):
        # What is due there may have to wait for an older one of its subject that is not.
        if shard % settings.JETRELAY_LANES not in due and order.has_turn(endpoint, since):
            due.add(shard % settings.JETRELAY_LANES)
    owned = leases.live(lane_lease(lane) for lane in due)
    return {lane for lane in due if lane_lease(lane) not in owned}


class _Drain:
    """One turn of one owner."""

    def __init__(self, lane: int, holding: Holding, inbox: Inbox) -> None:
        self.lane = lane
        self.holding = holding
        self.inbox = inbox
        self.lines: dict[UUID, Line] = {}
        self.done: list[Done] = []
        self.config_version = -1
        self.slice_started = self.busy_at = self.settled_at = monotonic()
        self.config_at = self.configured_at = self.claim_at = self.rewind_at = 0.0
        # Set while nothing new is sent: at the end of a slice, at shutdown, or because the lease is lost.
        self.stopped_at: float | None = None
        self.lost = False
        self.troubles = 0

    def run(self) -> None:
        while not self._ended():
            try:
                self._keep_lease()
                if self.stopped_at is None and self.holding.held:
                    self._refresh_lines()
                    self._claim()
                self._collect()
                self._settle()
                self.troubles = 0
            except (DatabaseError, InterfaceError) as error:
                self._wait_for_database(error)
        self._leave()

    def _leave(self) -> None:
        """Give the lane up, with what the next owner has to know."""
        try:
            with transaction.atomic():
                for line in sorted(self.lines.values(), key=lambda line: line.endpoint_id) if self.holding.hold_on() else ():
                    line.leave()
            self.holding.release()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Lane %d could not be given up and is free again in %.0f s: %s", self.lane, LEASE_S, str(error).strip())
            connection.close()

    # --- whether to go on --------------------------------------------------------------------------------------

    def _ended(self) -> bool:
        if self.stopped_at is None:
            if not (stopping.is_set() or self._slice_is_over()):
                return not self._busy() and monotonic() - self.busy_at > LINGER_S and not self._looking()
            self._stop_sending()
        if not self._busy():
            return True
        waited_s = monotonic() - (self.stopped_at or 0.0)
        if stopping.is_set() or self.lost:
            return waited_s > GRACE_S
        if waited_s > SLOW_S:
            self._go_on()
        return False

    def _slice_is_over(self) -> bool:
        if monotonic() - self.slice_started < SLICE_S:
            return False
        if any(line.is_slow(SLOW_S) for line in self.lines.values()):
            self.slice_started = monotonic()
            return False
        return True

    def _busy(self) -> bool:
        """Whether anything is waiting, in flight or to be settled."""
        return any(line.owned for line in self.lines.values())

    def _looking(self) -> bool:
        """Whether an ordered endpoint has subjects that were not looked at yet."""
        return any(line.open and not line.claims.exhausted for line in self.lines.values())

    def _stop_sending(self) -> None:
        self.stopped_at = monotonic()
        for line in self.lines.values():
            line.close()

    def _go_on(self) -> None:
        self.stopped_at = None
        self.slice_started = monotonic()
        self.config_version = -1

    def _keep_lease(self) -> None:
        if self.lost or not self.holding.ripe:
            return
        if self.holding.renew():
            for line in self.lines.values():
                line.extend(self.holding.believed_until)
        else:
            logger.warning("Lane %d went to another worker while this one was held up.", self.lane)
            self.lost = True
            self._stop_sending()

    def _wait_for_database(self, error: Exception) -> None:
        """Keep what is in flight and what is done; both are worth settling once the database is back."""
        self.troubles += 1
        if self.troubles == 1:
            logger.warning("The database does not answer; lane %d waits for it. %s", self.lane, str(error).strip())
        connection.close()
        sleep(0.1 * 2 ** min(self.troubles, 4))

    # --- take, claim, collect, settle -----------------------------------------------------------------------------

    def _refresh_lines(self) -> None:
        """Take over endpoints that changed; those that were paused or disabled close."""
        if monotonic() - self.config_at < CONFIG_EVERY_S and self.config_version >= 0:
            return
        version = ConfigVersion.current()
        if version != self.config_version or monotonic() - self.configured_at > RECONFIGURE_EVERY_S:
            endpoints = {endpoint.id: endpoint for endpoint in Endpoint.objects.active().in_lane(self.lane)}
            healths = health.rows(endpoints)
            order.forget(row.pk for row in healths.values() if row.ordered_since and not endpoints[row.pk].ordered)
            for gone in self.lines.keys() - endpoints.keys():
                self.lines[gone].close()
            for id, endpoint in endpoints.items():
                self._configure(self.lines.setdefault(id, Line(id, self.inbox)), endpoint, healths.get(id))
            self.config_version, self.configured_at = version, monotonic()
        self.config_at = monotonic()

    def _configure(self, line: Line, endpoint: Endpoint, row: EndpointHealth | None) -> None:
        try:
            line.configure(endpoint, row)
            line.extend(self.holding.believed_until)
        except ValueError as error:
            # Its deliveries wait until the endpoint is mended; the others of the lane go on.
            logger.error("Nothing is sent to %s (%s): %s", endpoint.name, endpoint.public_id, error)
            line.close()

    def _claim(self) -> None:
        began, now = monotonic(), timezone.now()
        if began < self.claim_at:
            return
        spent = thread_time()
        if began - self.rewind_at > REWIND_EVERY_S:
            self.rewind_at = began
            for line in self.lines.values():
                line.rewind()
        for line in self.lines.values():
            if line.keying and line.open:
                line.keying.work()
        wants = self._wants(now)
        found = _found(wants.values(), now)
        chosen = {id: self.lines[id].choose(found.get(id, ()), now) for id in wants}
        news = [due.event_id for dues in chosen.values() for due in dues]
        bodies = engine().bodies(news) if news else {}
        for id, dues in chosen.items():
            if dues:
                self.done += self.lines[id].take(dues, bodies)
        self._plan_next(thread_time() - spent, [self.lines[id] for id in wants])

    def _wants(self, now: datetime) -> dict[UUID, Want | Head]:
        """What the lines want, which share what is left of the window by their weight."""
        lines = self.lines.values()
        room = WINDOW - sum(line.waiting for line in lines)
        hungry = sum(line.weight for line in lines if not line.claims.exhausted)
        # Somebody who has few wants them soon: what others take in one go is what he waits for.
        few_to_deliver = any(line.claims.exhausted and line.is_quick for line in lines)
        wants = {}
        for id, line in self.lines.items():
            most = CONSIDERATE_WINDOW if few_to_deliver and not line.claims.exhausted else room
            share = int(min(room, most) * line.weight / max(hungry, line.weight))
            if want := line.want(max(share, line.max_in_flight), now):
                wants[id] = want
        return wants

    def _plan_next(self, took_s: float, lines: Sequence[Line]) -> None:
        """Where there is more, go on as soon as half of what was taken is through; otherwise look again after a while."""
        more = [line.most for line in lines if not line.claims.exhausted]
        self.inbox.enough = max(1, min(SETTLE_AT, *more) // 2) if more else SETTLE_AT // 2
        rest_s = min(max(IDLE_POLL_S, took_s * IDLE_POLL_FACTOR), MAX_POLL_S)
        self.claim_at = 0.0 if more else monotonic() + rest_s

    def _collect(self) -> None:
        results = self.inbox.take(IDLE_POLL_S)
        if results is POKED:
            self.claim_at = 0.0
        for result in results:
            sent: Sent = result.tag
            self.done += sent.line.finish(sent, result)
        for line in self.lines.values():
            line.send_ripe()
        if self._busy():
            self.busy_at = monotonic()

    def _settle(self) -> None:
        """One transaction for everything that finished: attempts, new states, tallies, and how the endpoints are doing."""
        now = monotonic()
        if not self.done:
            self.settled_at = now
            return
        if len(self.done) < SETTLE_AT and now - self.settled_at < SETTLE_EVERY_S:
            return
        turned = [line for line in self.lines.values() if line.has_news]
        settle(self.done, lambda: self._store(turned))
        for line in turned if self.holding.held else ():
            line.news_is_stored()
        for done in self.done:
            self.lines[done.endpoint_id].owned.pop(done.settlement.id, None)
        self.done = []
        self.settled_at = monotonic()

    def _store(self, turned: Sequence[Line]) -> None:
        """In the settling transaction. Whoever lost the lane has nothing to say about its endpoints any more."""
        if turned and self.holding.hold_on():
            _store(turned)


def _found(wants: Iterable[Want | Head], now: datetime) -> dict[UUID, list[Due]]:
    loose = [want for want in wants if isinstance(want, Want)]
    found: dict[UUID, list[Due]] = {}
    for due in engine().claim(loose, now) if loose else ():
        found.setdefault(due.endpoint_id, []).append(due)
    for want in wants:
        if isinstance(want, Head):
            found[want.endpoint_id] = engine().claim_runs(want)
    return found


def _store(lines: Iterable[Line]) -> None:
    """In the order in which everybody locks these rows: endpoints, their health, the version."""
    lines = sorted(lines, key=lambda line: line.endpoint_id)
    disabled = [
        line for line in lines if line.condemned and Endpoint.objects.active().filter(pk=line.endpoint_id).mark(Endpoint.State.DISABLED, line.condemned)
    ]
    for line in lines:
        line.store_news()
    if disabled:
        ConfigVersion.bump()
    for line in disabled:
        logger.warning("Endpoint ep_%s is disabled: %s. Its deliveries wait.", line.endpoint_id.hex, line.condemned)
