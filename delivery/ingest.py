"""Events over HTTP into the outbox: requests that come together share a transaction, so that durability costs each a part of one.

    threads of the web server ──► a queue for each tenant ──► one committer thread ──► outbox.publish ──► all of them answer

Whoever publishes waits until its events and their deliveries are committed. While one transaction is under way, what comes
meanwhile waits for the next: the busier it is, the larger the groups. Nothing waits for company.

Tenants take turns, and a turn is one transaction of a bounded size, of one source: so many events, bytes and deliveries. A
batch that owes 600,000 deliveries takes many turns, and whoever else posts waits for one of them.

A crash before the commit leaves no answer; a client that tries again with the same id stores its event once.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import NamedTuple, Protocol
from uuid import UUID

from django.db import DatabaseError, DataError, Error, IntegrityError, connection

from delivery.models import Event
from delivery.outbox import MAX_BATCH, Outbox
from delivery.sources import api
from delivery.sources.incoming import Incoming
from delivery.throttle import Cost, Throttle
from subscriptions.allowance import most
from subscriptions.models import Source

# A client has given up by then, and a database that is away answers sooner.
PATIENCE_S = 30.0
# Where so many callers shared a transaction, the next one waits so long for them to come again.
CROWD = 8
COMPANY_S = 0.004
# Sources whose subscriptions a process keeps compiled.
MAX_OUTBOXES = 1000
# What one transaction holds, besides MAX_BATCH events: about 20 ms of the database, which is what others wait for.
MAX_OWED = 2000
MAX_BYTES = 2 * 1024 * 1024
# A transaction costs as much as so many rows, before it has any.
ROWS_ALIKE = 250


# How long the committer of this process works for each tenant, by its id as text.
posting = Throttle()


class Accepted(NamedTuple):
    """What became of one event: its id, how many deliveries it owes, and whether it was there before; then, whether that one says the same.

    One that nobody wants is not `stored`, unless its source keeps such events. Nor is one that would owe too many deliveries: `refused` says how many.
    """

    id: UUID
    deliveries: int
    duplicate: bool = False
    same: bool = True
    stored: bool = True
    refused: int = 0


class NotStored(Exception):
    """The database did not take the events, or has not said so: whoever sends them again with the same ids stores them once."""


class Posted(NamedTuple):
    """An event as it came. `timed`: the client said when it happened."""

    event: Incoming
    timed: bool = False


class Publisher(Protocol):
    """What stores events before it returns."""

    def publish(self, source: Source, events: Sequence[Posted]) -> list[Accepted]:
        """Store these events of one source; what became of each, in their order. Raises NotStored."""
        ...


# Told what became of the events, or why they were not stored, by the committer: it must neither wait nor raise.
Then = Callable[[list[Accepted], Exception | None], None]


class _Order:
    """What one caller publishes, and what came of it. Its lock is held until then: an Event costs three times as much to wake."""

    __slots__ = ("_then", "_under_way", "abandoned", "accepted", "error", "events", "source", "taken")

    def __init__(self, source: Source, events: Sequence[Posted], then: Then | None = None) -> None:
        self.source, self.events, self._then = source, events, then
        # How many of the events are stored or under way.
        self.taken = 0
        self.accepted: list[Accepted] = []
        self.error: Exception | None = None
        # Whether the caller has gone: what is not under way by then is left.
        self.abandoned = False
        self._under_way = threading.Lock()
        self._under_way.acquire()

    @property
    def over(self) -> bool:
        return self.abandoned or self.error is not None or self.taken == len(self.events)

    def note(self, accepted: Sequence[Accepted]) -> None:
        self.accepted += accepted
        if len(self.accepted) == len(self.events):
            self._end()

    def fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            self._end()

    def _end(self) -> None:
        if self._then:
            self._then(self.accepted, self.error)
        self._under_way.release()

    def wait(self, timeout_s: float) -> bool:
        return self._under_way.acquire(timeout=timeout_s)


class _Part(NamedTuple):
    """What one transaction stores of an order."""

    order: _Order
    events: Sequence[Posted]


class GroupCommit:
    """The process's committer. `publish` may be called from any thread."""

    def __init__(self) -> None:
        # By tenant; those of sources that all share have one. The committer alone takes from them.
        self._queues: dict[UUID | None, deque[_Order]] = {}
        self._something = threading.Condition()
        self._outboxes: dict[UUID, Outbox] = {}
        self._thread: threading.Thread | None = None
        # How many callers shared the last transaction, or the last few.
        self._company = 0
        # Deliveries that the last part owes, and what a row of a transaction takes of late.
        self._owed = 0
        self._rows = Cost(0.00002, memory=1000)

    def publish(self, source: Source, events: Sequence[Posted]) -> list[Accepted]:
        if not events:
            return []
        order = _Order(source, events)
        self._add(order)
        if not order.wait(PATIENCE_S):
            order.abandoned = True
            raise NotStored(f"The database has not answered within {PATIENCE_S:.0f} s.")
        if order.error:
            raise NotStored("The database did not take the events.") from order.error
        return order.accepted

    def submit(self, source: Source, events: Sequence[Posted], then: Then) -> None:
        """`publish` for who has no thread that could wait: `then` is called from the committer's."""
        self._add(_Order(source, events, then))

    def _add(self, order: _Order) -> None:
        with self._something:
            if self._thread is None:
                # Here and not before: a process that forks has none of its parent's threads.
                thread = threading.Thread(target=self._run, name="committer", daemon=True)
                # Where the system has no more threads, this raises, and the next one tries again.
                thread.start()
                self._thread = thread
            self._queues.setdefault(order.source.tenant_id, deque()).append(order)
            self._something.notify()

    def _run(self) -> None:
        while True:
            queues = self._round()
            self._company = 0
            for queue in queues:
                began, tenant = monotonic(), queue[0].source.tenant_id
                if parts := self._take(queue, tenant):
                    self._company += len(parts)
                    self._commit(parts)
                    self._count(tenant, parts, monotonic() - began)

    def _round(self) -> list[deque[_Order]]:
        """Wait for orders. Returns the queues that have some: each has its turn before one has another."""
        with self._something:
            self._queues = {tenant: queue for tenant, queue in self._queues.items() if queue}
            while not self._queues:
                self._something.wait()
            while not (rested := self._rested()):
                self._something.wait(max(0.001, min(posting.rest_s(_known_as(tenant)) for tenant in self._queues)))
        if self._company >= CROWD:
            # Those that were just answered are about to post again: most of them come within this.
            sleep(COMPANY_S)
            with self._something:
                rested = self._rested()
        return rested

    def _rested(self) -> list[deque[_Order]]:
        return [queue for tenant, queue in self._queues.items() if not posting.rest_s(_known_as(tenant))]

    def _count(self, tenant: UUID | None, parts: Sequence[_Part], took_s: float) -> None:
        """What a transaction has taken, of this tenant's time and for the size of the next ones."""
        posting.worked(_known_as(tenant), took_s)
        posting.came(_known_as(tenant))
        rows = ROWS_ALIKE + sum(len(part.events) for part in parts) + self._owed
        self._rows.learn(rows, took_s)

    def _take(self, queue: deque[_Order], tenant: UUID | None) -> list[_Part]:
        """The next events, as many as one transaction holds. They are of one source: each source has its own."""
        parts, source = list[_Part](), queue[0].source
        room = _Room(self._rows.piece - ROWS_ALIKE if posting.slows(_known_as(tenant)) else None)
        try:
            outbox = _outbox_of(source, self._outboxes)
        except Exception as error:  # noqa: BLE001 - its tenant was removed, say: this thread serves everybody, and has to live
            if _is_of_database(error):
                connection.close()
            queue.popleft().fail(error)
            return parts
        while queue and not room.full and queue[0].source.pk == source.pk:
            order = queue[0]
            first = order.taken
            while not order.over and room.takes(outbox, order.events[order.taken].event):
                order.taken += 1
            if order.taken > first:
                parts.append(_Part(order, order.events[first : order.taken]))
            if order.over:
                queue.popleft()
        self._owed = room.taken
        return parts

    def _commit(self, parts: Sequence[_Part]) -> None:
        try:
            self._store(parts)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits has to hear of it
            if len(parts) == 1 or _is_of_database(error):
                for part in parts:
                    part.order.fail(error)
                return
            # One of them holds what the database refuses: the others must not be refused with it.
            for part in parts:
                self._commit([part])

    def _store(self, parts: Sequence[_Part]) -> None:
        outbox = _outbox_of(parts[-1].order.source, self._outboxes)
        accepted = iter(_persistently(lambda: store(outbox, [posted for part in parts for posted in part.events])))
        for part in parts:
            part.order.note([next(accepted) for _ in part.events])


class _Room:
    """What is left in one transaction. The first event always fits."""

    def __init__(self, rows: int | None = None) -> None:
        self.full = False
        # Deliveries that are taken, as far as that is known.
        self.taken = 0
        most = MAX_OWED if rows is None else max(1, min(rows, MAX_OWED))
        self._events, self._owed, self._bytes = min(MAX_BATCH, most), most, MAX_BYTES
        self._first = True

    def takes(self, outbox: Outbox, event: Incoming) -> bool:
        """Take the event, if it fits in."""
        # What a source's events owe is known once it has stored one.
        is_known = outbox.compiled.version >= 0
        owed = outbox.owes(event) if is_known else MAX_OWED
        size = len(event.body)
        fits = self._first or (owed <= self._owed and size <= self._bytes and self._events > 0)
        if fits:
            self._first = False
            self.taken += owed if is_known else 0
            self._events -= 1
            self._owed -= owed
            self._bytes -= size
        self.full = not fits
        return fits


class OneByOne:
    """A transaction for each call, in the caller's own thread: what `GroupCommit` is measured against."""

    def __init__(self) -> None:
        self._local = threading.local()

    def publish(self, source: Source, events: Sequence[Posted]) -> list[Accepted]:
        outbox = _outbox_of(source, self._local.__dict__.setdefault("outboxes", {}))
        try:
            return _persistently(lambda: store(outbox, events))
        except DatabaseError as error:
            raise NotStored("The database did not take the events.") from error


def store(outbox: Outbox, posted: Sequence[Posted]) -> list[Accepted]:
    """Publish events that have ids of their own, and look up those that were there before."""
    outbox.publish([each.event for each in posted])
    new = {stored.id: stored.owed for stored in outbox.inserted.values()}
    answers = {id: Accepted(id, owed) for id, owed in new.items()}
    if repeated := [each for each in posted if each.event.id not in new]:
        answers |= _repeated(outbox, repeated)
    return [answers[_id(each)] for each in posted]


def _repeated(outbox: Outbox, repeated: Sequence[Posted]) -> dict[UUID, Accepted]:
    """The answers for events whose dedup keys were there, by the ids that they were to have."""
    keys = {each.event.dedup_key for each in repeated}
    rows = Event.objects.filter(source=outbox.source, dedup_key__in=keys).values_list("dedup_key", "id", "subject", "body")
    there = {bytes(key): (id, subject, bytes(body)) for key, id, subject, body in rows}
    answers = {_id(each): _compared(each, *there[each.event.dedup_key]) for each in repeated if each.event.dedup_key in there}
    # One that was stored when fewer wanted it is there all the same.
    refused = {id: wanted for id, wanted in outbox.refused.items() if id not in answers}
    answers |= {id: Accepted(id, 0, stored=False, refused=wanted) for id, wanted in refused.items()}
    absent = [each for each in repeated if each.event.dedup_key not in there and _id(each) not in refused]
    answers |= {_id(each): Accepted(_id(each), 0, stored=False) for each in absent if not outbox.wants(each.event)}
    # Pruned since it was found there: then it is new again.
    gone = [each for each in absent if outbox.wants(each.event)]
    return answers | ({_id(each): accepted for each, accepted in zip(gone, store(outbox, gone), strict=True)} if gone else {})


def _outbox_of(source: Source, outboxes: dict[UUID, Outbox]) -> Outbox:
    """The outbox of this source: with its settings as they are now, and without a memory, for ids come again but rarely."""
    outbox = outboxes.get(source.pk)
    if outbox is None:
        if len(outboxes) >= MAX_OUTBOXES:
            del outboxes[next(iter(outboxes))]
        outbox = outboxes[source.pk] = Outbox(source, remembered=0)
    outbox.source = source
    # One that all tenants share is the operator's, as the stream is.
    own = source.tenant.quotas if source.tenant else None
    outbox.most_owed = None if own is None else most("deliveries_per_event", own)
    return outbox


def _known_as(tenant: UUID | None) -> str:
    """As the web server's threads know it, which work for the same ones."""
    return str(tenant)


def _compared(posted: Posted, id: UUID, subject: str, body: bytes) -> Accepted:
    if id == posted.event.id:
        # Our own, committed by a try whose answer was lost on the way.
        return Accepted(id, 0)
    return Accepted(id, 0, duplicate=True, same=api.says_the_same(posted.event, body, subject, timed=posted.timed))


def _id(posted: Posted) -> UUID:
    assert posted.event.id, "an event that was posted has an id"
    return posted.event.id


def _is_of_database(error: Exception) -> bool:
    """Whether the database or its connection is to blame, and no event that it refuses."""
    return isinstance(error, Error) and not isinstance(error, DataError | IntegrityError)


def _persistently(work: Callable[[], list[Accepted]]) -> list[Accepted]:
    """Once more on a new connection: a database that was started again, or whose primary is another server by now, must not cost a request."""
    try:
        return work()
    except Error as error:
        if connection.in_atomic_block or not _is_of_database(error):
            raise
        connection.close()
        return work()


publisher: Publisher = GroupCommit()
