"""The listener: from a Jetstream to the outbox, several hosts at once, one process at a time.

A reader for each host fills a buffer; this thread stores what is in them, batch by batch, each with the cursors that it
reaches. A cursor is never ahead of the events, so a crash anywhere costs a repeat, and repeats are dropped by their
dedup key, as are the copies that every other host brings.
"""

import logging
import threading
from collections.abc import Sequence
from itertools import chain
from time import monotonic, time_ns

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection, transaction

from delivery import stream
from delivery.hosts import ListenedHost
from delivery.leases import Holding, listener_lease
from delivery.models import StreamHost
from delivery.outbox import MAX_BATCH, MAX_WAIT_S, Outbox, Progress
from delivery.sources.incoming import Incoming
from delivery.sources.jetstream.comparison import Comparison
from delivery.sources.jetstream.compression import Dictionaries, read_v1_dictionary
from delivery.sources.jetstream.reader import NOTHING_WANTED, Kit
from delivery.sources.jetstream.rejects import Reject
from subscriptions.matching import Wanted
from subscriptions.models import Source

logger = logging.getLogger(__name__)

# After the subscriptions of all tenants were compiled, so many times as long passes before they are again.
REST_FACTOR = 10
# A standby takes over within this, and a look at the lease, of the last sign of life.
LEASE_S = 6.0
# How often the listener looks at its subscriptions, its hosts' wishes and its lease, and says that it lives.
TICK_S = 1.0
# Readers have so long to end before what they have read is stored. Less than the lease: nobody else has begun by then.
STOP_S = 3.0
# When nothing has answered for this long after the start, say so in words a newcomer can use.
PATIENCE_S = 10.0


class LeaseLost(Exception):
    """Another process listens now."""


class Listener:
    """Stores what the hosts of one stream send until `stop` is called."""

    def __init__(self, source: Source, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self.outbox = Outbox(source, rest_factor=REST_FACTOR)
        self.holding = Holding(listener_lease(source.id), LEASE_S)
        self.hosts: list[ListenedHost] = []
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
        self._kit = _kit()
        self._bell = self._kit.bell
        self._started, self._ticked_at, self._rejects_at, self._explained = monotonic(), 0.0, 0.0, False
        self._comparison = Comparison(self.urls)
        self._compared: Wanted | None = None
        self.hosts = self._meet_hosts()
        try:
            for host in self.hosts:
                host.reader.start()
            while not self._stop.is_set():
                self._tick()
                self._bell.wait(MAX_BATCH, MAX_WAIT_S, idle_s=TICK_S / 2)
                self._store()
        finally:
            for host in self.hosts:
                host.reader.stop()
            # One that is still connecting does not hold up the others: it has nothing to store.
            deadline = monotonic() + STOP_S
            for host in self.hosts:
                host.reader.join(max(deadline - monotonic(), 0.0))
        while self._store():
            pass
        self._take_leave()

    def _meet_hosts(self) -> list[ListenedHost]:
        while not self._stop.is_set():
            try:
                return [ListenedHost(self.outbox.source, url, self._kit) for url in self.urls]
            except (DatabaseError, InterfaceError) as error:
                self._wait_for_database(error)
                self._keep_lease()
        return []

    # --- storing -----------------------------------------------------------------------------------------------

    def _store(self) -> bool:
        """Store one batch. Returns whether there was anything."""
        now_us = time_ns() // 1000
        taken = self._take()
        rejected = self._record()
        progress = [each for each in (host.advance(events, now_us) for host, events in taken) if each is not None]
        if not progress and not rejected:
            return False
        batch = list(chain.from_iterable(events for _, events in taken))
        self._publish(batch, progress, rejected)
        self._compare(taken)
        return bool(batch)

    def _take(self) -> list[tuple[ListenedHost, list[Incoming]]]:
        """A share for each host, and what others leave of theirs for those that have more."""
        taken, left = [], MAX_BATCH
        # The one with most waiting comes last, and so gets what the others leave.
        for place, host in enumerate(sorted(self.hosts, key=lambda each: len(each.reader.buffer))):
            events = host.reader.take(left // (len(self.hosts) - place))
            left -= len(events)
            taken.append((host, events))
        return taken

    def _record(self) -> int:
        """Write down what the readers could not read, and what they could not get. Returns how many frames were rejected."""
        gaps = [(host, host.reader.gaps.popleft()) for host in self.hosts for _ in range(len(host.reader.gaps))]
        rows: list[Reject] = []
        # Not with every batch: a host that sends nothing but garbage would fill and empty the table all the time.
        if self._stop.is_set() or monotonic() - self._rejects_at > TICK_S:
            self._rejects_at = monotonic()
            rows = list(chain.from_iterable(host.reader.rejects.take() for host in self.hosts))
        while gaps or rows:
            try:
                with transaction.atomic():
                    for host, gap in gaps:
                        stream.record_gap(self.outbox.source, host.url, gap)
                    stream.record_rejects(self.outbox.source, rows)
                for host, gap in gaps:
                    host.note(gap)
                    logger.warning("%s: %s, so events may be missing from %s.", host.url, gap.reason, gap.words())
                break
            except (DatabaseError, InterfaceError) as error:
                self._survive(error)
        return sum(host.reader.rejects.count() for host in self.hosts)

    def _publish(self, batch: Sequence[Incoming], progress: Sequence[Progress], rejected: int) -> None:
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
                self._survive(error)

    def _without_the_refused(self, batch: Sequence[Incoming], rejected: int, error: Exception) -> tuple[Sequence[Incoming], int]:
        """Publish the first half. Returns what is left to publish; an event that is alone is counted instead."""
        if len(batch) == 1:
            logger.error("The database refuses an event; it counts as rejected. %s: %.200r", error, batch[0].body[:200])
            return [], rejected + 1
        half = len(batch) // 2
        self._publish(batch[:half], (), rejected)
        return batch[half:], 0

    def _survive(self, error: Exception) -> None:
        self._wait_for_database(error)
        if self._stop.is_set() and self._troubles > 5:
            raise error
        self._keep_lease()

    def _wait_for_database(self, error: Exception) -> None:
        self._troubles += 1
        if self._troubles == 1:
            logger.warning("The database cannot be used; the listener waits for it. %s", str(error).strip())
        connection.close()
        # Bounded before it is raised: after an hour of trouble the power would be no float any more.
        self._stop.wait(0.1 * 2 ** min(self._troubles, 4))

    def _take_leave(self) -> None:
        """A courtesy: without it the lease runs out, and `seen_at` tells the pages that nobody listens."""
        try:
            rows = StreamHost.objects.filter(pk__in=[host.row_id for host in self.hosts])
            rows.update(connected_since=None, problem="the listener was stopped", events_per_s=0, bytes_per_s=0)
            self.holding.release()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The listener has stopped without giving its lease back; another may start in %d s. %s", LEASE_S, str(error).strip())

    # --- comparing hosts ---------------------------------------------------------------------------------------

    def _live(self) -> set[str]:
        return {host.url for host in self.hosts if host.reader.liveness.live}

    def _compare(self, taken: Sequence[tuple[ListenedHost, Sequence[Incoming]]]) -> None:
        if len(self.hosts) < 2:
            return
        live, now_s, new = self._live(), monotonic(), set(self.outbox.inserted)
        for host, events in taken:
            present = host.url in live
            for event in events:
                key = event.dedup_key
                if key not in new:
                    self._comparison.brought_again(host.url, key)
                    continue
                new.remove(key)
                if present and event.kind == "commit":
                    self._comparison.brought_first(host.url, key, event.type, now_s, live)

    # --- once a second -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if monotonic() - self._ticked_at < TICK_S:
            return
        self._ticked_at = monotonic()
        try:
            self._keep_lease()
            self.outbox.compiled.refresh()
            self._want(self.outbox.compiled.wanted)
            rows = StreamHost.objects.in_bulk([host.row_id for host in self.hosts])
            for host in self.hosts:
                if host.row_id in rows:
                    host.obey(rows[host.row_id], self.outbox.compiled.wanted)
                host.reader.watch()
            self._look()
        except (DatabaseError, InterfaceError) as error:
            self._wait_for_database(error)
        self._explain()

    def _want(self, wanted: Wanted | None) -> None:
        if wanted != self._compared:
            self._compared = wanted
            self._comparison.start_over()
        for host in self.hosts:
            host.want(wanted)

    def _look(self) -> None:
        for alarm in self._comparison.look(monotonic(), self._live()):
            logger.warning("%s leaves out %s, which %s brings.", alarm.host, alarm.collection, alarm.brought_by)
        for host in self.hosts:
            host.show(self._comparison.alarms(host.url))
        for gap in stream.fill_gaps(self.outbox.source):
            logger.info("%s has stored what may be missing from %s.", gap.filled_by, gap)

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
        silent = [host for host in self.hosts if host.reader.connected_since is None and host.reader.problem != NOTHING_WANTED]
        if len(silent) == len(self.hosts):
            logger.warning(
                "No Jetstream host has answered for %d s (%s). Is this machine offline, or JETSTREAM_HOSTS wrong?"
                " `make demo` shows everything at work without a network.",
                PATIENCE_S,
                "; ".join(f"{host.url}: {host.reader.problem}" for host in silent),
            )


def _kit() -> Kit:
    user_agent = f"Jetrelay/{settings.VERSION}"
    path = settings.JETSTREAM_ZSTD_DICTIONARY
    return Kit(
        user_agent, v1_dictionary=read_v1_dictionary(path) if path else None, v2_dictionaries=Dictionaries(settings.DATA_DIR / "dictionaries", user_agent)
    )
