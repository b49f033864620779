"""Counts of tries, over all processes that share a Redis, and in any case in this one.

    add("jetrelay:tries:…", 600) -> 3

A process remembers what the shared count was and goes on from there where that is away, full or read-only: then it brakes by itself,
and what it has counted alone stands when the others are back. Names hold the window that they are about, so what is old is not asked for.
"""

import logging
import threading
from time import monotonic
from typing import NamedTuple

from django.core.cache import caches

logger = logging.getLogger(__name__)

# Apart from what pages remember, which must not push the counts out.
CACHE = "tries"
# Names that a process counts at a time; the oldest go first. Each takes about 200 bytes.
MOST = 50_000
# While the shared count is silent, nobody waits for it again and again.
ALONE_S = 30.0


class _Count(NamedTuple):
    number: int
    until: float
    # Some of it nobody else knows of.
    alone: bool = False


_counts: dict[str, _Count] = {}
_lock = threading.Lock()
_alone_until = 0.0


def add(name: str, timeout_s: int) -> int:
    """Count one more, kept for at least `timeout_s` seconds from the first. Returns the count so far, as far as this process knows."""
    shared = _shared(name, timeout_s)
    now = monotonic()
    with _lock:
        known = _counts.pop(name, None)
        if known is None or known.until <= now:
            while len(_counts) >= MOST:
                del _counts[next(iter(_counts))]
            known = _Count(0, now + timeout_s)
        if shared is None:
            known = known._replace(number=known.number + 1, alone=True)
        else:
            known = known._replace(number=max(known.number + 1, shared) if known.alone else shared)
        _counts[name] = known
        return known.number


def peek(name: str) -> int:
    """The count so far, as far as this process knows without asking others. Counts nothing."""
    with _lock:
        known = _counts.get(name)
        return known.number if known and known.until > monotonic() else 0


def take_back(name: str) -> None:
    """It was no try after all."""
    with _lock:
        known = _counts.get(name)
        if known and known.number > 0:
            _counts[name] = known._replace(number=known.number - 1)
    if monotonic() >= _alone_until:
        try:
            caches[CACHE].decr(name)
        except Exception:  # noqa: BLE001 - gone by itself, or the cache is: then nobody asks it
            return


def forget(name: str) -> None:
    """As if nobody had tried."""
    with _lock:
        _counts.pop(name, None)
    if monotonic() >= _alone_until:
        try:
            caches[CACHE].delete(name)
        except Exception:  # noqa: BLE001 - as above
            return


def clear() -> None:
    """Forget what this process has counted."""
    global _alone_until
    with _lock:
        _counts.clear()
        _alone_until = 0.0


def _shared(name: str, timeout_s: int) -> int | None:
    """The count of all processes; None where nobody tells."""
    global _alone_until
    if monotonic() < _alone_until:
        return None
    try:
        caches[CACHE].add(name, 0, timeout=timeout_s)
        return int(caches[CACHE].incr(name))
    except Exception as error:  # noqa: BLE001 - whatever the cache's client raises, tries are counted here
        _alone_until = monotonic() + ALONE_S
        logger.warning("Tries cannot be counted together with other processes, so each counts for itself: %s. Check Redis.", error)
        return None
