"""Whose request starts next, while more could start than this process may open.

Tenants take turns, however many endpoints each of them has; among a tenant's endpoints those of a higher priority come
first, eight times as often for each step, so that none starves. This is stride scheduling: whoever is served moves back
by one over its weight, and the one furthest ahead is next. Who was away comes back level with the others, not ahead.

A tenant that holds as many places as are free waits for one to be given back (see `shares.py`): however many endpoints
of theirs never answer, there is a place for whoever comes next.

Endpoints with a rate limit wait here until their next request may start.
"""

import math
from heapq import heappop, heappush
from itertools import count
from time import monotonic

from delivery.destinations.exchange import Gate
from delivery.shares import Shares

# By `Endpoint.Priority`: low, normal, high.
WEIGHTS = (1.0, 8.0, 64.0)


class _Tenant:
    """The gates of one tenant that could start something."""

    __slots__ = ("key", "parked", "passed", "ready", "served")

    def __init__(self, key: object) -> None:
        self.key = key
        # Whether it waits for a place to be given back.
        self.parked = False
        self.passed = 0.0
        # How far the gate served last had come.
        self.served = 0.0
        self.ready: list[tuple[float, int, Gate]] = []


class Turns:
    """Gates with something to start, and the `places` that requests take. Used by the sender's thread alone."""

    def __init__(self, places: Shares | None = None) -> None:
        self.places = places or Shares(math.inf)
        self._tenants: dict[object, _Tenant] = {}
        # Those that wait for a place, by how many they held when that was looked at last: the first may be out of date.
        self._parked: list[tuple[float, int, _Tenant]] = []
        self._ready: list[tuple[float, int, _Tenant]] = []
        self._later: list[tuple[float, int, Gate]] = []
        self._numbers = count()
        # How far the tenant served last had come.
        self._served = 0.0

    def add(self, gate: Gate, now: float) -> None:
        """Something new waits at the gate, or a place has come free. `now` is on the monotonic clock."""
        if gate.queued_for == 0.0 or not gate.can_start(now):
            return
        if gate.next_at <= now:
            self._put(gate)
        elif gate.queued_for is None or gate.queued_for > gate.next_at:
            gate.queued_for = gate.next_at
            heappush(self._later, (gate.next_at, next(self._numbers), gate))

    def next(self, now: float) -> Gate | None:
        """The gate whose turn it is. It has to be added again afterwards."""
        if self._later:
            self._wake_up(now)
        while self._ready:
            passed, _, tenant = heappop(self._ready)
            if not self.places.may_take(tenant.key):
                self._park(tenant)
                continue
            self._served = passed
            tenant.served, _, gate = heappop(tenant.ready)
            gate.queued_for = None
            startable = gate.can_start(now)
            if startable:
                gate.passed = tenant.served + 1 / gate.weight
                tenant.passed = self._served + 1
            if tenant.ready:
                heappush(self._ready, (tenant.passed, next(self._numbers), tenant))
            if startable:
                return gate
        return None

    def freed(self, key: object) -> None:
        """A tenant has given a place back. To be called once the places know."""
        if not self._parked:
            return
        tenant = self._tenants.get(key)
        if tenant and tenant.parked:
            self._park(tenant)
        while self._parked and (not self._parked[0][2].parked or self._parked[0][0] < self.places.free):
            tenant = heappop(self._parked)[2]
            if tenant.parked:
                tenant.parked = False
                heappush(self._ready, (tenant.passed, next(self._numbers), tenant))

    def _park(self, tenant: _Tenant) -> None:
        tenant.parked = True
        heappush(self._parked, (self.places.held(tenant.key), next(self._numbers), tenant))

    @property
    def others(self) -> bool:
        """Whether there is anybody whose turn it could be."""
        return bool(self._ready or self._later)

    def wait_s(self) -> float | None:
        """How long until a gate may start its next request; 0 when one may now, None when none waits for the time."""
        if self._ready:
            return 0.0
        return max(0.0, self._later[0][0] - monotonic()) if self._later else None

    def _wake_up(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            at, _, gate = heappop(self._later)
            # A gate whose limit was lifted meanwhile has been put forward already.
            if gate.queued_for == at:
                self._put(gate)

    def _put(self, gate: Gate) -> None:
        gate.queued_for = 0.0
        tenant = self._tenants.get(gate.tenant)
        if tenant is None:
            tenant = self._tenants[gate.tenant] = _Tenant(gate.tenant)
        if not tenant.ready:
            tenant.passed = max(tenant.passed, self._served)
            heappush(self._ready, (tenant.passed, next(self._numbers), tenant))
        heappush(tenant.ready, (max(gate.passed, tenant.served), next(self._numbers), gate))
