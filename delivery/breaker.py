"""The circuit breaker of one endpoint. Pure: how it was doing and what happened in, how it is doing out.

    closed ── 5 failures in a row ──> open ── cooled ──> one probe ── fails ──> open, for twice as long
      ^                                                     │
      └── recovering: 1, 2, 4 … requests at once <── succeeds

The breaker cools for 30 s, then 60 s, up to 10 minutes; only a recovery that was seen through to its end makes it forget
how often it had opened. A receiver that asks for patience (Retry-After) is left alone for as long, and recovers the same way.

While an endpoint is held, by its breaker or by its own wish, what still comes in belongs to requests that were under way: failures
count neither against their deliveries nor against the endpoint, and a success does not close the breaker. Nor does a probe that fails cost its
delivery an attempt of its schedule. So an outage of any length uses up no delivery's attempts but the few that found it out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

# Failures in a row that open the breaker.
THRESHOLD = 5
FIRST_COOLING_S = 30.0
LONGEST_COOLING_S = 600.0
# What a receiver may ask for by Retry-After (`retry.MAX_RETRY_AFTER_S`; a test compares them).
LONGEST_PAUSE_S = 3600.0
# So far the clocks of two machines may be apart before one of them is not believed any more.
LEEWAY_S = 60.0
# So many failures in a row must have been seen before an endpoint is given up: one failure a week is no outage.
HOPELESS = 10


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint is doing. The names are those of `EndpointHealth`."""

    failures: int = 0
    failing_since: datetime | None = None
    trips: int = 0
    open_until: datetime | None = None
    ramp: int | None = None
    paused_until: datetime | None = None
    reason: str = ""
    # Successes in a row at the present ramp. Not kept: a new owner counts again.
    streak: int = 0

    def held_until(self, now: datetime) -> datetime | None:
        """Until when nothing may be sent; None when something may."""
        return max((moment for moment, longest_s in self._waits() if _is_ahead(moment, now, longest_s)), default=None)

    def counts(self, now: datetime) -> bool:
        """Whether a failure that comes in now counts against its delivery."""
        return self.open_until is None and not _is_ahead(self.paused_until, now, LONGEST_PAUSE_S)

    def room(self, most: int, now: datetime) -> int:
        """How many requests may be open at once, of `most`."""
        if self.held_until(now):
            return 0
        if self.open_until:
            return 1
        return min(self.ramp, most) if self.ramp else most

    def state(self, now: datetime) -> str:
        """`closed`, `open`, `probing` (cooled, one request goes to see), `recovering` or `paused` (by Retry-After)."""
        if self.open_until:
            return "open" if _is_ahead(self.open_until, now, LONGEST_COOLING_S) else "probing"
        if _is_ahead(self.paused_until, now, LONGEST_PAUSE_S):
            return "paused"
        return "recovering" if self.ramp else "closed"

    def _waits(self) -> Iterator[tuple[datetime, float]]:
        """What is set of them, and the longest time that each may be ahead."""
        for moment, longest_s in ((self.open_until, LONGEST_COOLING_S), (self.paused_until, LONGEST_PAUSE_S)):
            if moment:
                yield moment, longest_s


def _is_ahead(moment: datetime | None, now: datetime, longest_s: float) -> bool:
    """Whether the moment is still to come. One that is further off than anybody puts it was written by a wrong clock, and has passed."""
    return moment is not None and now < moment <= now + timedelta(seconds=longest_s + LEEWAY_S)


WELL = Health()
# Where an endpoint starts again after somebody has enabled it or reset its breaker.
GENTLE = Health(ramp=1)


def cooling_s(trips: int) -> float:
    """How long the breaker stays open when it opens for the n-th time."""
    return float(min(FIRST_COOLING_S * 2 ** min(trips - 1, 16), LONGEST_COOLING_S))


def succeeded(health: Health, now: datetime, most: int) -> Health:
    """After a success of an endpoint that takes `most` requests at once."""
    if health.held_until(now):
        return health
    if health.open_until:
        return replace(health, failures=0, failing_since=None, open_until=None, ramp=1)
    if health.ramp is None:
        return WELL
    grown = replace(health, failures=0, failing_since=None, streak=health.streak + 1)
    if grown.streak < health.ramp:
        return grown
    return _unless_full(replace(grown, ramp=health.ramp * 2, streak=0), most)


def rested(health: Health, most: int) -> Health:
    """After a turn of its lane that ended with nothing left to send: successes alone were a whole step of the recovery, however few."""
    return _unless_full(replace(health, ramp=health.ramp * 2, streak=0), most) if health.ramp and health.streak else health


def failed(health: Health, now: datetime, reason: str, retry_after_s: float = 0.0) -> Health:
    """After a failure. `retry_after_s` is what the receiver asked for, bounded by the caller."""
    asked = now + timedelta(seconds=retry_after_s) if retry_after_s else None
    if health.held_until(now):
        # Of a request that was under way: no news, but for a longer wish.
        return replace(health, paused_until=max(filter(None, (health.paused_until, asked)))) if asked else health
    failures = health.failures + 1
    worse = replace(health, failures=failures, failing_since=health.failing_since or now, streak=0, reason=reason)
    if health.open_until or failures >= THRESHOLD:
        trips = health.trips + 1
        worse = replace(worse, trips=trips, open_until=now + timedelta(seconds=cooling_s(trips)), ramp=None)
    if asked:
        worse = replace(worse, paused_until=asked, ramp=None if worse.open_until else 1)
    return worse


def is_hopeless(health: Health, now: datetime, patience: timedelta) -> bool:
    """Whether everything failed for so long that the endpoint is to be disabled."""
    return health.failures >= HOPELESS and health.failing_since is not None and now - health.failing_since >= patience


def _unless_full(health: Health, most: int) -> Health:
    """Recovered, once there is no bound below the endpoint's own."""
    return health if health.ramp is not None and health.ramp < most else WELL
