"""The collector: everything that `/metrics` tells, read in one snapshot, and no more often than once a second."""

import threading
from collections.abc import Iterable
from time import monotonic

from django.conf import settings
from django.utils import timezone
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from jetrelay.metrics import counted, owed, running
from jetrelay.metrics.families import gauge, info
from jetrelay.metrics.snapshot import snapshot

# Scrapes within this share one reading.
SHARED_S = 1.0
# While somebody reads, others are served what was read within this time, rather than wait on the few threads that serve the site.
STALE_S = 15.0


class Busy(Exception):
    """Somebody else is reading, and has not come to an end."""


def read() -> list[Metric]:
    """Every family, of one moment of the database. About 20 queries, however many endpoints there are."""
    started = monotonic()
    with snapshot():
        now = timezone.now()
        debts, counts = owed.read(now), counted.read()
        named = owed.busiest(debts.endpoints, counts.by_endpoint())
        found = [*counted.families(counts, named), *owed.families(debts, named), *running.families(now)]
    found.append(info("build", "The version that answers.", "version", [(settings.VERSION,)]))
    found.append(gauge("collect_seconds", "How long it took to read all of this.", "", [((), monotonic() - started)]))
    return found


class Shared(Collector):
    """Reads for one scrape at a time, and lets the others have what it found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Metric] = []
        self._read_at = float("-inf")

    def collect(self) -> Iterable[Metric]:
        """Raises Busy, and whatever the database raises."""
        if self._age_s() < SHARED_S:
            return self._found
        if not self._lock.acquire(timeout=0 if self._age_s() < STALE_S else SHARED_S):
            if self._age_s() < STALE_S:
                return self._found
            raise Busy
        try:
            if self._age_s() >= SHARED_S:
                self._found = read()
                self._read_at = monotonic()
            return self._found
        finally:
            self._lock.release()

    def forget(self) -> None:
        self._read_at = float("-inf")

    def _age_s(self) -> float:
        return monotonic() - self._read_at


shared = Shared()
registry = CollectorRegistry(auto_describe=False)


class _Registered(Collector):
    """Registering collects once, to learn the names: not while a process starts."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return shared.collect()


registry.register(_Registered())
