"""The outbox: events, the deliveries they owe, the tallies and the stream's cursor, in one transaction; then wakes.

    batch of incoming events -> match -> insert new events -> insert deliveries -> tallies -> cursor -> COMMIT -> wake lanes

A crash before the commit leaves the cursor where it was, so the stream brings the batch again; a crash after it loses
at most the wakes. An event that was stored before is a duplicate and owes nothing again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from delivery.engines import engine
from delivery.engines.base import DeliveryRow, EventCounts, EventRow
from delivery.models import StreamCursor
from delivery.sources.incoming import Incoming, moment
from delivery.wakes import waker
from subscriptions.compiled import Compiled
from subscriptions.ids import new_id
from subscriptions.models import Source

# A batch closes at this many events, or this long after its first one.
MAX_BATCH = 1000
MAX_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a host's stream has been read once this batch is stored."""

    cursor_id: int
    cursor: int | None
    last_event_at: datetime | None


class Outbox:
    """Publishes the events of one source. Not thread-safe: one for each thread that publishes."""

    def __init__(self, source: Source, origin: str = "") -> None:
        self.source = source
        self.origin = origin
        self.compiled = Compiled(source)

    def publish(self, batch: Sequence[Incoming], progress: Progress | None = None, rejected: int = 0) -> EventCounts:
        """Store a batch. `rejected` counts what arrived with it and could not be read. Returns what became of it all."""
        with transaction.atomic():
            self.compiled.refresh()
            now = timezone.now()
            rows, wanted_by = self._match(batch, now)
            stored = engine().insert_events(rows) if rows else set()
            deliveries = [DeliveryRow(new_id(), row.id, endpoint) for row in rows if row.id in stored for endpoint in wanted_by[row.id]]
            if deliveries:
                engine().insert_deliveries(deliveries, now)
            counts = _count(batch, rows, stored, rejected)
            engine().add_event_tallies(now.replace(second=0, microsecond=0), self.source.id, counts)
            if progress:
                _move(progress, now)
        self._wake(deliveries)
        return EventCounts(*(sum(column) for column in zip(*counts.values(), strict=True))) if counts else EventCounts(0, 0, 0, 0, 0)

    def _match(self, batch: Sequence[Incoming], now: datetime) -> tuple[list[EventRow], dict[UUID, tuple[UUID, ...]]]:
        rows, wanted_by = [], {}
        match, source_id, keep, origin = self.compiled.matcher.match, self.source.id, self.source.keep_unmatched, self.origin
        for event in batch:
            endpoints = match(event.kind, event.type, event.operation, event.subject)
            if endpoints or keep:
                id = new_id()
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
                        origin,
                        event.cursor,
                        moment(event.time_us),
                        now,
                        event.body,
                    )
                )
        return rows, wanted_by

    def _wake(self, deliveries: Sequence[DeliveryRow]) -> None:
        shards = self.compiled.shards
        waker.wake({shards[endpoint] % settings.JETRELAY_LANES for endpoint in {row.endpoint_id for row in deliveries}})


def _count(batch: Sequence[Incoming], rows: Sequence[EventRow], stored: set[UUID], rejected: int) -> dict[tuple[str, str], EventCounts]:
    """received = stored + duplicate + unmatched + invalid, for each kind and type."""
    received = Counter((event.kind, event.type) for event in batch)
    matched = Counter((row.kind, row.type) for row in rows)
    new = Counter((row.kind, row.type) for row in rows if row.id in stored)
    counts = {key: EventCounts(count, new[key], matched[key] - new[key], count - matched[key], 0) for key, count in received.items()}
    if rejected:
        counts["", ""] = EventCounts(rejected, 0, 0, 0, rejected)
    return counts


def _move(progress: Progress, now: datetime) -> None:
    news: dict[str, object] = {"cursor_saved_at": now}
    if progress.cursor is not None:
        news["cursor"] = progress.cursor
    if progress.last_event_at is not None:
        news["last_event_at"] = progress.last_event_at
    StreamCursor.objects.filter(pk=progress.cursor_id).update(**news)
