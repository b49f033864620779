"""A line: what a lane remembers of one endpoint while it drains.

    claimed -> waiting to be packed -> waiting at the gate -> in flight -> done, waiting to be settled

All of these are still pending in the database: only the lane's owner sends, so a claim needs no mark there, and a
crash needs no repair.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from delivery import breaker, health, outcomes, retry
from delivery.breaker import Health
from delivery.claims import Claims, LooseClaims, fitting_share
from delivery.destinations.exchange import GONE, Gate, Inbox, Request, Result
from delivery.destinations.http import Sender, sender
from delivery.destinations.turns import WEIGHTS
from delivery.engines import engine
from delivery.engines.base import Due, Head, Subjects, Want
from delivery.envelope import Envelope
from delivery.looking_back import Slice
from delivery.models import Delivery, EndpointHealth
from delivery.order import Keying
from delivery.outcomes import Done, done, give_up
from delivery.parcels import Batching, Job, Loose, Packer, Parcel, Runs
from delivery.retry import MAX_RETRY_AFTER_S, Outcome, Verdict
from delivery.runs import RunClaims
from subscriptions.models import Endpoint

# Held by the endpoint and not by a wait of its own: it is due as soon as the endpoint may be tried, behind those that are due already.
_AGAIN = Verdict(Outcome.RETRY, counted=False)
# Attempts that cost a delivery nothing before a plain refusal of a probe counts.
PATIENT_PROBES = 3
# Deliveries among which the breaker's probe is chosen; of the newest, so many are looked at.
CANDIDATES, NEWEST = 64, 8
# How far ahead deliveries are claimed for an endpoint with a rate limit, in seconds.
AHEAD_S = 2.0
# Smaller ones are not worth counting: as many as may be claimed take some ten megabytes.
SMALL_BODY = 4096


# Claims of lines whose lane was given up, by endpoint. The crew that works is the only one who comes here.
_kept: dict[UUID, Claims] = {}


def forget_standings() -> None:
    """Whoever takes up a lane from now on begins with the oldest."""
    _kept.clear()


class Target(NamedTuple):
    """Where an endpoint's requests go, how long they may take, and through which door."""

    url: str
    timeout_ms: int
    sender: Sender


class Sent(NamedTuple):
    """What a request carries, and whose it is: its tag on the way through the sender."""

    line: "Line"
    parcel: Parcel
    target: Target

    def headers(self, now: float, body: bytes) -> list[str]:
        """Of a request that starts now, in Unix seconds: signed with what the endpoint has by then."""
        lines = self.line.envelope.headers(self.parcel.id, int(now), body)
        return lines + self.parcel.headers if self.parcel.batched else lines


@dataclass(eq=False)
class Line:
    """One endpoint: what waits for it, what is in flight, how it is doing, and how its requests are made."""

    endpoint_id: UUID
    inbox: Inbox
    gate: Gate = field(default_factory=lambda: Gate(0))
    last_result_at: float = field(default_factory=monotonic)
    # What is claimed and not yet settled: ids, and their subjects if the endpoint is ordered.
    owned: dict[UUID, int | None] = field(default_factory=dict)
    # Of these, the bodies that count in memory, and all of their bytes.
    large: dict[UUID, int] = field(default_factory=dict)
    held_bytes: int = 0
    open: bool = False
    target: Target | None = None
    claims: Claims = field(default_factory=LooseClaims)
    packer: Packer = field(default_factory=Loose)
    max_in_flight: int = 1
    weight: float = 1.0
    # How many of the gate's answers have been judged.
    answered: int = 0
    # When something that waits to be packed has waited long enough, on the monotonic clock.
    send_at: float = 0.0
    # How much the last `want` was to bring.
    most: int = 0
    # How often it had a turn where lines with a backlog take turns, by its weight.
    turn: float = 0.0
    health: Health = breaker.WELL
    # What the database has of the health; and the version of its row, which people move.
    stored_health: Health = breaker.WELL
    version: int = -1
    # Of an ordered endpoint.
    keying: Keying | None = None
    # Whether the last `want` was for the newest, to find a probe; and when the breaker had opened how often they were looked at last.
    looks_at_newest: bool = False
    looked_at_newest: int = 0
    # Why the endpoint is to be disabled.
    condemned: str = ""
    # Whether the lane has been given up: what comes back is no longer this line's.
    left: bool = False

    # --- settings ------------------------------------------------------------------------------------------------

    def configure(self, endpoint: Endpoint, row: EndpointHealth | None) -> None:
        """Take over the endpoint's settings; what is in flight goes on as it was sent."""
        target = Target(endpoint.url, max(1, int(endpoint.timeout_s * 1000)), sender(operators=endpoint.url_is_operators))
        batching = Batching(endpoint.batch_size, timedelta(milliseconds=endpoint.batch_wait_ms), endpoint.retries)
        if (target, endpoint.ordered, batching) != (self.target, self.keying is not None, self.packer.batching):
            # What waits was made for the old ones; it is claimed again.
            self.close()
            self.target, self.keying = target, Keying(endpoint.id, row.ordered_since if row else None) if endpoint.ordered else None
            self.packer = Runs(batching) if endpoint.ordered else Loose(batching)
            self._take_up_claims(RunClaims if endpoint.ordered else LooseClaims)
        self.policy = outcomes.policy_of(endpoint)
        self.envelope = Envelope(endpoint)
        self._take_over_limits(endpoint, row)
        self.open = not self.condemned
        self._adjust()

    def _take_up_claims(self, kind: type[RunClaims] | type[LooseClaims]) -> None:
        """Go on where this line's claims ended, or those of the lane's last owner in this process; else begin with the oldest."""
        kept = _kept.pop(self.endpoint_id, None) if self.version < 0 else self.claims
        self.claims = kept if isinstance(kept, kind) else kind()

    def _take_over_limits(self, endpoint: Endpoint, row: EndpointHealth | None) -> None:
        self.max_in_flight, self.weight = endpoint.max_in_flight, WEIGHTS[endpoint.priority]
        self.gate.tenant, self.gate.weight = endpoint.tenant_id, self.weight
        version, interval_s = row.version if row else 0, 1 / endpoint.rate_limit_per_s if endpoint.rate_limit_per_s else 0.0
        if version != self.version:
            self.health = self.stored_health = health.of(row)
            if self.version < 0 and row and row.paced_until:
                # No further off than the pace puts it: a wrong clock may have written it.
                self.gate.next_at = monotonic() + min((row.paced_until - timezone.now()).total_seconds(), interval_s)
            self.version = version
        self.gate.pace(interval_s)

    @property
    def next_request_at(self) -> datetime | None:
        """When an endpoint with a rate limit may have its next request; None if that is now."""
        wait_s = self.gate.next_at - monotonic()
        return timezone.now() + timedelta(seconds=wait_s) if self.gate.interval_s and wait_s > 0 else None

    # --- whether and how much may be sent --------------------------------------------------------------------------

    def close(self) -> None:
        """Start nothing more: what was waiting goes back to the database, where it never left."""
        self.open = False
        self.gate.limit = 0
        returned = [job for request in self.gate.withdraw() for job in self._returned(request.tag.parcel)]
        returned += self.packer.withdraw()
        self._give_back(returned)
        if returned:
            self.claims.rewind(min(job.due.due_at for job in returned))
        self.claims.exhausted = True

    def _returned(self, parcel: Parcel) -> Sequence[Job]:
        return [*parcel.jobs, *self.packer.ended(parcel, over=False)]

    def _give_back(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.settled(job.due.id)

    def settled(self, id: UUID) -> None:
        """A delivery is no longer this line's: it is settled, or was given back."""
        self.owned.pop(id, None)
        if self.large:
            self.held_bytes -= self.large.pop(id, 0)

    def _adjust(self) -> None:
        """Open the gate as far as the endpoint's health allows, or close the line until it does."""
        room = self.health.room(self.max_in_flight, timezone.now()) if self.open else 0
        if not room:
            if self.open:
                self.close()
                self.open = True
            return
        gate = self.gate
        if (gate.shut or gate.limit == 0) and self.answered == gate.answered:
            gate.reopen(1 if self.health.open_until else max(1, breaker.THRESHOLD - self.health.failures))
        gate.limit = room
        self._nudge()

    def extend(self, until: float) -> None:
        """Let requests start until then, on the monotonic clock: as long as the lane's lease is believed in."""
        self.gate.open_until = until
        self._nudge()

    def _nudge(self) -> None:
        if self.target and self.gate.waiting:
            self.target.sender.submit_to(self.gate, ())

    def is_slow(self, patience_s: float) -> bool:
        """Whether requests are open and nothing has come back for so long."""
        return self.gate.open > 0 and monotonic() - self.last_result_at > patience_s

    # --- claiming --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many deliveries are claimed and have not been started, about."""
        return len(self.gate.waiting) * self.packer.batching.size + len(self.packer)

    def want(self, share: int, now: datetime) -> Want | Head | Subjects | None:
        """What to claim next, if half of this line's share is used up."""
        if not self.open or (self.keying and not self.keying.complete) or (self.health is not breaker.WELL and self.health.held_until(now)):
            return None
        if self.gate.limit == 0 or self.gate.shut:
            self._adjust()
        self.most = self._share(share)
        if not self.most or self.waiting * 2 > self.most:
            return None
        if self.health.open_until:
            # One of these goes to see.
            self.most = CANDIDATES
            self._turn_to_newest(self.health.trips % 2 == 1 and self.looked_at_newest != self.health.trips)
        elif self.health.ramp:
            self.most = min(self.most, 2 * self.health.ramp)
            self._turn_to_newest(not self.looks_at_newest)
        else:
            self.looks_at_newest = False
        if self.looks_at_newest and (newest := self._want_newest(now)):
            return newest
        self.looks_at_newest = False
        return self.claims.want(self.endpoint_id, self.most, self.owned)

    def _turn_to_newest(self, turn: bool) -> None:
        """Look among the newest and among the oldest in turn, while the endpoint has to show that it is well.

        What has opened the breaker may be events that this receiver never takes. Then the oldest are those again; and however
        many there are of them, something else is found among the newest.
        """
        # Where some are on their way that have no subject yet, nobody knows what they come before.
        self.looks_at_newest = turn and not (self.keying and None in self.owned.values())
        if self.looks_at_newest:
            self.looked_at_newest = self.health.trips

    def _want_newest(self, now: datetime) -> Want | Subjects | None:
        """The newest ones that are due; of an ordered endpoint, the first of each of their subjects."""
        newest = [id for _, id in engine().newest([self.endpoint_id], None, NEWEST + len(self.owned), Delivery.State.PENDING)]
        rows = Delivery.objects.filter(pk__in=set(newest) - self.owned.keys())
        if self.keying:
            busy = set(self.owned.values())
            keys = {key for key in rows.values_list("order_key", flat=True) if key is not None and key not in busy}
            return Subjects(self.endpoint_id, tuple(keys), 1) if keys else None
        due = rows.filter(due_at__lte=now).values_list("attempt_count", "pk", "due_at")
        # What was refused and is tried again is due later than what is new: only this one itself is sure to be found.
        newest_one = min(due, key=lambda row: (row[0], -row[1].int), default=None)
        return Want(self.endpoint_id, self.most, newest_one[2], UUID(int=newest_one[1].int - 1)) if newest_one else None

    def _share(self, share: int) -> int:
        if self.health.open_until:
            # The breaker's probe goes alone.
            return 0 if self.owned else 1
        size = self.packer.batching.size
        if self.gate.interval_s:
            # More than it may send in the next moments would only wait.
            share = min(share, max(1, int(AHEAD_S / self.gate.interval_s)) * size)
        return max(1, min(max(min(share, self.claims.share), 2 * size), self.claims.fitting))

    def look_back(self, slice: Slice) -> Want | None:
        """What to look for in a slice of the past. `seen` is told what there was."""
        return self.claims.look_back(self.endpoint_id, slice, self.owned) if self.open else None

    def seen(self, found: Sequence[Due]) -> None:
        self.claims.seen(found, self.owned)

    def keep_standing(self) -> None:
        """Let the lane's next owner in this process go on where this one's claims ended, if nothing is on its way that it would have to claim."""
        if not self.owned:
            _kept[self.endpoint_id] = self.claims

    def choose(self, found: Sequence[Due], now: datetime) -> Sequence[Due]:
        """Those of the deliveries found for the last `want` that are to be sent."""
        if self.looks_at_newest:
            # The claims have seen nothing of this, and stand where they stood.
            newest = [due for due in found if due.id not in self.owned and due.due_at <= now]
            newest.sort(key=lambda due: (due.attempt_count, -due.id.int))
            return newest[: 1 if self.health.open_until else self.most]
        if self.health.open_until:
            return self._choose_probe(found, now)
        return self.claims.choose(found, self.most, self.owned, now)

    def _choose_probe(self, found: Sequence[Due], now: datetime) -> Sequence[Due]:
        """One delivery that was tried as seldom as any, and the first of its subject where these are ordered."""
        candidates = list(self.claims.choose(found, self.most, self.owned, now))
        firsts = list({due.order_key: due for due in reversed(candidates)}.values()) if self.keying else candidates
        probe = min(firsts, key=lambda due: (due.attempt_count, due.due_at), default=None)
        if probe and len(candidates) > 1:
            self.put_back([due for due in candidates if due is not probe])
        return [probe] if probe else []

    def take(self, chosen: Sequence[Due], bodies: Mapping[UUID, bytes]) -> list[Done]:
        """Let what was chosen be sent. Returns the deliveries whose event is gone."""
        gone, jobs, size = [], [], 0
        for due in chosen:
            self.owned[due.id] = due.order_key
            body = bodies.get(due.event_id)
            if body is None:
                gone.append(give_up(due))
            else:
                if len(body) > SMALL_BODY:
                    self.large[due.id] = len(body)
                    self.held_bytes += len(body)
                jobs.append(Job(due, body))
                size += len(body)
        if jobs:
            self.claims.fitting = fitting_share(len(jobs), size)
            self.claims.share = min(self.claims.share, self.claims.fitting)
            self.packer.add(jobs)
            self.send()
        return gone

    def put_back(self, dues: Sequence[Due]) -> None:
        """What was chosen is not taken after all: it is found again."""
        self.claims.rewind(min(due.due_at for due in dues))
        self.claims.exhausted = False

    # --- sending ---------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Pass on to the sender what is packed."""
        if not self.open or not len(self.packer):
            return
        target = self.target
        assert target is not None, "only a configured line has anything to send"
        now = timezone.now()
        requests = [self._request(parcel, target) for parcel in self.packer.ready(now)]
        self.send_at = monotonic() + self.packer.ripe_in_s(now)
        if requests:
            target.sender.submit_to(self.gate, requests)

    def send_ripe(self) -> None:
        """Pass on to the sender what has waited long enough for company."""
        if len(self.packer) and monotonic() >= self.send_at:
            self.send()

    def _request(self, parcel: Parcel, target: Target) -> Request:
        sent = Sent(self, parcel, target)
        return Request(sent, target.url, sent.headers, parcel.body, target.timeout_ms, self.inbox, self.gate, urgent=self.keying is not None)

    # --- what came of it -------------------------------------------------------------------------------------------

    def finish(self, sent: Sent, result: Result) -> list[Done]:
        """The attempts that were made, and what follows from them."""
        parcel = sent.parcel
        self.last_result_at = monotonic()
        self.answered += 1
        if retry.is_success(result.status):
            verdicts = [retry.DELIVERED] * len(parcel.jobs)
            if self.health is not breaker.WELL and sent.target == self.target:
                self._succeeded()
        elif sent.target == self.target:
            verdicts = self._failed(parcel, result)
        else:
            # What the old URL says is no news of the new one, where it is tried at once.
            verdicts = [_AGAIN] * len(parcel.jobs)
        if self.keying:
            self._give_back(self.packer.ended(parcel, over=verdicts[0].outcome is not Outcome.RETRY))
            self.send()
        result, batch = self.envelope.redacted(result), parcel.batch
        return [done(job.due, verdict, result, batch) for job, verdict in zip(parcel.jobs, verdicts, strict=True)]

    def _succeeded(self) -> None:
        self.health = breaker.succeeded(self.health, timezone.now(), self.max_in_flight)
        self._adjust()

    def _failed(self, parcel: Parcel, result: Result) -> list[Verdict]:
        now, before = timezone.now(), self.health
        self.health = breaker.failed(before, now, outcomes.reason(result), min(result.retry_after_s, MAX_RETRY_AFTER_S))
        self.condemned = self.condemned or self._hopeless(result, now)
        if self.condemned:
            self.close()
        else:
            self._adjust()
        alone = len(parcel.jobs) == 1
        return [outcomes.judge(self.policy, job.due, result, alone=alone) if self._counts(before, job, result, now) else _AGAIN for job in parcel.jobs]

    def _counts(self, before: Health, job: Job, result: Result, now: datetime) -> bool:
        """Whether the failure uses up an attempt of the delivery."""
        if result.status == GONE:
            return False
        # An outage is no answer. An event that the receiver refuses in so many words, each time it is the probe, is not worth waiting for.
        refused = retry.is_permanent(result.status) and job.due.attempt_count - job.due.tries >= PATIENT_PROBES
        return before.counts(now) or (refused and before.held_until(now) is None)

    def _hopeless(self, result: Result, now: datetime) -> str:
        """Why the endpoint is to be disabled; empty if it is not."""
        if result.status == GONE:
            return "the receiver answered 410: it wants no more"
        patience = timedelta(days=settings.JETRELAY_DISABLE_AFTER_DAYS)
        if patience and self.health.failing_since and breaker.is_hopeless(self.health, now, patience):
            return f"everything failed since {self.health.failing_since:%Y-%m-%d %H:%M} UTC; the last: {outcomes.reason(result)}"
        return ""

    # --- what the database has to know -------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        return bool(self.condemned) or health.has_turned(self.stored_health, self.health)

    def rest(self) -> None:
        """Nothing is sent from now on, which counts for the endpoint's health."""
        if not self.owned:
            self.health = breaker.rested(self.health, self.max_in_flight)

    @property
    def has_changed(self) -> bool:
        """Whether the next owner has anything to know that was not worth a write before."""
        return health.differs(self.stored_health, self.health)

    def news_is_stored(self) -> None:
        self.stored_health, self.condemned = self.health, ""
