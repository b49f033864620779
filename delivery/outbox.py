"""The outbox: events, the deliveries they owe, the tallies and the stream's cursor, in one transaction; then wakes.

    batch of incoming events -> match -> insert new events -> insert deliveries -> tallies -> cursor -> COMMIT -> wake lanes

A crash before the commit leaves the cursor where it was, so the stream brings the batch again; a crash after it loses
at most the wakes. An event that was stored before is a duplicate and owes nothing again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from delivery.engines import engine
from delivery.engines.base import DeliveryRow, EventCounts, EventRow
from delivery.models import StreamHost
from delivery.order import keyed, order_key
from delivery.sources.incoming import Incoming, moment
from delivery.wakes import waker
from subscriptions.compiled import Compiled
from subscriptions.ids import new_id
from subscriptions.models import Source

# A batch closes at this many events, or this long after its first one.
MAX_BATCH = 1000
MAX_WAIT_S = 0.05
# Deliveries that one transaction makes, but for those of one event, which belong together: a batch of 1,000 events to 600
# endpoints took 17 s in one, and whoever came next waited for it.
MAX_OWED = 10_000
# Keys of stored events that are kept in memory: minutes of the whole network, in about 25 MB.
MAX_REMEMBERED = 200_000
# Kinds and types that are counted apart in one minute; the network has some hundred.
MAX_TYPES = 2_000
OTHER_TYPES = "(other)"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one host's stream has been read once this batch is stored."""

    host_id: int
    cursor: int | None
    reached_at: datetime | None = None
    covered_from: datetime | None = None
    last_event_at: datetime | None = None
    # Of the event with the number `cursor`, where that is a number.
    key: bytes | None = None


class Stored(NamedTuple):
    """A new event, and how many deliveries of it are owed."""

    id: UUID
    owed: int


class Outbox:
    """Publishes the events of one source. Not thread-safe: one for each thread that publishes.

    `remembered` keys of stored events spare the database copies that are sure to come, as every further host brings them.
    `rest_factor` is that of `Compiled`.
    """

    def __init__(self, source: Source, remembered: int = MAX_REMEMBERED, rest_factor: float = 0.0) -> None:
        self.source, self.remembered = source, remembered
        # Events that would owe more than this are not stored. None where nobody could be told: a stream loses nothing.
        self.most_owed: int | None = None
        self.compiled = Compiled(source, rest_factor)
        # Dedup keys of events that are in the database for sure, the newest last: a second host brings them all again.
        self._stored: dict[bytes, None] = {}
        self._keyed_version = -1
        self._keyed_at_version: frozenset[UUID] = frozenset()
        self._minute = -1
        self._types: set[tuple[str, str]] = set()
        # Those that the last batch brought first, by their dedup keys.
        self.inserted: dict[bytes, Stored] = {}
        # Those that the last batch refused, by the ids that they were to have: how many deliveries each would owe.
        self.refused: dict[UUID, int] = {}

    def publish(self, batch: Sequence[Incoming], progress: Sequence[Progress] = (), rejected: int = 0) -> EventCounts:
        """Store a batch. `rejected` counts what arrived with it and could not be read. Returns what became of it all.

        One that owes very many deliveries is stored in several transactions. The last one moves the cursors: after a crash
        between them the stream brings the batch again, and what is stored already is a duplicate.
        """
        parts = self._parts(batch)
        if not parts:
            return self._store(batch, progress, rejected)
        inserted: dict[bytes, Stored] = {}
        refused: dict[UUID, int] = {}
        counts = EventCounts(0, 0, 0, 0, 0)
        for place, part in enumerate(parts, 1):
            last = place == len(parts)
            added = self._store(part, progress if last else (), rejected if last else 0)
            counts = EventCounts(*map(sum, zip(counts, added, strict=True)))
            inserted |= self.inserted
            refused |= self.refused
        self.inserted, self.refused = inserted, refused
        return counts

    def owes(self, event: Incoming) -> int:
        """How many deliveries the event will owe, by the subscriptions that the last batch was matched with."""
        return len(self.compiled.matcher.match(event.kind, event.type, event.operation, event.subject))

    def _parts(self, batch: Sequence[Incoming]) -> list[Sequence[Incoming]]:
        """What has to be stored in several transactions, by transaction; nothing where one is enough."""
        if self.compiled.version < 0:
            self.compiled.refresh()
        if len(batch) * len(self.compiled.shards) <= MAX_OWED:
            return []
        parts, start, owed = list[Sequence[Incoming]](), 0, 0
        for place, event in enumerate(batch):
            cost = self.owes(event)
            if owed and owed + cost > MAX_OWED:
                parts.append(batch[start:place])
                start, owed = place, 0
            owed += cost
        return [*parts, batch[start:]] if parts else []

    def _store(self, batch: Sequence[Incoming], progress: Sequence[Progress] = (), rejected: int = 0) -> EventCounts:
        with transaction.atomic():
            self.compiled.refresh()
            now = timezone.now()
            if self.most_owed is not None:
                batch = self._without_refused(batch, self.most_owed)
            rows, wanted_by, known = self._match(batch, now)
            stored = engine().insert_events(rows) if rows else set()
            deliveries = self._owed([row for row in rows if row.id in stored], wanted_by)
            if deliveries:
                engine().insert_deliveries(deliveries, now)
            counts = _count(batch, rows, stored, known, rejected)
            counts = self._bounded(counts, now)
            engine().add_event_tallies(now.replace(second=0, microsecond=0), self.source.id, counts)
            for each in progress:
                _move(each, now)
        self.inserted = {row.dedup_key: Stored(row.id, len(wanted_by[row.id])) for row in rows if row.id in stored}
        self._remember(rows)
        self._wake(deliveries)
        return EventCounts(*(sum(column) for column in zip(*counts.values(), strict=True))) if counts else EventCounts(0, 0, 0, 0, 0)

    def _without_refused(self, batch: Sequence[Incoming], most: int) -> Sequence[Incoming]:
        """Whoever posted them is told, and nothing is counted. What an event owes is bounded by the endpoints that there are."""
        self.refused = {}
        if len(self.compiled.shards) <= most:
            return batch
        match = self.compiled.matcher.match
        for event in batch:
            wanted = len(match(event.kind, event.type, event.operation, event.subject))
            if wanted > most and event.id:
                self.refused[event.id] = wanted
        return [event for event in batch if event.id not in self.refused]

    def _bounded(self, counts: dict[tuple[str, str], EventCounts], now: datetime) -> dict[tuple[str, str], EventCounts]:
        """The counts, with types beyond the bound of this minute as one: anyone may invent collections."""
        if now.minute != self._minute:
            self._minute, self._types = now.minute, set()
        if len(self._types) + len(counts) <= MAX_TYPES:
            self._types.update(counts)
            return counts
        bounded: dict[tuple[str, str], EventCounts] = {}
        for (kind, type), count in counts.items():
            if (kind, type) not in self._types and len(self._types) >= MAX_TYPES:
                key = (kind, OTHER_TYPES)
            else:
                key = (kind, type)
                self._types.add(key)
            bounded[key] = EventCounts(*map(sum, zip(bounded.get(key, (0,) * 5), count, strict=True)))
        return bounded

    def wants(self, event: Incoming) -> bool:
        """Whether such an event is stored, by the subscriptions that the last batch was matched with."""
        return self.source.keep_unmatched or bool(self.compiled.matcher.match(event.kind, event.type, event.operation, event.subject))

    def has_stored(self, key: bytes) -> bool:
        """Whether this outbox remembers that the event is stored. It forgets the oldest."""
        return key in self._stored

    def _remember(self, rows: Sequence[EventRow]) -> None:
        self._stored.update(dict.fromkeys(row.dedup_key for row in rows))
        for key in list(islice(self._stored, max(len(self._stored) - self.remembered, 0))):
            del self._stored[key]

    def _match(self, batch: Sequence[Incoming], now: datetime) -> tuple[list[EventRow], dict[UUID, tuple[UUID, ...]], list[Incoming]]:
        """The rows to store, who wants them, and the events that are known to be stored already."""
        rows: list[EventRow] = []
        wanted_by: dict[UUID, tuple[UUID, ...]] = {}
        known: list[Incoming] = []
        match, source_id, keep, stored, here = self.compiled.matcher.match, self.source.id, self.source.keep_unmatched, self._stored, set()
        for event in batch:
            endpoints = match(event.kind, event.type, event.operation, event.subject)
            if endpoints or keep:
                key = event.dedup_key
                if key in stored or key in here:
                    known.append(event)
                    continue
                here.add(key)
                id = event.id or new_id()
                wanted_by[id] = endpoints
                rows.append(
                    EventRow(
                        id,
                        source_id,
                        event.dedup_key,
                        event.kind,
                        event.type,
                        event.operation,
                        event.subject,
                        event.origin,
                        event.cursor,
                        moment(event.time_us),
                        now,
                        event.body,
                    )
                )
        return rows, wanted_by, known

    def _owed(self, stored: Sequence[EventRow], wanted_by: Mapping[UUID, Sequence[UUID]]) -> list[DeliveryRow]:
        ordered = self._keyed()
        if not ordered:
            return [DeliveryRow(new_id(), row.id, endpoint) for row in stored for endpoint in wanted_by[row.id]]
        keys = {row.subject: order_key(row.subject) for row in stored}
        return [DeliveryRow(new_id(), row.id, endpoint, keys[row.subject] if endpoint in ordered else None) for row in stored for endpoint in wanted_by[row.id]]

    def _keyed(self) -> frozenset[UUID]:
        """Endpoints whose deliveries keep the order of their subjects."""
        if self._keyed_version != self.compiled.version:
            self._keyed_at_version = keyed(self.compiled.shards)
            self._keyed_version = self.compiled.version
        return self._keyed_at_version

    def _wake(self, deliveries: Sequence[DeliveryRow]) -> None:
        shards = self.compiled.shards
        waker.wake({shards[endpoint] % settings.JETRELAY_LANES for endpoint in {row.endpoint_id for row in deliveries}})


def _count(
    batch: Sequence[Incoming], rows: Sequence[EventRow], stored: set[UUID], known: Sequence[Incoming], rejected: int
) -> dict[tuple[str, str], EventCounts]:
    """received = stored + duplicate + unmatched + invalid, for each kind and type."""
    received = Counter((event.kind, event.type) for event in batch)
    matched = Counter((row.kind, row.type) for row in rows)
    matched.update((event.kind, event.type) for event in known)
    new = Counter((row.kind, row.type) for row in rows if row.id in stored)
    counts = {key: EventCounts(count, new[key], matched[key] - new[key], count - matched[key], 0) for key, count in received.items()}
    if rejected:
        counts["", ""] = EventCounts(rejected, 0, 0, 0, rejected)
    return counts


def _move(progress: Progress, now: datetime) -> None:
    news = {
        "cursor": progress.cursor,
        "reached_at": progress.reached_at,
        "covered_from": progress.covered_from,
        "last_event_at": progress.last_event_at,
    }
    known = {name: value for name, value in news.items() if value is not None}
    StreamHost.objects.filter(pk=progress.host_id).update(cursor_saved_at=now, cursor_key=progress.key, **known)
