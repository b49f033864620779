"""How an endpoint stands, in words, for the admin and the pages alike. Pure."""

import enum
from datetime import UTC, datetime
from typing import NamedTuple

from delivery.models import EndpointHealth
from subscriptions.models import Endpoint


class Kind(enum.Enum):
    WELL = "well"
    FAILING = "failing"
    OPEN = "open"
    PROBING = "probing"
    ASKED_TO_WAIT = "asked to wait"
    RECOVERING = "recovering"
    HELD = "held"


class Standing(NamedTuple):
    """What the breaker does, and what the last failure was; no failure while all is well."""

    kind: Kind
    words: str
    failing_since: datetime | None = None
    last_failure: str = ""


def standing(endpoint: Endpoint, now: datetime) -> Standing:
    """Of an endpoint that is read together with its `health`."""
    health: EndpointHealth | None = getattr(endpoint, "health", None)
    if health is None:
        return Standing(*_breaker(EndpointHealth(), now)) if endpoint.state == Endpoint.State.ACTIVE else Standing(Kind.HELD, "")
    # Of an endpoint that is held only what went before: its breaker has nothing to do.
    kind, words = _breaker(health, now) if endpoint.state == Endpoint.State.ACTIVE else (Kind.HELD, "")
    return Standing(kind, words, health.failing_since, health.reason if has_trouble(health) else "")


def has_trouble(health: EndpointHealth) -> bool:
    """Whether there is anything that `endpoints.reset_breaker` would put back."""
    return bool(health.failures or health.trips or health.failing_since or health.open_until or health.paused_until)


def _breaker(health: EndpointHealth, now: datetime) -> tuple[Kind, str]:
    if health.open_until and health.open_until > now:
        return Kind.OPEN, f"open until {_clock(health.open_until, now)}, then one probe"
    if health.open_until:
        return Kind.PROBING, "open: one probe shows whether it is back"
    if health.paused_until and health.paused_until > now:
        return Kind.ASKED_TO_WAIT, f"paused by Retry-After until {_clock(health.paused_until, now)}"
    if health.ramp is not None:
        return Kind.RECOVERING, f"recovering: {health.ramp:,} at once"
    if health.failures:
        return Kind.FAILING, f"closed, after {health.failures:,} {'failure' if health.failures == 1 else 'failures in a row'}"
    return Kind.WELL, "closed"


def _clock(at: datetime, now: datetime) -> str:
    """`12:30:05 UTC`, with the day where it is another one."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"
