"""Pruning: what is over goes, in small steps, while everything else runs.

| what | goes |
|---|---|
| delivered and cancelled deliveries, with their attempts | JETRELAY_RETENTION_DAYS after they were settled |
| dead deliveries, with their attempts | JETRELAY_DEAD_LETTER_DAYS after they died |
| events, those that nobody wanted as well | JETRELAY_RETENTION_DAYS after they came, once none of their deliveries is left |
| entries of the audit log | JETRELAY_AUDIT_DAYS after they were written |
| tallies, filled gaps | after the days below |
| sessions of the pages | when they have expired |

The clock of a delivery starts when it is settled, not when it is made: one that went through today after eight days of
waiting is news. Pending deliveries never go, and while one delivery of an event is here, of whatever state, so is the event.

Ids are made in the order of time, so what is old enough is a range of the primary key. A pass goes through it once, a
chunk at a time, and each chunk starts behind the last one: what stays (pending, dead, replayed) and what has just been
deleted is not looked at twice in a pass. A chunk is looked at without locks and deleted in a short transaction that asks
again, so a crash between two chunks leaves nothing half done and whatever is left is found by the next pass.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple, Self
from uuid import UUID

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from delivery import totals
from delivery.engines import engine
from delivery.engines.pruning import Terms
from delivery.leases import Holding
from delivery.models import AttemptTally, Delivery, EventTally, StreamGap
from subscriptions.ids import first_id
from subscriptions.models import AuditEntry

logger = logging.getLogger(__name__)

# Long enough to compare a month with the one before it; a row for each minute and collection is too much for ever.
TALLY_DAYS = 90
# A filled gap cost nothing: it tells how well a host has been doing of late. An open one stays until it is filled.
FILLED_GAP_DAYS = 30
# The longest run of the scheduled task, rests included: what is left is for the next one, which is due a minute later. Half of a run is rest,
# and so much is needed where some thousand deliveries come in a second.
BUDGET_S = 240.0
LEASE = "prune"
# A crashed run keeps others away for this long. A chunk takes milliseconds, its rest at most a few seconds.
LEASE_S = 30.0
# The most that one rest takes: a chunk that was slow for reasons of its own does not stop everything.
MAX_REST_S = 2.0

_FIRST = UUID(int=0)

# Rests for so many seconds and returns whether to stop, as `threading.Event.wait` does.
Rest = Callable[[float], bool]
Counts = Counter[str]


@dataclass(frozen=True)
class Cutoffs:
    """What happened before these moments is over."""

    deliveries: Terms
    events: datetime
    tallies: datetime
    gaps: datetime
    audit: datetime
    sessions: datetime

    @classmethod
    def at(cls, now: datetime) -> Self:
        kept = now - timedelta(days=settings.JETRELAY_RETENTION_DAYS)
        dead = now - timedelta(days=settings.JETRELAY_DEAD_LETTER_DAYS)
        audit = now - timedelta(days=settings.JETRELAY_AUDIT_DAYS)
        return cls(Terms(kept, dead), kept, now - timedelta(days=TALLY_DAYS), now - timedelta(days=FILLED_GAP_DAYS), audit, now)


class Stretch(NamedTuple):
    """Some rows in a table's order: the position of the last of them, and those that may go, with their labels."""

    last: Any
    over: dict[Any, str]


class Walk(ABC):
    """One table, in the order in which it is pruned."""

    def __init__(self, cutoffs: Cutoffs) -> None:
        self.cutoffs = cutoffs

    @abstractmethod
    def look(self, after: Any, most: int, dry: bool) -> Stretch | None:
        """The next rows after a position (None: from the beginning) or None at the end. Takes no locks."""

    @abstractmethod
    def delete(self, over: Sequence[Any]) -> Counts:
        """Delete those that may still go, in the caller's transaction."""

    def count(self, stretch: Stretch) -> Counts:
        """What `delete` would delete."""
        return Counter(stretch.over.values())


class Deliveries(Walk):
    def look(self, after: UUID | None, most: int, dry: bool) -> Stretch | None:
        before = first_id(max(self.cutoffs.deliveries))
        rows = engine().look_at_deliveries(after or _FIRST, before, most, self.cutoffs.deliveries)
        over = {id: _label(state) for id, state in rows.items() if state is not None}
        return Stretch(list(rows)[-1], over) if rows else None

    def count(self, stretch: Stretch) -> Counts:
        attempts = engine().count_attempts(list(stretch.over)) if stretch.over else 0
        return super().count(stretch) + Counter(attempts=attempts)

    def delete(self, over: Sequence[UUID]) -> Counts:
        states, attempts = engine().prune_deliveries(over, self.cutoffs.deliveries)
        return Counter({_label(state): count for state, count in states.items()}) + Counter(attempts=attempts)


class Events(Walk):
    def look(self, after: UUID | None, most: int, dry: bool) -> Stretch | None:
        # A trial has deleted no deliveries: it leaves out those that it would have deleted.
        unless = self.cutoffs.deliveries if dry else None
        rows = engine().look_at_events(after or _FIRST, first_id(self.cutoffs.events), most, unless)
        return Stretch(list(rows)[-1], {id: "events" for id, needed in rows.items() if not needed}) if rows else None

    def delete(self, over: Sequence[UUID]) -> Counts:
        return Counter(events=engine().prune_events(over))


class EventTallies(Walk):
    # By minute, as its index is.
    model: type[EventTally | AttemptTally] = EventTally
    label = "event tallies"
    book = totals.EVENTS

    def look(self, after: tuple[datetime, int] | None, most: int, dry: bool) -> Stretch | None:
        rows = self.model._default_manager.filter(minute__lt=self.cutoffs.tallies)
        if after:
            rows = rows.filter(minute__gte=after[0]).exclude(minute=after[0], pk__lte=after[1])
        found = list(rows.order_by("minute", "pk").values_list("minute", "pk")[:most])
        return Stretch(found[-1], {pk: self.label for _, pk in found}) if found else None

    def delete(self, over: Sequence[int]) -> Counts:
        # In the totals for good before they go; the schedule has seen to it long ago, unless it stood still.
        totals.close(self.book, self.cutoffs.tallies + totals.HOUR)
        return Counter({self.label: self.model._default_manager.filter(pk__in=over).delete()[0]})


class AttemptTallies(EventTallies):
    model = AttemptTally
    label = "attempt tallies"
    book = totals.ATTEMPTS


class FilledGaps(Walk):
    def look(self, after: UUID | None, most: int, dry: bool) -> Stretch | None:
        ids = list(self._over().filter(pk__gt=after or _FIRST).order_by("pk").values_list("pk", flat=True)[:most])
        return Stretch(ids[-1], dict.fromkeys(ids, "filled gaps")) if ids else None

    def delete(self, over: Sequence[UUID]) -> Counts:
        return Counter({"filled gaps": self._over().filter(pk__in=over).delete()[0]})

    def _over(self) -> Any:
        return StreamGap.objects.exclude(filled_by="").filter(filled_at__lt=self.cutoffs.gaps)


class AuditEntries(Walk):
    def look(self, after: UUID | None, most: int, dry: bool) -> Stretch | None:
        rows = AuditEntry.objects.filter(pk__gt=after or _FIRST, pk__lt=first_id(self.cutoffs.audit))
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[:most])
        return Stretch(ids[-1], dict.fromkeys(ids, "audit entries")) if ids else None

    def delete(self, over: Sequence[UUID]) -> Counts:
        return Counter({"audit entries": AuditEntry.objects.filter(pk__in=over).delete()[0]})


class Sessions(Walk):
    """Nobody can use them, and a dump need not have them."""

    def look(self, after: tuple[datetime, str] | None, most: int, dry: bool) -> Stretch | None:
        rows = self._over()
        if after:
            rows = rows.filter(expire_date__gte=after[0]).exclude(expire_date=after[0], pk__lte=after[1])
        found = list(rows.order_by("expire_date", "pk").values_list("expire_date", "pk")[:most])
        return Stretch(found[-1], {pk: "sessions" for _, pk in found}) if found else None

    def delete(self, over: Sequence[str]) -> Counts:
        return Counter(sessions=self._over().filter(pk__in=over).delete()[0])

    def _over(self) -> Any:
        return Session.objects.filter(expire_date__lt=self.cutoffs.sessions)


# Deliveries before events: what they need goes after them, in the same pass.
WALKS: tuple[type[Walk], ...] = (Deliveries, Events, EventTallies, AttemptTallies, FilledGaps, AuditEntries, Sessions)


class Report(NamedTuple):
    """What a run deleted (or would have deleted), and whether it came to the end of its pass."""

    counts: Counts
    finished: bool

    def __str__(self) -> str:
        return ", ".join(f"{label}: {count:,}" for label, count in sorted(self.counts.items()) if count) or "nothing"


@dataclass
class Pruner:
    """One pass after another, each in as many runs as it takes.

    Where the pass stands is kept in memory alone. A process that starts afresh starts from the beginning, which costs it a
    look at what stays and nothing else.
    """

    # Rows to a chunk; None leaves it to the engine.
    chunk: int | None = None
    _walk: int = field(default=0, init=False)
    _after: Any = field(default=None, init=False)

    def run(self, rest: Rest, budget_s: float = math.inf) -> Report | None:
        """Prune until the pass is done, the time is up or `rest` says stop. None while somebody else prunes."""
        holding = Holding(LEASE, LEASE_S)
        if not holding.take():
            return None
        counts, started = Counts(), monotonic()
        try:
            for chunk, took_s in self._chunks(Cutoffs.at(timezone.now())):
                counts += chunk
                paused = rest(min(took_s * engine().prune_rest, MAX_REST_S))
                if paused or monotonic() - started > budget_s or (holding.ripe and not holding.renew()):
                    return Report(counts, False)
            return Report(counts, True)
        finally:
            holding.release()

    def _chunks(self, cutoffs: Cutoffs) -> Iterator[tuple[Counts, float]]:
        """Go on where the last run stopped. Each chunk is committed before it is handed out."""
        while self._walk < len(WALKS):
            started = monotonic()
            walk = WALKS[self._walk](cutoffs)
            stretch = walk.look(self._after, self.chunk or engine().prune_chunk, False)
            if stretch is None:
                self._walk, self._after = self._walk + 1, None
                continue
            counts = Counts()
            if stretch.over:
                with transaction.atomic():
                    counts = walk.delete(list(stretch.over))
            self._after = stretch.last
            yield counts, monotonic() - started
        self._walk = 0


def trial() -> Report:
    """What a whole pass would delete now. Changes nothing."""
    counts, cutoffs = Counts(), Cutoffs.at(timezone.now())
    for walk in (kind(cutoffs) for kind in WALKS):
        after = None
        while stretch := walk.look(after, engine().prune_chunk, True):
            counts += walk.count(stretch)
            after = stretch.last
    return Report(counts, True)


def prune_for_a_while(rest: Rest) -> bool:
    """One run of the scheduled task. Returns whether the database could be used."""
    try:
        report = pruner.run(rest, BUDGET_S)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Pruning was cut short by the database; the next run goes on. %s", str(error).strip())
        return False
    if report and report.counts.total():
        logger.info("Pruned %s.%s", report, "" if report.finished else " There is more: the next run goes on.")
    return True


def _label(state: int) -> str:
    return f"{Delivery.State(state).label} deliveries"


pruner = Pruner()
