"""How an endpoint stands, in words, for the admin and the pages alike. Pure."""

import enum
from datetime import UTC, datetime
from typing import NamedTuple

from delivery import health
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
    row: EndpointHealth = getattr(endpoint, "health", None) or EndpointHealth()
    # Of an endpoint that is held only what went before: its breaker has nothing to do.
    kind, words = _breaker(row, now) if endpoint.state == Endpoint.State.ACTIVE else (Kind.HELD, "")
    return Standing(kind, words, row.failing_since, row.reason if has_trouble(row) else "")


def has_trouble(row: EndpointHealth) -> bool:
    """Whether there is anything that `endpoints.reset_breaker` would put back."""
    return bool(row.failures or row.trips or row.failing_since or row.open_until or row.paused_until)


def _breaker(row: EndpointHealth, now: datetime) -> tuple[Kind, str]:
    match health.of(row).state(now):
        case "open":
            return Kind.OPEN, f"open until {_clock(row.open_until, now)}, then one probe"
        case "probing":
            return Kind.PROBING, "open: one probe shows whether it is back"
        case "paused":
            return Kind.ASKED_TO_WAIT, f"paused by Retry-After until {_clock(row.paused_until, now)}"
        case "recovering":
            return Kind.RECOVERING, f"recovering: {row.ramp:,} at once"
    if row.failures:
        return Kind.FAILING, f"closed, after {row.failures:,} {'failure' if row.failures == 1 else 'failures in a row'}"
    return Kind.WELL, "closed"


def _clock(at: datetime | None, now: datetime) -> str:
    """`12:30:05 UTC`, with the day where it is another one."""
    assert at is not None
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"
