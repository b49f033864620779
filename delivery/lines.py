"""A line: what a lane remembers of one endpoint while it drains.

    claimed -> waiting at the gate -> in flight -> done, waiting to be settled

All of these are still pending in the database: only the lane's owner sends, so a claim needs no mark there, and a
crash needs no repair.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic, time
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from delivery import retry, signing
from delivery.destinations.exchange import Gate, Inbox, Request, Result
from delivery.destinations.http import Sender, sender
from delivery.engines.base import AttemptRow, Due, Settlement, Want
from delivery.retry import Outcome, Policy, Verdict
from subscriptions.ids import new_id, to_public
from subscriptions.models import Endpoint

# Deliveries of one endpoint that are claimed ahead, and the bytes of their bodies.
FIRST_SHARE = 64
MAX_SHARE = 1000
MAX_SHARE_BYTES = 16 * 1024 * 1024

LATE_COMMITS = timedelta(milliseconds=250)

_BEGINNING = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
# The event of a delivery is gone: nothing can be sent any more. Stored with the attempt like the errors of a request.
MISSING_EVENT = "missing_event"


class Target(NamedTuple):
    """Where an endpoint's requests go, how long they may take, and through which door."""

    url: str
    timeout_ms: int
    sender: Sender


class Job(NamedTuple):
    """A claimed delivery and the body it carries."""

    due: Due
    line: "Line"
    body: bytes


class Done(NamedTuple):
    """A finished attempt, waiting to be settled."""

    endpoint_id: UUID
    verdict: Verdict
    settlement: Settlement
    attempt: AttemptRow


@dataclass(eq=False)
class Line:
    """One endpoint: what waits for it, what is in flight, and how its requests are made."""

    endpoint_id: UUID
    inbox: Inbox
    gate: Gate = field(default_factory=lambda: Gate(1))
    last_result_at: float = field(default_factory=monotonic)
    # Where the next claim goes on; None starts again from the oldest.
    position: tuple[datetime, UUID] = _BEGINNING
    # Ids that are claimed and not yet settled.
    owned: set[UUID] = field(default_factory=set)
    open: bool = False
    # How much is claimed ahead: little at first, twice as much each time there was more.
    share: int = FIRST_SHARE
    # Whether the last claim found all there is.
    exhausted: bool = True
    target: Target | None = None

    def configure(self, endpoint: Endpoint) -> None:
        """Take over the endpoint's settings; what is in flight goes on as it was sent."""
        target = Target(endpoint.url, max(1, int(endpoint.timeout_s * 1000)), sender(operators=endpoint.url_is_operators))
        if target != self.target:
            # What waits was made for the old one; it is claimed again.
            self.close()
            self.target = target
        self.open = True
        self.gate.limit = endpoint.max_in_flight
        self.policy = Policy(_schedule_s(endpoint), endpoint.retry_jitter_percent / 100, endpoint.retry_on == Endpoint.RetryOn.TRANSIENT)
        overlap_ends = endpoint.previous_secret_expires_at.timestamp() if endpoint.previous_secret_expires_at else 0.0
        self._signer = signing.Signer(signing.Scheme(endpoint.signature_scheme), endpoint.secrets_at(timezone.now()), overlap_ends)
        # An empty Expect keeps libcurl from asking for leave before it sends a large body.
        self._headers = ["Content-Type: application/json", f"User-Agent: Jetrelay/{settings.VERSION}", "Expect:"]
        if endpoint.bearer_token:
            self._headers.append(f"Authorization: Bearer {endpoint.bearer_token}")
        self._headers += endpoint.extra_headers.splitlines()
        self._confidential = _confidential(endpoint)

    def close(self) -> None:
        """Start nothing more: what was waiting goes back to the database, where it never left."""
        self.open = False
        self.owned.difference_update(request.tag.due.id for request in self.gate.withdraw())
        self.rewind()

    def extend(self, until: float) -> None:
        """Let requests start until then, on the monotonic clock: as long as the lane's lease is believed in."""
        self.gate.open_until = until
        if self.target and self.gate.waiting:
            self.target.sender.submit_to(self.gate, ())

    def is_slow(self, patience_s: float) -> bool:
        """Whether requests are open and nothing has come back for so long."""
        return self.gate.open > 0 and monotonic() - self.last_result_at > patience_s

    def rewind(self) -> None:
        self.position = _BEGINNING

    def want(self, share: int) -> Want | None:
        """What to claim next, if half of this line's share is used up."""
        share = min(share, self.share)
        if not self.open or len(self.gate.waiting) * 2 > share:
            return None
        # From the beginning, the rows that are owned already come first: they are asked for too, and skipped.
        in_the_way = len(self.owned) if self.position is _BEGINNING else 0
        return Want(self.endpoint_id, share + in_the_way, *self.position)

    def take(self, found: list[Due], want: Want, bodies: Mapping[UUID, bytes]) -> list[Done]:
        """Pass what was claimed to the sender, and go on from there. Returns the deliveries whose event is gone."""
        self.exhausted = len(found) < want.most
        if found and not self.exhausted:
            self.share *= 2
        # Where all has been seen, only what is newer is looked at, or a hundred requests that hang would be read forty
        # times a second. The margin is for commits that come a little late; what is later still, `rewind` finds.
        self.position = (timezone.now() - LATE_COMMITS, UUID(int=0)) if self.exhausted else (found[-1].due_at, found[-1].id)
        gone, requests, target = [], [], self.target
        assert target is not None, "only a configured line wants anything"
        for due in found:
            if due.id in self.owned:
                continue
            self.owned.add(due.id)
            body = bodies.get(due.event_id)
            if body is None:
                gone.append(give_up(due))
            else:
                requests.append(self._request(Job(due, self, body), target))
        if requests:
            mean = sum(len(request.body) for request in requests) / len(requests)
            self.share = max(1, min(self.share, MAX_SHARE, int(MAX_SHARE_BYTES / (mean + 1))))
            target.sender.submit_to(self.gate, requests)
        return gone

    def _request(self, job: Job, target: Target) -> Request:
        webhook_id = to_public("evt", job.due.event_id)

        def headers() -> list[str]:
            return [*self._headers, *self._signer.headers(webhook_id, int(time()), job.body)]

        return Request(job, target.url, headers, job.body, target.timeout_ms, self.inbox, self.gate)

    def finish(self, job: Job, result: Result) -> Done:
        """The attempt that was made, and what follows from it."""
        self.last_result_at = monotonic()
        verdict = retry.judge(self.policy, job.due.tries + 1, result.status, random.random(), result.retry_after_s)
        error = result.error.value if result.error else ""
        if self._confidential:
            result = _without(self._confidential, result)
        return _done(job.due, verdict, datetime.fromtimestamp(result.started_at, UTC), result.status, error, result)


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


def _confidential(endpoint: Endpoint) -> list[str]:
    """What may be a key in the headers we add, the longest first, so that none hides a part of another.

    Of extra headers the words of 8 characters or more: nothing shorter is a key, and `***` for every `1` helps nobody.
    """
    values = (line.partition(":")[2] for line in endpoint.extra_headers.splitlines())
    words = {word for value in values for word in value.split() if len(word) >= 8}
    return sorted(words | ({endpoint.bearer_token} - {""}), key=len, reverse=True)


def _without(confidential: Sequence[str], result: Result) -> Result:
    """The result as it may be kept: a receiver that echoes the request must not put our tokens and keys on a page."""
    headers, body = result.response_headers, result.response_body
    for word in confidential:
        headers, body = headers.replace(word, "***"), body.replace(word.encode(), b"***")
    return result._replace(response_headers=headers, response_body=body)


def give_up(due: Due) -> Done:
    """A delivery whose event is gone is dead, and its attempt says why."""
    return _done(due, retry.DEAD, timezone.now(), None, MISSING_EVENT, None)


def _done(due: Due, verdict: Verdict, started_at: datetime, status: int | None, error: str, result: Result | None) -> Done:
    due_at = timezone.now() + timedelta(seconds=verdict.wait_s) if verdict.outcome is Outcome.RETRY else None
    timings = result.timings if result else (0.0,) * 5
    detail, headers, body = (result.error_detail[:300], result.response_headers, result.response_body) if result else ("", "", b"")
    return Done(
        due.endpoint_id,
        verdict,
        Settlement(due.id, due.attempt_count, status, error, due_at),
        AttemptRow(new_id(), due.id, due.attempt_count + 1, started_at, *timings, status, error, detail, headers, body),
    )
