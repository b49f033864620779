"""What a request comes to: for each delivery that it carried an attempt to log, and the verdict that moves it on."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.utils import timezone

from delivery import retry
from delivery.destinations.exchange import Result
from delivery.engines.base import AttemptRow, Due, Settlement
from delivery.retry import Outcome, Policy, Verdict
from subscriptions.ids import new_id
from subscriptions.models import Endpoint

# The event of a delivery is gone: nothing can be sent any more. Stored with the attempt like the errors of a request.
MISSING_EVENT = "missing_event"


class Done(NamedTuple):
    """A finished attempt, waiting to be settled."""

    endpoint_id: UUID
    verdict: Verdict
    settlement: Settlement
    attempt: AttemptRow
    event_id: UUID


def policy_of(endpoint: Endpoint) -> Policy:
    return Policy(_schedule_s(endpoint), endpoint.retry_jitter_percent / 100, endpoint.retry_on == Endpoint.RetryOn.TRANSIENT)


def _schedule_s(endpoint: Endpoint) -> Sequence[float]:
    """The waits between attempts, from whichever numbers the endpoint's strategy goes by."""
    first_s, longest_s, count = endpoint.retry_first_s, endpoint.retry_longest_s, endpoint.retry_count
    match endpoint.retry_strategy:
        case Endpoint.RetryStrategy.EXPONENTIAL:
            return retry.exponential(first_s, endpoint.retry_factor, longest_s, count)
        case Endpoint.RetryStrategy.LINEAR:
            return retry.linear(first_s, endpoint.retry_step_s, longest_s, count)
        case Endpoint.RetryStrategy.FIXED:
            return retry.fixed(first_s, count)
        case Endpoint.RetryStrategy.SCHEDULE:
            schedule_s: list[float] = endpoint.retry_schedule_s
            return schedule_s
    raise ValueError(f"no retry strategy is called {endpoint.retry_strategy!r}")


def judge(policy: Policy, due: Due, result: Result, *, alone: bool) -> Verdict:
    """The verdict on a failed attempt of a delivery that travelled alone, or in a batch."""
    tries = due.tries + 1
    verdict = retry.judge(policy, tries, result.status, random.random())
    if verdict.outcome is Outcome.DEAD and not alone:
        # It may be another one's fault: what failed together is tried in smaller parcels before any of it is dead.
        left = tries <= len(policy.schedule_s)
        return Verdict(Outcome.RETRY, policy.schedule_s[tries - 1] if left else 0.0, counted=left)
    return verdict


def reason(result: Result) -> str:
    """A failure in a word or two, for people."""
    return str(result.status) if result.status else f"{result.error.value if result.error else 'no answer'}: {result.error_detail}"


def done(due: Due, verdict: Verdict, result: Result, batch: UUID | None = None) -> Done:
    """The attempt as it was made; `batch` is the parcel's that it travelled in with others, or might have."""
    started_at, error = datetime.fromtimestamp(result.started_at, UTC), result.error.value if result.error else ""
    return Done(
        due.endpoint_id,
        verdict,
        Settlement(due.id, due.attempt_count, result.status, error, _due_at(verdict), verdict.counted, due.tries),
        AttemptRow(
            *(new_id(), due.id, due.attempt_count + 1, started_at, *result.timings, result.status),
            *(error, result.error_detail[:300], result.response_headers, result.response_body, batch),
        ),
        due.event_id,
    )


def give_up(due: Due) -> Done:
    """A delivery whose event is gone is dead, and its attempt says why."""
    attempt = AttemptRow(new_id(), due.id, due.attempt_count + 1, timezone.now(), 0.0, 0.0, 0.0, 0.0, 0.0, None, MISSING_EVENT, "", "", b"")
    return Done(due.endpoint_id, retry.DEAD, Settlement(due.id, due.attempt_count, None, MISSING_EVENT), attempt, due.event_id)


def _due_at(verdict: Verdict) -> datetime | None:
    return timezone.now() + timedelta(seconds=verdict.wait_s) if verdict.outcome is Outcome.RETRY else None
