"""What came in and what went out since the beginning, from the tallies and their totals; and whether it adds up."""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from delivery import totals
from delivery.cancelling import TALLY as CANCELLED
from delivery.models import LATENCY_BOUNDS_MS, Delivery
from delivery.models.tallies import HISTOGRAM
from delivery.retry import Outcome
from jetrelay.metrics import owed
from jetrelay.metrics.families import Families, counter, gauge, histogram, info
from jetrelay.metrics.owed import Owed
from subscriptions.ids import to_public
from subscriptions.models import Source

BECAME = ("stored", "duplicate", "unmatched", "invalid")
OUTCOMES = tuple(outcome.value for outcome in Outcome)
# A number of deliveries in no state is counted so far: one is as bad as a thousand.
_ENOUGH = 1_000


@dataclass
class Attempts:
    """Of one endpoint and outcome, or of several together."""

    attempts: int = 0
    total_us: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * len(HISTOGRAM))

    def add(self, attempts: int, total_us: int, buckets: list[int]) -> None:
        self.attempts += attempts
        self.total_us += total_us
        self.buckets = [old + new for old, new in zip(self.buckets, buckets, strict=True)]


@dataclass
class Counted:
    """`events`: received, then what became of them, by source. `attempts`: by endpoint and outcome, cancelled deliveries among them."""

    events: dict[UUID, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * (1 + len(BECAME))))
    attempts: dict[tuple[UUID, str], Attempts] = field(default_factory=lambda: defaultdict(Attempts))
    # Deliveries that are in none of the states.
    stateless: int = 0

    def by_endpoint(self) -> Counter[UUID]:
        found = Counter[UUID]()
        for (endpoint, outcome), counts in self.attempts.items():
            found[endpoint] += counts.attempts if outcome != CANCELLED else 0
        return found

    def unaccounted(self) -> dict[str, int]:
        """By what it is about. Each is taken without its sign, so that one error does not hide another."""
        events = sum(abs(received - sum(became)) for received, *became in self.events.values())
        attempts = sum(abs(each.attempts - sum(each.buckets)) for (_, outcome), each in self.attempts.items() if outcome != CANCELLED)
        return {"events": events, "attempts": attempts, "deliveries": self.stateless}


def read() -> Counted:
    """Seven queries, over a few minutes of tallies and the totals of what was before."""
    counted = Counted()
    for source, *counts in totals.sums(totals.EVENTS):
        kept = counted.events[_id(source)]
        kept[:] = (old + int(new) for old, new in zip(kept, counts, strict=True))
    for endpoint, outcome, attempts, total_us, *buckets in totals.sums(totals.ATTEMPTS):
        counted.attempts[_id(endpoint), outcome].add(int(attempts), int(total_us), [int(each) for each in buckets])
    counted.stateless = Delivery.objects.filter(state__gt=max(Delivery.State)).order_by()[:_ENOUGH].count()
    return counted


def families(counted: Counted, named: Collection[Owed]) -> Families:
    yield from _events(counted)
    yield from _attempts(counted)
    yield from _of_endpoints(counted, named)
    yield gauge(
        "unaccounted",
        "What does not add up, and must be 0. events: received, less stored, duplicate, unmatched and invalid. "
        "attempts: made, less those in the histogram. deliveries: neither pending, delivered, dead nor cancelled.",
        "what",
        (((what,), float(number)) for what, number in counted.unaccounted().items()),
    )


def _events(counted: Counted) -> Families:
    received, *became = (sum(column) for column in zip(*counted.events.values(), strict=True)) if counted.events else [0] * (1 + len(BECAME))
    rows = list(Source.objects.order_by("pk").values_list("pk", "name", "kind", "tenant__slug"))
    # The busiest, and a source that is shared before those of tenants.
    rows.sort(key=lambda row: (row[3] is not None, -counted.events[row[0]][0], row[0]))
    named = [(to_public(Source.prefix, pk), counted.events[pk]) for pk, *_ in rows[: owed.MOST_NAMED]]
    yield counter("events_received", "Events that came in, from all sources; a copy from each host counts.", "", [((), received)])
    yield counter("events", "What became of the events received.", "result", (((name,), number) for name, number in zip(BECAME, became, strict=True)))
    yield counter("source_events_received", "Events that came in, by source.", "source", (((source,), counts[0]) for source, counts in named))
    yield counter(
        "source_events",
        "What became of the events received, by source.",
        "source result",
        (((source, name), number) for source, counts in named for name, number in zip(BECAME, counts[1:], strict=True)),
    )
    yield info(
        "source",
        "What a source is called, of which kind it is, and whose; all tenants share one without a tenant.",
        "source name kind tenant",
        ((to_public(Source.prefix, pk), name, kind, tenant or "") for pk, name, kind, tenant in rows[: owed.MOST_NAMED]),
    )


def _attempts(counted: Counted) -> Families:
    sums: dict[str, Attempts] = {outcome: Attempts() for outcome in (*OUTCOMES, CANCELLED)}
    for (_, outcome), each in counted.attempts.items():
        if outcome in sums:
            sums[outcome].add(each.attempts, each.total_us, each.buckets)
    cancelled = sums.pop(CANCELLED)
    yield counter(
        "attempts",
        "Attempts by outcome: `delivered`, `retry` (failed, to be tried again), `dead` (failed, the last one).",
        "outcome",
        (((outcome,), each.attempts) for outcome, each in sums.items()),
    )
    yield histogram(
        "attempt_duration_seconds",
        "How long attempts took, DNS and connecting included.",
        "outcome",
        [bound / 1000 for bound in LATENCY_BOUNDS_MS],
        (((outcome,), each.buckets, each.total_us / 1e6) for outcome, each in sums.items()),
    )
    yield counter(
        "deliveries_cancelled", "Deliveries that were cancelled: their endpoint was deleted, or they were dead and dismissed.", "", [((), cancelled.attempts)]
    )


def _of_endpoints(counted: Counted, named: Collection[Owed]) -> Families:
    # Reading must not make rows.
    found = dict(counted.attempts)
    none = Attempts()
    yield counter(
        "endpoint_attempts",
        "Attempts by endpoint and outcome.",
        "endpoint outcome",
        (((each.public_id, outcome), found.get((each.id, outcome), none).attempts) for each in named for outcome in OUTCOMES),
    )
    yield counter(
        "endpoint_attempt_seconds",
        "How long an endpoint's attempts took in all.",
        "endpoint",
        (((each.public_id,), sum(found.get((each.id, outcome), none).total_us for outcome in OUTCOMES) / 1e6) for each in named),
    )
    yield counter(
        "endpoint_deliveries_cancelled",
        "Deliveries that were cancelled, by endpoint.",
        "endpoint",
        (((each.public_id,), found.get((each.id, CANCELLED), none).attempts) for each in named),
    )


def _id(value: UUID | str) -> UUID:
    return value if isinstance(value, UUID) else UUID(hex=value)
