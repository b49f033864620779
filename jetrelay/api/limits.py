"""How many requests a key may make, and all keys of a tenant together: so many in each window of ten seconds, over all web processes
that share a Redis.

Each process takes a part of what is left at a time, so that the count costs a round trip for one request in many. Without
Redis every web process counts for itself.
"""

import threading
from dataclasses import dataclass, field
from time import monotonic, time
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.core.cache import cache

from subscriptions.allowance import most
from subscriptions.keys import Bearer

WINDOW_S = 10
# A process takes this part of a window's requests at a time.
_PART = 200
_MAX_KEYS = 10_000


class Quota(NamedTuple):
    """What is left after this request; below zero if there was nothing left for it."""

    limit: int
    remaining: int
    reset_s: int
    # Whether it is the tenant's, and not that of the key alone, which is used up.
    tenants: bool = False


def headers(quota: Quota) -> list[tuple[str, str]]:
    """What a client is told of its quota (draft-ietf-httpapi-ratelimit-headers)."""
    name = "tenant" if quota.tenants else "key"
    return [
        ("RateLimit-Policy", f'"{name}";q={quota.limit};w={WINDOW_S}'),
        ("RateLimit", f'"{name}";r={max(0, quota.remaining)};t={quota.reset_s}'),
    ]


@dataclass
class _Window:
    number: int
    granted: int = 0
    used: int = 0
    # Taken by all processes together, as far as is known.
    total: int = 0
    # Held while another part is asked for, which takes a round trip: others of this window wait for it, and nobody else does.
    asking: threading.Lock = field(default_factory=threading.Lock)

    def use(self, limit: int) -> int | None:
        """How many are left after one more; None where another part has to be asked for."""
        if self.used >= self.granted:
            return None
        self.used += 1
        return max(0, limit - self.total) + self.granted - self.used


_windows: dict[UUID, _Window] = {}
# While a cache is silent, nobody waits for it again and again.
_ALONE_S = 30.0
_alone_until = 0.0
_lock = threading.Lock()


def take(bearer: Bearer) -> Quota:
    """Count one request of this key; and, where the key may make it, one of its tenant."""
    per_s = bearer.rate_limit_per_s or settings.JETRELAY_API_RATE_LIMIT
    # A key has more than the tenant's quota only from the operator, who means it.
    tenants = max(per_s, most("requests_per_s", bearer.quotas))
    now = time()
    number = int(now // WINDOW_S)
    reset_s = max(1, round((number + 1) * WINDOW_S - now))
    remaining = _count(bearer.key_id, number, WINDOW_S * per_s)
    if remaining >= 0 and _count(bearer.tenant_id, number, WINDOW_S * tenants) < 0:
        return Quota(WINDOW_S * tenants, -1, reset_s, tenants=True)
    return Quota(WINDOW_S * per_s, remaining, reset_s)


def _count(whose: UUID, number: int, limit: int) -> int:
    """How many are left after this one, of this window; below zero if there was none for it."""
    with _lock:
        window = _window(whose, number)
        left = window.use(limit)
    if left is not None:
        return left
    with window.asking:
        with _lock:
            left = window.use(limit)
        if left is None and window.total < limit:
            part = max(1, limit // _PART)
            total = _add(f"jetrelay:requests:{whose.hex}:{number}", part, window.total + part)
            with _lock:
                window.total = total
                window.granted += max(0, part - max(0, total - limit))
                left = window.use(limit)
    return -1 if left is None else left


def _window(whose: UUID, number: int) -> _Window:
    window = _windows.get(whose)
    if window is None or window.number != number:
        # At the end, so that the first is the one that began first. What others have left stays theirs.
        _windows.pop(whose, None)
        if len(_windows) >= _MAX_KEYS:
            del _windows[next(iter(_windows))]
        window = _windows[whose] = _Window(number)
    return window


def has_part(bearer: Bearer) -> bool:
    """Whether this process can count a request of this key and its tenant without asking for another part of what is left."""
    number = int(time() // WINDOW_S)
    windows = [_windows.get(each) for each in (bearer.key_id, bearer.tenant_id)]
    return all(window is not None and window.number == number and window.used < window.granted for window in windows)


def _add(name: str, number: int, otherwise: int) -> int:
    """The new count of all processes; `otherwise` where the cache does not answer: then this process counts for itself for a while."""
    global _alone_until
    if monotonic() < _alone_until:
        return otherwise
    try:
        cache.add(name, 0, timeout=3 * WINDOW_S)
        return int(cache.incr(name, number))
    except Exception:  # noqa: BLE001 - whatever the cache's client raises, requests are not to fail of it
        _alone_until = monotonic() + _ALONE_S
        return otherwise
