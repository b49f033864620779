"""What follows an attempt: a closed set of outcomes, decided in one place. Pure.

The schedule is data: seconds to wait after the first, second, … failed attempt. A delivery whose schedule is used up is
dead. An endpoint has its schedule as an explicit list or makes it from a strategy's numbers:

    exponential(first_s=30, factor=4, longest_s=7200, count=5)   30, 120, 480, 1920, 7200
    linear(first_s=60, step_s=120, longest_s=300, count=4)       60, 180, 300, 300
    fixed(wait_s=600, count=3)                                   600, 600, 600

All numbers are in seconds but for the factor and the count, which is that of the retries: one more attempt is made.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

# RFC 9110 and 6585: the request may succeed later, unchanged.
TRANSIENT_STATUSES = frozenset({408, 425, 429})

# A receiver may ask for more patience, but not for ever. In seconds.
MAX_RETRY_AFTER_S = 3600.0


class Outcome(enum.Enum):
    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"


def exponential(first_s: float, factor: float, longest_s: float, count: int) -> list[float]:
    """Each wait is the one before times the factor, and none is longer than the longest."""
    # Wait by wait, because a power of the factor may be more than a float can hold long after the longest is reached.
    waits_s, wait_s = [], min(first_s, longest_s)
    for _ in range(count):
        waits_s.append(wait_s)
        wait_s = min(wait_s * factor, longest_s)
    return waits_s


def linear(first_s: float, step_s: float, longest_s: float, count: int) -> list[float]:
    """Each wait is the one before plus the step, and none is longer than the longest."""
    return [min(first_s + step_s * number, longest_s) for number in range(count)]


def fixed(wait_s: float, count: int) -> list[float]:
    """The same wait every time."""
    return [wait_s] * count


@dataclass(frozen=True, slots=True)
class Policy:
    """An endpoint's retry policy. `jitter` is the fraction (0 to 0.25) by which a wait may grow."""

    schedule_s: Sequence[float]
    jitter: float = 0.0
    transient_only: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    wait_s: float = 0.0
    # Whether the attempt uses up one of the schedule.
    counted: bool = True


DELIVERED = Verdict(Outcome.DELIVERED)
DEAD = Verdict(Outcome.DEAD)


def is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def is_permanent(status: int | None) -> bool:
    """Whether the receiver has answered that it will not take this request, now or later."""
    return status is not None and 300 <= status < 500 and status not in TRANSIENT_STATUSES


def judge(policy: Policy, tries: int, status: int | None, chance: float) -> Verdict:
    """The verdict on an attempt.

    `tries` counts the attempts since the delivery was queued, this one included; `status` is None when no
    response came; `chance` in [0, 1) places the wait between the scheduled one and that plus the jitter.
    A receiver's Retry-After is no part of it: that holds the whole endpoint (see `breaker.py`), whatever the delivery's own wait.
    """
    if is_success(status):
        return DELIVERED
    if policy.transient_only and is_permanent(status):
        return DEAD
    if tries > len(policy.schedule_s):
        return DEAD
    return Verdict(Outcome.RETRY, policy.schedule_s[tries - 1] * (1 + policy.jitter * chance))
