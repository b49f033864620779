"""Leases: the right to drain a lane or to run a listener, for a while.

A lease is a row. It is taken by a conditional UPDATE, so two takers cannot both win, and it is timed by the database's
clock, so machines need not agree on the time. The holder counts down on its own monotonic clock from before the
UPDATE: it stops believing in its lease before anyone else may take it.

A lease that ends later than its term allows was dated by a clock that was ahead (and has been put right since): whoever wants it
cuts it to its term. An owner that lives renews it within a third of that; one that does not has lost it when the term is over, as
after any crash. It is not taken over at once, because an owner that lives still believes in it.
"""

import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from uuid import UUID, uuid4

from django.db.models import QuerySet
from django.db.models.functions import Now

from delivery.models import Lease

logger = logging.getLogger(__name__)

# No lease is taken for longer: one that ends later has a wrong date, whoever wrote it.
LONGEST_S = 60.0
# Two looks at a clock differ by a little.
_LEEWAY_S = 1.0


def lane_lease(lane: int) -> str:
    return f"lane:{lane}"


def listener_lease(source_id: UUID) -> str:
    return f"listener:{source_id}"


@dataclass
class Holding:
    """One process's claim to a named lease."""

    name: str
    duration_s: float
    token: UUID = field(default_factory=uuid4)
    believed_until: float = 0.0

    def take(self) -> bool:
        """Take the lease if it is free or has run out."""
        started = monotonic()
        news = {"token": self.token, "owner": f"{socket.gethostname()}:{os.getpid()}"[:100], "expires_at": self._expiry()}
        taken = Lease.objects.filter(name=self.name, expires_at__lte=Now()).update(**news)
        if not taken:
            Lease.objects.bulk_create([Lease(name=self.name, **news)], ignore_conflicts=True)
            taken = Lease.objects.filter(name=self.name, token=self.token).count()
        if not taken:
            self._cut()
        return self._believe(started, bool(taken))

    def renew(self) -> bool:
        """Extend the lease. False when somebody else has it by now."""
        started = monotonic()
        return self._believe(started, bool(Lease.objects.filter(name=self.name, token=self.token).update(expires_at=self._expiry())))

    def hold_on(self) -> bool:
        """Whether the lease is still ours, which then nobody can take before the caller's transaction ends."""
        if not Lease.objects.select_for_update().filter(name=self.name, token=self.token).values("pk"):
            self.believed_until = 0.0
        return self.held

    def release(self) -> None:
        Lease.objects.filter(name=self.name, token=self.token).update(expires_at=Now(), token=None)
        self.believed_until = 0.0

    @property
    def held(self) -> bool:
        return monotonic() < self.believed_until

    @property
    def ripe(self) -> bool:
        """Whether a third of the lease has passed: time to renew it."""
        return monotonic() > self.believed_until - self.duration_s * 2 / 3

    def _cut(self) -> None:
        """Give a lease that is dated beyond its term no more than that. Its owner, if it lives, renews it meanwhile."""
        beyond = Lease.objects.filter(name=self.name, expires_at__gt=Now() + timedelta(seconds=self.duration_s + _LEEWAY_S))
        found = beyond.values_list("owner", "expires_at").first()
        if found and beyond.update(expires_at=self._expiry()):
            owner, until = found
            words = "The lease %s was dated until %s UTC by %s, whose clock must have been ahead: it runs out in %.0f s unless it is renewed."
            logger.warning(words, self.name, f"{until:%F %T}", owner or "somebody", self.duration_s)

    def _expiry(self) -> object:
        return Now() + timedelta(seconds=self.duration_s)

    def _believe(self, started: float, holds: bool) -> bool:
        self.believed_until = started + self.duration_s if holds else 0.0
        return holds


def current() -> QuerySet[Lease]:
    """The leases that somebody holds now. A date that no owner can have written holds nothing."""
    return Lease.objects.filter(expires_at__gt=Now(), expires_at__lte=Now() + timedelta(seconds=LONGEST_S))


def misdated() -> QuerySet[Lease]:
    """Those that are dated later than anybody who goes by the database's clock can have dated them."""
    return Lease.objects.filter(expires_at__gt=Now() + timedelta(seconds=LONGEST_S))


def live(names: Iterable[str]) -> set[str]:
    """Those of the leases that somebody holds now."""
    return set(current().filter(name__in=list(names)).values_list("name", flat=True))
