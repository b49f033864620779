"""The crew: everybody in this process who is at a lane. One of them works for all, in one thread.

The work is a sliding window, not batches: claims run ahead of free slots, requests leave as slots come free, and what
has finished is settled every 50 ms or 500 results while the rest is still in flight. A slow request holds back neither
the settling of fast ones nor the claims of other endpoints.

Lanes claim and settle together, because most of what these cost is the same for one row and for five hundred: with a thread and a
transaction for each of eight lanes, a delivery cost twice as much.

Whoever comes to a lane while another works joins and waits; when the one who works has no lane left, somebody who waits goes on.
The sender starts waiting requests by itself, so that a crew which is busy with the database holds nothing up.

What happens at a crash: everything claimed or in flight is still pending in the database, so the next owner sends it;
what was in flight may arrive twice, with the same `webhook-id`. A settlement names the state it expects, so an owner
that lost its lease without noticing changes nothing that the next one has settled.
"""

import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from time import monotonic, sleep, thread_time
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from delivery import health
from delivery.destinations.exchange import Inbox
from delivery.engines import engine
from delivery.engines.base import Due, Head, Subjects, Want
from delivery.lines import Line, Sent, forget_standings
from delivery.looking_back import LookingBack, Slice
from delivery.outcomes import Done
from delivery.settling import settle
from delivery.tenure import Tenure, in_order
from delivery.throttle import PIECE_S, Cost, Throttle
from delivery.window import IN_ONE_GO, LEAST, Window
from subscriptions.models import ConfigVersion, Endpoint

logger = logging.getLogger(__name__)

SETTLE_EVERY_S = 0.05
SETTLE_AT = 500
# How soon a change of an endpoint is seen.
CONFIG_EVERY_S = 0.5
# … or less often, where taking it over takes long: somebody who changes an endpoint again and again must not keep the others waiting.
CONFIG_REST_FACTOR = 5
# After a part of the deliveries of an endpoint that became ordered was given keys, rest from that for so many times as long: there may be a
# million of them, and others have theirs claimed meanwhile.
KEYS_REST_FACTOR = 4
# Settled in one transaction: who finishes thousands at a time has others wait for one such part of them.
SETTLE_MOST = 1000
# Lines that are looked back at in one go.
LOOKED_BACK_AT_ONCE = 64
# Bodies that are read in one go, by their number and about by their size; and all that are read before anything else is done.
BODIES_AT_ONCE = 256
BODY_BYTES_AT_ONCE = 8 * 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
# A crew with nothing to do looks again this often.
IDLE_POLL_S = 0.025
# … or less often, where looking takes this thread's processor long: a thousand endpoints with nothing to do must not keep those waiting
# that have. (What it waits for others meanwhile does not count: the busier they are, the later a new delivery would be seen.)
IDLE_POLL_FACTOR = 10
MAX_POLL_S = 0.25


# How long the crew of this process works for each tenant.
delivering = Throttle()


class Crew:
    def __init__(self) -> None:
        self.inbox = Inbox(enough=SETTLE_AT // 2)
        self._tenures: dict[int, Tenure] = {}
        self._changed = threading.Condition()
        self._led = False
        self._work = _Work(self.inbox)

    def serve(self, tenure: Tenure) -> None:
        """Work, or wait while others do, until the tenure is over. Raises what has ended it, if that was a fault."""
        with self._changed:
            self._tenures[tenure.lane] = tenure
        self.inbox.poke()
        while self._has_to_lead(tenure):
            try:
                self._lead(tenure)
            finally:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()
        if tenure.fault:
            raise tenure.fault

    def _has_to_lead(self, tenure: Tenure) -> bool:
        """Wait until nobody else does. False when the tenure is over by then."""
        with self._changed:
            self._changed.wait_for(lambda: tenure.over or not self._led)
            if tenure.over:
                return False
            self._led = True
            return True

    def _lead(self, mine: Tenure) -> None:
        try:
            while not mine.over:
                with self._changed:
                    tenures = list(self._tenures.values())
                ended = [tenure for tenure in tenures if tenure.has_ended()]
                for tenure in ended:
                    self._work.keep_standings(tenure)
                    self._dismiss(tenure)
                self._work.do([tenure for tenure in tenures if not tenure.over])
        except BaseException as fault:  # noqa: BLE001 - whoever waits here has to hear of it
            # A fault of our own, and nobody knows whose lane it came from. All of it is still pending in the database, and taken up afresh.
            self._work = _Work(self.inbox)
            forget_standings()
            for tenure in self._tenures.copy().values():
                tenure.fault = fault
                with contextlib.suppress(Exception):
                    self._dismiss(tenure)

    def _dismiss(self, tenure: Tenure) -> None:
        try:
            tenure.leave()
        finally:
            with self._changed:
                del self._tenures[tenure.lane]
                tenure.over = True
                self._changed.notify_all()


class _Work:
    """What is done for all lanes at once, again and again, by one thread at a time."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        # What has finished, and of which line each is; how many of each tenant.
        self._done: list[Done] = []
        self._whose: list[Line] = []
        self._finished: Counter[object] = Counter()
        self._settled_at = monotonic()
        self._claim_at = self._config_at = self._keys_at = 0.0
        self._looking_back = LookingBack()
        self._config_version = 0
        self._troubles = 0
        # Whether there was more to claim than one go takes.
        self._left_out = False
        # Of the bodies that were read last, in bytes, on average.
        self._body_size = 4096.0
        # How many deliveries this round has worked at, by tenant.
        self._done_for: Counter[object] = Counter()
        # What it takes to claim a delivery, and to settle one, of late.
        self._claiming, self._settling = (Cost(0.00005, memory=SETTLE_AT) for _ in range(2))
        # Lines that are still to be looked back at in this slice, and how long that took for the others.
        self._slice: Slice | None = None
        self._to_look: deque[Line] = deque()
        self._looked_s = 0.0
        # How long it has waited for results, in all.
        self._waited_s = 0.0

    def do(self, tenures: Sequence[Tenure]) -> None:
        began, waited_s = monotonic(), self._waited_s
        try:
            for tenure in tenures:
                tenure.keep_lease()
            sending = [tenure for tenure in tenures if tenure.sends]
            if sending:
                self._refresh(sending)
                self._claim([line for tenure in sending for line in tenure.lines.values()])
            self._collect(tenures)
            self._settle(tenures)
            self._troubles = 0
        except (DatabaseError, InterfaceError) as error:
            self._wait_for_database(error)
        self._share_out(monotonic() - began - (self._waited_s - waited_s))

    def _share_out(self, worked_s: float) -> None:
        """Count the work of this round for those it was done for, by how many deliveries of each were looked for, taken and settled."""
        number = sum(self._done_for.values())
        if number:
            for tenant, its in self._done_for.items():
                delivering.worked(tenant, worked_s * its / number)
            self._done_for.clear()

    def _in_one_go(self, tenant: object) -> int:
        """What is claimed of a tenant's at once: what takes a moment, where somebody waits who has but few."""
        return max(LEAST, min(self._claiming.piece, IN_ONE_GO - 1)) if delivering.slows(tenant) else IN_ONE_GO

    def _refresh(self, tenures: Sequence[Tenure]) -> None:
        """One look at the configuration's version for all of them; one who has just come has not seen any."""
        began = monotonic()
        if began >= self._config_at or any(tenure.config_version < 0 for tenure in tenures):
            self._config_version, self._config_at = ConfigVersion.current(), began + CONFIG_EVERY_S
        # Those that are furthest behind first: one look at a time may be all that there is room for.
        for place, tenure in enumerate(sorted(tenures, key=lambda tenure: tenure.config_version)):
            if place and monotonic() - began > PIECE_S and tenure.config_version >= 0:
                # The others have their turn in the next rounds.
                break
            try:
                tenure.refresh_lines(self._config_version)
            except (DatabaseError, InterfaceError):
                raise
            except Exception as fault:  # noqa: BLE001 - of our own, in what one lane's endpoints say: the others go on
                tenure.fault = fault
        self._config_at = max(self._config_at, monotonic()) + (monotonic() - began) * CONFIG_REST_FACTOR

    def _wait_for_database(self, error: Exception) -> None:
        """Keep what is in flight and what is done; both are worth settling once the database is back."""
        self._troubles += 1
        if self._troubles == 1:
            logger.warning("The database does not answer; deliveries wait for it. %s", str(error).strip())
        connection.close()
        sleep(0.1 * 2 ** min(self._troubles, 4))

    # --- claim, collect, settle -------------------------------------------------------------------------------------

    def _claim(self, lines: Sequence[Line]) -> None:
        began, now = monotonic(), timezone.now()
        if began < self._claim_at:
            return
        spent = thread_time()
        self._left_out = False
        tenants = {line.gate.tenant for line in lines}
        slow = {tenant for tenant in tenants if delivering.slows(tenant)}
        rests = {tenant: rest_s for tenant in tenants if (rest_s := delivering.rest_s(tenant))}
        # First those who have but few, who do not wait for the claims of the others.
        asked = self._claim_for([line for line in lines if line.gate.tenant not in slow], lines, now)
        if slow:
            asked += self._claim_for([line for line in lines if line.gate.tenant in slow and line.gate.tenant not in rests], lines, now)
        for line in lines:
            if line.gate.tenant in rests and line.gate.limit:
                # Whoever holds the lane has not seen all that there is.
                line.claims.exhausted = False
        self._look_back(lines, now)
        self._plan_next(thread_time() - spent, asked, min(rests.values(), default=None))

    def _claim_for(self, some: Sequence[Line], lines: Sequence[Line], now: datetime) -> list[Line]:
        self._give_keys([line for line in some if line.keying and line.open])
        asked = self._take(some, lines, now)
        # News of ordered endpoints says which subjects to look at.
        if leading := [line for line in asked if line.claims.has_leads]:
            self._take(leading, lines, now)
        return asked

    def _give_keys(self, lines: Sequence[Line]) -> None:
        """Have the deliveries of endpoints that became ordered given their keys: a part of one endpoint's, and then the others go on."""
        incomplete = []
        for line in lines:
            assert line.keying
            if line.keying.complete:
                line.keying.work()
            else:
                incomplete.append(line)
        began = monotonic()
        if not incomplete or began < self._keys_at:
            return
        line = min(incomplete, key=lambda line: line.turn)
        assert line.keying
        line.keying.work()
        line.turn += 1 / line.weight
        self._keys_at = monotonic() + (monotonic() - began) * KEYS_REST_FACTOR

    def _look_back(self, lines: Sequence[Line], now: datetime) -> None:
        """Look for what is due below where the claims stand: some lines at a time, for others wait meanwhile."""
        if not self._to_look:
            self._slice, self._looked_s = self._looking_back.next(now, monotonic()), 0.0
            self._to_look.extend(lines if self._slice else ())
        if not self._slice:
            return
        began, wants = monotonic(), list[tuple[Line, Want]]()
        while self._to_look and len(wants) < LOOKED_BACK_AT_ONCE:
            line = self._to_look.popleft()
            if not line.left and (want := line.look_back(self._slice)):
                wants.append((line, want))
        found = _by_endpoint(engine().claim([want for _, want in wants], self._slice.until)) if wants else {}
        for line, _ in wants:
            line.seen(found.get(line.endpoint_id, ()))
        self._looked_s += monotonic() - began
        if not self._to_look:
            self._looking_back.took(self._slice, self._looked_s, monotonic())

    def _take(self, some: Sequence[Line], lines: Sequence[Line], now: datetime) -> list[Line]:
        """Claim for some of the lines what is their share. Returns those that wanted anything."""
        began, window = monotonic(), Window(lines, self._in_one_go)
        wants = window.wants(some, now)
        self._done_for.update(line.gate.tenant for line, _ in wants)
        self._left_out = self._left_out or window.left_out
        found = _found([want for _, want in wants], now)
        chosen = deque((line, dues) for line, _ in wants if (dues := line.choose(found.get(line.endpoint_id, ()), now)))
        number = len(wants) + sum(len(dues) for _, dues in chosen)
        self._add_bodies(chosen)
        self._claiming.learn(number, monotonic() - began)
        return [line for line, _ in wants]

    def _add_bodies(self, chosen: deque[tuple[Line, Sequence[Due]]]) -> None:
        """Read the bodies of what was chosen, and let it be sent. What is too much for memory at once is given back."""
        left = MAX_BODY_BYTES
        while chosen and left > 0:
            part = _first(chosen, max(1, min(BODIES_AT_ONCE, int(BODY_BYTES_AT_ONCE / self._body_size))))
            try:
                bodies = engine().bodies([due.event_id for _, dues in part for due in dues])
            except (DatabaseError, InterfaceError):
                # The claims have gone past all of them.
                for line, dues in (*part, *chosen):
                    line.put_back(dues)
                raise
            # For each delivery: batches are copies, also where they carry the same event.
            size = sum(len(bodies.get(due.event_id, b"")) for _, dues in part for due in dues)
            left -= size
            self._body_size = max(1.0, size / (sum(len(dues) for _, dues in part) or 1))
            for line, dues in part:
                self._done_for[line.gate.tenant] += len(dues)
                delivering.came(line.gate.tenant)
                self._add(line, line.take(dues, bodies))
        for line, dues in chosen:
            line.put_back(dues)
            self._left_out = True

    def keep_standings(self, tenure: Tenure) -> None:
        """Where the way from the oldest is long, the lane's next owner in this process need not go it again."""
        for line in () if self._looking_back.is_cheap else tenure.lines.values():
            line.keep_standing()

    def _plan_next(self, took_s: float, lines: Sequence[Line], rest_over_s: float | None) -> None:
        """Where there is more, go on as soon as half of what was taken is through; otherwise look again after a while.

        `rest_over_s`: when the first is over of those that were left out because they rest.
        """
        more = [line.most for line in lines if not line.claims.exhausted] or [1] * self._left_out
        self._inbox.enough = max(1, min(SETTLE_AT, *more) // 2) if more else SETTLE_AT // 2
        rest_s = min(max(IDLE_POLL_S, took_s * IDLE_POLL_FACTOR), MAX_POLL_S)
        rest_s = rest_s if rest_over_s is None else min(rest_s, rest_over_s)
        # What is still to be looked back at in this slice.
        rest_s = min(rest_s, IDLE_POLL_S) if self._to_look else rest_s
        self._claim_at = 0.0 if more else monotonic() + rest_s

    def _collect(self, tenures: Sequence[Tenure]) -> None:
        began = monotonic()
        results = self._inbox.take(IDLE_POLL_S, SETTLE_AT)
        self._waited_s += monotonic() - began
        if self._inbox.was_poked():
            self._claim_at = 0.0
        for result in results:
            sent: Sent = result.tag
            if not sent.line.left:
                self._add(sent.line, sent.line.finish(sent, result))
        for tenure in tenures:
            for line in tenure.lines.values():
                line.send_ripe()
            tenure.note_business()

    def _add(self, line: Line, done: Sequence[Done]) -> None:
        self._done += done
        self._whose += [line] * len(done)
        self._finished[line.gate.tenant] += len(done)

    def _settle(self, tenures: Sequence[Tenure]) -> None:
        """One transaction for everything that finished: attempts, new states, tallies, and how the endpoints are doing."""
        now = monotonic()
        if not self._done:
            self._settled_at = now
            return
        if len(self._done) < SETTLE_AT and now - self._settled_at < SETTLE_EVERY_S:
            return
        turned = {tenure: [line for line in tenure.lines.values() if line.has_news] for tenure in tenures}
        is_short = any(number and delivering.slows(tenant) for tenant, number in self._finished.items())
        done = self._done[: max(LEAST, min(self._settling.piece, SETTLE_MOST)) if is_short else SETTLE_MOST]
        settle(done, lambda: _store(turned))
        for tenure, lines in turned.items():
            for line in lines if tenure.holding.held else ():
                line.news_is_stored()
        for line, each in zip(self._whose, done, strict=False):
            line.settled(each.settlement.id)
            self._done_for[line.gate.tenant] += 1
            self._finished[line.gate.tenant] -= 1
        self._done, self._whose = self._done[len(done) :], self._whose[len(done) :]
        if not self._done:
            self._finished.clear()
        self._settling.learn(len(done), monotonic() - now)
        self._settled_at = monotonic()


def _first(chosen: deque[tuple[Line, Sequence[Due]]], most: int) -> list[tuple[Line, Sequence[Due]]]:
    """Take the first so many deliveries off what was chosen."""
    part: list[tuple[Line, Sequence[Due]]] = []
    while chosen and most > 0:
        line, dues = chosen.popleft()
        if len(dues) > most:
            chosen.appendleft((line, dues[most:]))
        part.append((line, dues[:most]))
        most -= len(dues)
    return part


def _found(wants: Iterable[Want | Head | Subjects], now: datetime) -> dict[UUID, list[Due]]:
    loose = [want for want in wants if isinstance(want, Want)]
    found = _by_endpoint(engine().claim(loose, now) if loose else ())
    for want in wants:
        if isinstance(want, Head):
            found[want.endpoint_id] = engine().claim_runs(want)
        elif isinstance(want, Subjects):
            found[want.endpoint_id] = engine().claim_subjects(want)
    return found


def _by_endpoint(dues: Iterable[Due]) -> dict[UUID, list[Due]]:
    found: dict[UUID, list[Due]] = {}
    for due in dues:
        found.setdefault(due.endpoint_id, []).append(due)
    return found


def _store(turned: Mapping[Tenure, Sequence[Line]]) -> None:
    """In the settling transaction, in the order in which everybody locks these rows: leases, endpoints, their health, the version.

    Whoever lost a lane has nothing to say about its endpoints any more.
    """
    news = in_order(line for tenure in sorted(turned, key=lambda tenure: tenure.lane) if turned[tenure] and tenure.holding.hold_on() for line in turned[tenure])
    disabled = [line for line in news if line.condemned and Endpoint.objects.active().filter(pk=line.endpoint_id).mark(Endpoint.State.DISABLED, line.condemned)]
    health.store((line.endpoint_id, line.version, line.health) for line in news)
    if disabled:
        ConfigVersion.bump()
    for line in disabled:
        logger.warning("Endpoint ep_%s is disabled: %s. Its deliveries wait.", line.endpoint_id.hex, line.condemned)
