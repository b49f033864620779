"""Parcels: what goes into one request. One event, or for an endpoint with batches up to `size` of them as a JSON array.

    waiting jobs -> parcel, once it is full or its first event has waited long enough -> request

A parcel that fails is tried again in smaller ones, ever smaller, so that on its last attempt each event travels alone: a
poison event then takes nobody with it. With 4 retries, batches of 100 become 32, 10, 4 and 1.

`Loose` packs what comes in any order, `Runs` keeps each subject's events one after the other (see `order.py`).
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple, Protocol
from uuid import UUID

from delivery.engines.base import Due
from delivery.models import BATCH_PREFIX
from subscriptions.ids import to_public

MAX_BATCH_BYTES = 256 * 1024
# Names the events of a batch, in its order: receivers can drop those that they have already.
EVENT_IDS_HEADER = "X-Jetrelay-Event-Ids"


class Job(NamedTuple):
    """A claimed delivery and the body it carries."""

    due: Due
    body: bytes


class Parcel(NamedTuple):
    jobs: tuple[Job, ...]
    batched: bool

    @property
    def id(self) -> str:
        """The `webhook-id`: the event's, or one that the same events in the same order always have."""
        batch = self.batch
        return to_public(BATCH_PREFIX, batch) if batch else to_public("evt", self.jobs[0].due.event_id)

    @property
    def batch(self) -> UUID | None:
        """Of a batch: a digest of its events and their order, which tells whether one has found them all again."""
        if not self.batched:
            return None
        return UUID(bytes=blake2b(b"".join(job.due.event_id.bytes for job in self.jobs), digest_size=16).digest())

    @property
    def body(self) -> bytes:
        return b"[%b]" % b",".join(job.body for job in self.jobs) if self.batched else self.jobs[0].body

    @property
    def headers(self) -> list[str]:
        return [f"{EVENT_IDS_HEADER}: {','.join(to_public('evt', job.due.event_id) for job in self.jobs)}"] if self.batched else []


@dataclass(frozen=True, slots=True)
class Batching:
    """An endpoint's batches. `retries` is how many attempts follow the first one."""

    size: int = 1
    wait: timedelta = timedelta(0)
    retries: int = 0

    def most(self, tries: int) -> int:
        """How many events may go along with one that failed so often: all at first, none on its last attempt."""
        if not tries:
            return self.size
        left = max(0.0, 1 - tries / self.retries) if self.retries else 0.0
        return math.ceil(math.pow(self.size, left))

    def is_ripe(self, job: Job, now: datetime) -> bool:
        return now - job.due.due_at >= self.wait

    def ripe_in_s(self, jobs: Iterable[Job], now: datetime) -> float:
        """How long until the first of the jobs has waited long enough; 0 if there are none."""
        first = min((job.due.due_at for job in jobs), default=now)
        return max(0.0, (first + self.wait - now).total_seconds())


SINGLE = Batching()


class Packer(Protocol):
    """What waits to be sent to one endpoint, and what may be sent of it now."""

    batching: Batching

    def add(self, jobs: Iterable[Job]) -> None: ...

    def ready(self, now: datetime) -> list[Parcel]:
        """What may be sent now; it no longer waits."""
        ...

    def ended(self, parcel: Parcel, *, over: bool) -> list[Job]:
        """A parcel has come back, delivered or given up (`over`) or to be tried again. Returns the jobs that must wait with it."""
        ...

    def ripe_in_s(self, now: datetime) -> float:
        """How long until something of what waits has waited long enough."""
        ...

    def withdraw(self) -> list[Job]:
        """Everything that waits; it no longer does."""
        ...

    def __len__(self) -> int: ...


@dataclass
class Loose:
    """No order: what came first goes first."""

    batching: Batching = SINGLE
    waiting: deque[Job] = field(default_factory=deque)

    def add(self, jobs: Iterable[Job]) -> None:
        self.waiting.extend(jobs)

    def ready(self, now: datetime) -> list[Parcel]:
        if self.batching.size == 1:
            return [Parcel((job,), False) for job in self.withdraw()]
        parcels = []
        while self.waiting:
            jobs: list[Job] = []
            if not _fill(jobs, self.waiting, self.batching) and not self.batching.is_ripe(jobs[0], now):
                self.waiting.extendleft(reversed(jobs))
                break
            parcels.append(Parcel(tuple(jobs), True))
        return parcels

    def ripe_in_s(self, now: datetime) -> float:
        return self.batching.ripe_in_s(islice(self.waiting, 1), now)

    def ended(self, parcel: Parcel, *, over: bool) -> list[Job]:
        return []

    def withdraw(self) -> list[Job]:
        withdrawn = list(self.waiting)
        self.waiting.clear()
        return withdrawn

    def __len__(self) -> int:
        return len(self.waiting)


@dataclass
class Runs:
    """One parcel at a time for each subject."""

    batching: Batching = SINGLE
    waiting: dict[int | None, deque[Job]] = field(default_factory=dict)
    # Subjects with a parcel on its way.
    out: set[int | None] = field(default_factory=set)

    def add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.waiting.setdefault(job.due.order_key, deque()).append(job)

    def ready(self, now: datetime) -> list[Parcel]:
        parcels, jobs = [], list[Job]()
        for key in [key for key in self.waiting if key not in self.out]:
            # Until all of them are in a parcel, or one that this subject has a part in is full.
            while self.waiting[key] and key not in self.out:
                if _fill(jobs, self.waiting[key], self.batching):
                    parcels.append(self._send(jobs))
                    jobs = []
        if jobs and self.batching.is_ripe(min(jobs, key=lambda job: job.due.due_at), now):
            parcels.append(self._send(jobs))
        else:
            for job in reversed(jobs):
                self.waiting[job.due.order_key].appendleft(job)
        self.waiting = {key: run for key, run in self.waiting.items() if run}
        return parcels

    def _send(self, jobs: Sequence[Job]) -> Parcel:
        self.out.update(job.due.order_key for job in jobs)
        return Parcel(tuple(jobs), self.batching.size > 1)

    def ripe_in_s(self, now: datetime) -> float:
        # What waits for its subject is sent when that comes back.
        return self.batching.ripe_in_s((run[0] for key, run in self.waiting.items() if key not in self.out), now)

    def ended(self, parcel: Parcel, *, over: bool) -> list[Job]:
        keys = {job.due.order_key for job in parcel.jobs}
        self.out -= keys
        return [] if over else [job for key in keys for job in self.waiting.pop(key, ())]

    def withdraw(self) -> list[Job]:
        withdrawn = [job for run in self.waiting.values() for job in run]
        self.waiting.clear()
        return withdrawn

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))


def _fill(jobs: list[Job], waiting: deque[Job], batching: Batching) -> bool:
    """Move what waits into a parcel's jobs, as far as it fits. Returns whether the parcel is full.

    Only events that failed equally often travel together: fresh ones are not made to share a failure.
    """
    size = sum(len(job.body) + 1 for job in jobs) + 1
    while waiting:
        job = waiting[0]
        if jobs and (job.due.tries != jobs[0].due.tries or size + len(job.body) + 1 > MAX_BATCH_BYTES):
            return True
        jobs.append(waiting.popleft())
        size += len(job.body) + 1
        if len(jobs) >= batching.most(job.due.tries):
            return True
    return False
