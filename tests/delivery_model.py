"""What is known of events and deliveries, told a second time in plain Python: what was published, who was owed what, and what
became of it. `check` compares that with the tables, `delivery_turns.py` says what one turn of a lane may do to it.

Endpoints are numbered from 0, events by the `n` in their bodies. A key is an endpoint and an event: one delivery.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from django.db.models import Sum
from django.utils import timezone

from delivery.cancelling import TALLY
from delivery.models import Attempt, AttemptTally, Delivery, EndpointHealth, Event, EventTally
from delivery.retry import Outcome
from delivery.sources.incoming import Incoming
from subscriptions.models import Endpoint
from tests.counterpart import Arrival, Counterpart

PENDING, DELIVERED, DEAD, CANCELLED = Delivery.State
ACTIVE, DISABLED = Endpoint.State.ACTIVE, Endpoint.State.DISABLED

Key = tuple[int, int]


class Row(NamedTuple):
    """A delivery as the tables have it."""

    state: int = PENDING
    tries: int = 0
    attempts: int = 0


@dataclass(frozen=True)
class Picture:
    """Endpoints and deliveries at one moment, from the tables."""

    endpoints: Sequence[Endpoint]
    health: dict[int, EndpointHealth]
    rows: dict[Key, Row]

    def held(self, number: int) -> bool:
        """Whether the breaker is open, or the receiver asked for patience."""
        row, now = self.health.get(number), timezone.now()
        return row is not None and any(moment and moment > now for moment in (row.open_until, row.paused_until))


@dataclass
class Published:
    incoming: Incoming
    # Of the stored event; None while nobody wanted it.
    id: UUID | None = None


@dataclass
class Meddling:
    """What somebody does while a lane is at work: these endpoints and deliveries may go either way."""

    endpoints: set[int] = field(default_factory=set)
    replayed: set[Key] = field(default_factory=set)
    cancelled: set[Key] = field(default_factory=set)


class Model:
    def __init__(self, counterpart: Counterpart) -> None:
        self.counterpart = counterpart
        self.endpoints: list[UUID] = []
        self.events: dict[int, Published] = {}
        self.rows: dict[Key, Row] = {}
        # What the outbox has said so far: received, stored, duplicate, unmatched, invalid.
        self.counts = [0] * 5
        # Cancelled on their way: as with what an owner took with it, they may have more requests than attempts.
        self.doubtful: set[Key] = set()
        # By endpoint and success: attempts that were pruned.
        self.pruned: Counter[tuple[int, bool]] = Counter()
        # Secrets that each endpoint ever had.
        self.secrets: list[set[str]] = []
        self.meddling = Meddling()

    def add(self, endpoint: Endpoint) -> None:
        self.endpoints.append(endpoint.id)
        self.secrets.append({endpoint.secret})

    # --- what happens to it ----------------------------------------------------------------------------------------

    def publish(self, batch: Sequence[int], wanted_by: dict[int, set[int]], rejected: int) -> tuple[int, ...]:
        """An event is stored the first time somebody wants it, and each of those is owed it once. Returns what to expect of the outbox."""
        stored = duplicate = unmatched = 0
        for event in batch:
            if not wanted_by[event]:
                unmatched += 1
            elif self.events[event].id:
                duplicate += 1
            else:
                stored += 1
                self.events[event].id = UUID(int=0)
                self.rows |= {(endpoint, event): Row() for endpoint in wanted_by[event]}
        expected = (len(batch) + rejected, stored, duplicate, unmatched, rejected)
        self.counts = [sum(pair) for pair in zip(self.counts, expected, strict=True)]
        return expected

    def identify(self) -> None:
        """Take over the ids of events that were stored just now."""
        ids = dict(Event.objects.values_list("dedup_key", "pk"))
        ids = {bytes(key): id for key, id in ids.items()}
        for published in self.events.values():
            if published.id == UUID(int=0):
                published.id = ids[published.incoming.dedup_key]

    def replay(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.rows[key] = self.rows[key]._replace(state=PENDING, tries=0)
            self.meddling.replayed.add(key)

    def cancel(self, key: Key) -> None:
        self.rows[key] = self.rows[key]._replace(state=CANCELLED)
        self.meddling.cancelled.add(key)

    def prune(self, states: Iterable[int]) -> None:
        """What is over is forgotten, with the events that nobody needs any more."""
        gone = {key for key, row in self.rows.items() if row.state in states}
        for attempt in Attempt.objects.filter(delivery_id__in=[self.delivery_id(key) for key in gone]).select_related("delivery"):
            self.pruned[self.endpoints.index(attempt.delivery.endpoint_id), attempt.succeeded] += 1
        self.rows = {key: row for key, row in self.rows.items() if key not in gone}
        needed = {event for _, event in self.rows}
        self.events = {event: each for event, each in self.events.items() if each.id is None or event in needed}

    # --- looking things up -----------------------------------------------------------------------------------------

    def delivery_id(self, key: Key) -> UUID:
        return Delivery.objects.get(endpoint=self.endpoints[key[0]], event=self.events[key[1]].id).pk

    def keys(self, *states: int) -> list[Key]:
        return sorted(key for key, row in self.rows.items() if row.state in states)

    def picture(self) -> Picture:
        endpoints = Endpoint.objects.in_bulk(self.endpoints)
        health = {self.endpoints.index(row.pk): row for row in EndpointHealth.objects.all()}
        numbers = {published.id: number for number, published in self.events.items()}
        columns = ("endpoint_id", "event_id", "state", "tries", "attempt_count")
        rows = {(self.endpoints.index(row[0]), numbers[row[1]]): Row(*row[2:]) for row in Delivery.objects.order_by("id").values_list(*columns)}
        return Picture([endpoints[id] for id in self.endpoints], health, rows)

    def before(self, key: Key) -> Iterator[Key]:
        """The deliveries of the same subject and endpoint that come first."""
        endpoint, event = key
        this = self.events[event]
        for other, published in self.events.items():
            if published.incoming.subject == this.incoming.subject and published.id and this.id and published.id < this.id and (endpoint, other) in self.rows:
                yield endpoint, other

    # --- what must hold at any time --------------------------------------------------------------------------------

    def check(self) -> None:
        self._check_deliveries()
        self._check_events()
        self._check_attempts()

    def _check_deliveries(self) -> None:
        assert self.picture().rows == self.rows
        assert Delivery.objects.count() == len(self.rows), "somebody is owed an event twice"

    def _check_events(self) -> None:
        stored = {each.id: each.incoming.body for each in self.events.values() if each.id}
        assert {id: bytes(body) for id, body in Event.objects.values_list("pk", "body")} == stored
        names = ("received", "stored", "duplicate", "unmatched", "invalid")
        sums = EventTally.objects.aggregate(**{name: Sum(name, default=0) for name in names})
        assert [sums[name] for name in names] == self.counts
        assert sums["received"] == sums["stored"] + sums["duplicate"] + sums["unmatched"] + sums["invalid"]

    def _check_attempts(self) -> None:
        """As many attempts as requests, for each delivery, with their answers in the order in which they came."""
        requests: dict[Key, list[int | None]] = {}
        doubtful = set(self.doubtful)
        for arrival in self.counterpart.arrivals:
            keys = [(arrival.endpoint, event) for event in arrival.events]
            for key in keys:
                requests.setdefault(key, []).append(arrival.answer.status)
            doubtful.update(keys if arrival.mortal else ())
        made: dict[Key, list[int | None]] = {}
        counts = self.pruned.copy()
        numbers = {published.id: number for number, published in self.events.items()}
        rows = Attempt.objects.order_by("delivery", "number", "id").values_list("delivery__endpoint_id", "delivery__event_id", "status")
        for endpoint_id, event_id, status in rows:
            key = self.endpoints.index(endpoint_id), numbers[event_id]
            made.setdefault(key, []).append(status)
            counts[key[0], status is not None and status < 300] += 1
        for key, row in self.rows.items():
            if key in doubtful:
                assert row.attempts <= len(made.get(key, [])) <= len(requests.get(key, []))
            else:
                assert made.get(key, []) == requests.get(key, [])
                assert row.attempts == len(made.get(key, []))
        self._check_tallies(counts)

    def _check_tallies(self, counts: Counter[tuple[int, bool]]) -> None:
        tallied: Counter[tuple[int, bool]] = Counter()
        for tally in AttemptTally.objects.exclude(outcome=TALLY):
            assert sum(tally.buckets().values()) == tally.attempts
            tallied[self.endpoints.index(tally.endpoint_id), tally.outcome == Outcome.DELIVERED.value] += tally.attempts
        assert tallied == counts

    def check_body(self, arrival: Arrival) -> None:
        """Byte for byte what was published, alone or in an array, under an id that tells it again."""
        bodies = [self.events[event].incoming.body for event in arrival.events]
        ids = [f"evt_{self.events[event].id.hex}" for event in arrival.events]  # type: ignore[union-attr]
        named = arrival.received.headers.get("x-jetrelay-event-ids")
        if named is None:
            assert (arrival.received.webhook_id, arrival.received.body) == (ids[0], bodies[0])
        else:
            assert (named, arrival.received.body) == (",".join(ids), b"[" + b",".join(bodies) + b"]")
