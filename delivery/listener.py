"""The listener: from a Jetstream to the outbox, one host, one process at a time.

The reader fills a buffer; this thread stores what is in it, batch by batch, each with the cursor that it reaches. The
cursor is never ahead of the events, so a crash anywhere costs a repeat, and repeats are dropped by their dedup key.
"""

import logging
import threading
from collections.abc import Sequence
from time import monotonic, time_ns

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection
from django.utils import timezone

from delivery.leases import Holding
from delivery.models import StreamCursor
from delivery.outbox import MAX_BATCH, MAX_WAIT_S, Outbox, Progress
from delivery.sources.incoming import Incoming, moment
from delivery.sources.jetstream.position import Position
from delivery.sources.jetstream.reader import NOTHING_WANTED, Reader
from subscriptions.models import Source

logger = logging.getLogger(__name__)

LEASE_S = 9.0
# How often the listener looks at its subscriptions, renews its lease and says that it lives.
TICK_S = 1.0
# When nothing has answered for this long after the start, say so in words a newcomer can use.
PATIENCE_S = 10.0


class LeaseLost(Exception):
    """Another process listens now."""


class Listener:
    """Stores what one host sends until `stop` is called."""

    def __init__(self, source: Source, url: str) -> None:
        self.url = url
        self.outbox = Outbox(source, origin=url)
        self.holding = Holding(f"listener:{source.id}", LEASE_S)
        self._stop = threading.Event()
        self._troubles = 0

    def stop(self) -> None:
        """Ask the listener to store what it has and to return. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        while self._wait_for_lease():
            try:
                self._listen()
                return
            except LeaseLost:
                logger.warning("Another listener has taken over; this one stands by.")

    def _wait_for_lease(self) -> bool:
        said = False
        while not self._stop.is_set():
            try:
                if self.holding.take():
                    return True
                if not said:
                    logger.info("Another listener is at work; this one stands by.")
                said = True
            except (DatabaseError, InterfaceError) as error:
                self._wait_for_database(error)
            self._stop.wait(TICK_S)
        return False

    def _listen(self) -> None:
        row, _ = StreamCursor.objects.get_or_create(source=self.outbox.source, host=self.url)
        self.stored = Position(row.cursor)
        self.row_id = row.pk
        self.reader = Reader(self.url, row.cursor, f"Jetrelay/{settings.VERSION}")
        self._started, self._ticked_at, self._explained = monotonic(), 0.0, False
        self.reader.start()
        try:
            while not self._stop.is_set():
                self._tick()
                self._store()
        finally:
            self.reader.stop()
        while self._store():
            pass
        self._take_leave()

    def _store(self) -> bool:
        """Store one batch. Returns whether there was anything."""
        batch, rejected = self.reader.take(MAX_BATCH, MAX_WAIT_S, idle_s=TICK_S / 2)
        if not batch and not rejected:
            return False
        now_us = time_ns() // 1000
        for event in batch:
            self.stored.advance(event, now_us)
        self._publish(batch, Progress(self.row_id, self.stored.cursor, moment(batch[-1].time_us) if batch else None), rejected)
        return True

    def _publish(self, batch: Sequence[Incoming], progress: Progress | None, rejected: int) -> None:
        """Publish, through any trouble with the database; an event that it refuses is rejected alone."""
        while True:
            try:
                self.outbox.publish(batch, progress, rejected)
                self._troubles = 0
                return
            except (DatabaseError, InterfaceError) as error:
                # Only these two can be an event's doing: that a database is read-only or half migrated, none is to blame for.
                if batch and isinstance(error, DataError | IntegrityError):
                    batch, rejected = self._without_the_refused(batch, rejected, error)
                    continue
                self._wait_for_database(error)
                if self._stop.is_set() and self._troubles > 5:
                    raise
                self._keep_lease()

    def _without_the_refused(self, batch: Sequence[Incoming], rejected: int, error: Exception) -> tuple[Sequence[Incoming], int]:
        """Publish the first half. Returns what is left to publish; an event that is alone is counted instead."""
        if len(batch) == 1:
            logger.error("The database refuses an event; it counts as rejected. %s: %.200r", error, batch[0].body[:200])
            return [], rejected + 1
        half = len(batch) // 2
        self._publish(batch[:half], None, rejected)
        return batch[half:], 0

    def _take_leave(self) -> None:
        """A courtesy: without it the lease runs out, and `seen_at` tells the pages that nobody listens."""
        try:
            StreamCursor.objects.filter(pk=self.row_id).update(connected_since=None, problem="the listener was stopped")
            self.holding.release()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The listener has stopped without giving its lease back; another may start in %d s. %s", LEASE_S, str(error).strip())

    def _wait_for_database(self, error: Exception) -> None:
        self._troubles += 1
        if self._troubles == 1:
            logger.warning("The database does not answer; the listener waits for it. %s", str(error).strip())
        connection.close()
        # Bounded before it is raised: after an hour of trouble the power would be no float any more.
        self._stop.wait(0.1 * 2 ** min(self._troubles, 4))

    # --- once a second -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if monotonic() - self._ticked_at < TICK_S:
            return
        self._ticked_at = monotonic()
        try:
            self._keep_lease()
            self.outbox.compiled.refresh()
            self.reader.want(self.outbox.compiled.wanted)
            StreamCursor.objects.filter(pk=self.row_id).update(
                seen_at=timezone.now(), connected_since=self.reader.connected_since, problem=self.reader.problem[:300]
            )
        except (DatabaseError, InterfaceError) as error:
            self._wait_for_database(error)
        self._explain()

    def _keep_lease(self) -> None:
        try:
            if self.holding.ripe and not self.holding.renew():
                raise LeaseLost
        except (DatabaseError, InterfaceError) as error:
            self._wait_for_database(error)

    def _explain(self) -> None:
        if self._explained or monotonic() - self._started < PATIENCE_S:
            return
        self._explained = True
        if self.reader.connected_since is None and self.reader.problem != NOTHING_WANTED:
            logger.warning(
                "No Jetstream host has answered for %d s (%s: %s). Is this machine offline, or JETSTREAM_HOSTS wrong?"
                " `make demo` shows everything at work without a network.",
                PATIENCE_S,
                self.url,
                self.reader.problem,
            )
