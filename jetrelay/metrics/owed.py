"""What endpoints are owed: read by indexes that hold nothing but what is pending or dead, and counted no further than a budget allows."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import BigIntegerField, OuterRef, Subquery
from django.db.models.expressions import RawSQL

from delivery.breaker import Health
from delivery.models import Delivery
from jetrelay.metrics.families import OTHER, Families, gauge, info
from subscriptions.ids import to_public
from subscriptions.models import Endpoint, EndpointQuerySet

# Series of their own have so many endpoints, those with the most attempts; as many sources and tenants.
MOST_NAMED = 1_000
# Deliveries of each kind are counted so far for every endpoint; for those that owe more, so many in all.
FEW = 1_000
BUDGET = 1_000_000

_PENDING, _DEAD = Delivery.State.PENDING.value, Delivery.State.DEAD.value
_COUNTED = """(SELECT COUNT(*) FROM (SELECT 1 FROM delivery_delivery owed
    WHERE owed.endpoint_id = subscriptions_endpoint.id AND owed.state = {where} LIMIT %s) few)"""
_BREAKER = ("failures", "open_until", "ramp", "paused_until")
# In the order of the numbers that stand for them.
BREAKER_STATES = ("closed", "recovering", "paused", "probing", "open")


@dataclass(frozen=True)
class Owed:
    """One endpoint, its breaker's state, and its deliveries: due now, due later (they wait for a retry), dead.

    `held`: nothing is sent to it at the moment. `prompt`: nothing but us keeps what is due waiting: it is active and well, has no
    rate limit, and no order in which one delivery waits for another.
    """

    id: UUID
    name: str
    state: str
    tenant: str
    lane: int
    breaker: str
    held: bool
    prompt: bool
    due: int
    later: int
    dead: int
    oldest_due_s: float

    @property
    def pending(self) -> int:
        return self.due + self.later

    @property
    def public_id(self) -> str:
        return to_public(Endpoint.prefix, self.id)


@dataclass(frozen=True)
class Debts:
    """All endpoints that are not deleted. `limited`: some count stopped at its bound."""

    endpoints: list[Owed]
    limited: bool


def read(now: datetime) -> Debts:
    """One query; and one more for endpoints that owe more than a few."""
    found = {row["pk"]: row for row in _rows(Endpoint.objects.present(), now, FEW)}
    many = [pk for pk, row in found.items() if max(row["due"], row["later"], row["dead"]) > FEW]
    limited = False
    if many:
        limit = max(FEW, BUDGET // len(many))
        for row in _rows(Endpoint.objects.filter(pk__in=many), now, limit):
            limited |= max(row["due"], row["later"], row["dead"]) > limit
            found[row["pk"]] = row | {name: min(row[name], limit) for name in ("due", "later", "dead")}
    return Debts([_owed(row, now) for row in found.values()], limited)


class Oldest(NamedTuple):
    """The delivery that is due longest: since when, and at which endpoint."""

    due_at: datetime
    name: str
    public_id: str


def oldest_prompt(now: datetime) -> Oldest | None:
    """Where nothing but us keeps it; None without one. One query."""
    rows = _with_oldest(Endpoint.objects.active(), now).values(*_COLUMNS, "oldest")
    prompt = [row for row in rows if row["oldest"] and _is_prompt(row, _health(row).state(now))]
    found = min(prompt, key=lambda row: row["oldest"], default=None)
    return Oldest(found["oldest"], found["name"], to_public(Endpoint.prefix, found["pk"])) if found else None


def busiest(endpoints: Iterable[Owed], attempts: Counter[UUID]) -> list[Owed]:
    """Those that have series of their own. It is the same ones every time, as long as their number is bounded by us and not by chance."""
    return sorted(endpoints, key=lambda each: (-attempts[each.id], each.id))[:MOST_NAMED]


def families(debts: Debts, named: Collection[Owed]) -> Families:
    yield from _backlog(debts)
    yield from _endpoints(debts.endpoints, named)


def _backlog(debts: Debts) -> Families:
    waiting, retries, oldest, lanes = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), dict[tuple[str, ...], float](), dict[str, float]()
    pending = Counter[str]()
    for each in debts.endpoints:
        pending[each.tenant] += each.pending
    named = {tenant for tenant, _ in sorted(pending.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMED]}
    lanes = {str(lane): 0.0 for lane in range(settings.JETRELAY_LANES)}
    for each in debts.endpoints:
        key = each.tenant if each.tenant in named else OTHER, str(each.lane)
        for state in ("due", "held"):
            waiting[*key, state] += each.due if each.held == (state == "held") else 0
        retries[key] += each.later
        late_s = each.oldest_due_s if each.prompt else 0.0
        oldest[key] = max(oldest.get(key, 0.0), late_s)
        lanes[key[1]] = max(lanes[key[1]], late_s)
    yield gauge(
        "backlog_deliveries",
        "Deliveries that are due: `due` waits for a worker, `held` for its endpoint (paused, disabled, breaker open).",
        "tenant lane state",
        waiting.items(),
    )
    yield gauge("retries_scheduled", "Pending deliveries that wait for the time of their next attempt.", "tenant lane", retries.items())
    yield gauge(
        "oldest_due_seconds",
        "Since when the oldest delivery is due that nothing but Jetrelay keeps waiting: held, recovering, paced and ordered endpoints do not count.",
        "tenant lane",
        oldest.items(),
    )
    yield gauge("lane_lag_seconds", "The highest `jetrelay_oldest_due_seconds` of a lane.", "lane", (((lane,), late_s) for lane, late_s in lanes.items()))
    yield gauge("counts_limited", "1 if some endpoint is owed more deliveries than were counted.", "", [((), float(debts.limited))])


def _endpoints(endpoints: list[Owed], named: Collection[Owed]) -> Families:
    ids = {each.id for each in named}
    rest = [each for each in endpoints if each.id not in ids]
    owed = [((each.public_id, state), float(number)) for each in named for state, number in (("pending", each.pending), ("dead", each.dead))]
    late = [((each.public_id,), each.oldest_due_s) for each in named]
    if rest:
        owed += [((OTHER, "pending"), sum(each.pending for each in rest)), ((OTHER, "dead"), sum(each.dead for each in rest))]
        late += [((OTHER,), max(each.oldest_due_s for each in rest))]
    states, breakers = Counter(each.state for each in endpoints), Counter(each.breaker for each in endpoints if each.state == Endpoint.State.ACTIVE)
    shown = [state.value for state in Endpoint.State if state != Endpoint.State.DELETED]
    yield gauge("endpoint_deliveries", "Deliveries that an endpoint is owed (pending), or that died (dead) and are kept.", "endpoint state", owed)
    yield gauge("endpoint_oldest_due_seconds", "Since when the oldest pending delivery of an endpoint is due, held or not.", "endpoint", late)
    yield gauge(
        "endpoint_breaker",
        "An endpoint's circuit breaker: 0 closed, 1 recovering, 2 paused by Retry-After, 3 probing, 4 open.",
        "endpoint",
        (((each.public_id,), float(BREAKER_STATES.index(each.breaker))) for each in named),
    )
    yield gauge(
        "breakers", "Active endpoints by the state of their circuit breaker.", "state", (((state,), float(breakers[state])) for state in BREAKER_STATES)
    )
    yield gauge("endpoints", "Endpoints by state; deleted ones are not counted.", "state", (((state,), float(states[state])) for state in shown))
    yield gauge("endpoints_unnamed", "Endpoints beyond the bound, which have no series of their own.", "", [((), float(len(rest)))])
    yield info("endpoint", "What an endpoint is called, whose it is and which lane sends for it.", "endpoint name tenant lane", (_info(each) for each in named))


def _info(each: Owed) -> tuple[str, ...]:
    return each.public_id, each.name, each.tenant, str(each.lane)


_COLUMNS = ("pk", "name", "state", "shard", "tenant__slug", "rate_limit_per_s", "ordered", *(f"health__{name}" for name in _BREAKER))


def _rows(endpoints: EndpointQuerySet, now: datetime, limit: int) -> Iterable[dict[str, Any]]:
    moment = connection.ops.adapt_datetimefield_value(now)
    counts = {
        "due": _count(f"{_PENDING} AND owed.due_at <= %s", moment, limit + 1),
        # Deliveries are made due at once: what is due later has been tried.
        "later": _count(f"{_PENDING} AND owed.due_at > %s", moment, limit + 1),
        "dead": _count(f"{_DEAD}", limit + 1),
    }
    rows: Iterable[dict[str, Any]] = _with_oldest(endpoints, now).annotate(**counts).order_by("pk").values(*_COLUMNS, "oldest", *counts)
    return rows


def _with_oldest(endpoints: EndpointQuerySet, now: datetime) -> Any:
    first = Delivery.objects.due(now).filter(endpoint=OuterRef("pk")).order_by("due_at").values("due_at")[:1]
    return endpoints.order_by().annotate(oldest=Subquery(first))


def _count(where: str, *values: Any) -> RawSQL:
    return RawSQL(_COUNTED.format(where=where), values, output_field=BigIntegerField())  # noqa: S611 - constants


def _owed(row: dict[str, Any], now: datetime) -> Owed:
    health = _health(row)
    breaker = health.state(now)
    return Owed(
        id=row["pk"],
        name=row["name"],
        state=row["state"],
        tenant=row["tenant__slug"],
        lane=row["shard"] % settings.JETRELAY_LANES,
        breaker=breaker,
        held=row["state"] != Endpoint.State.ACTIVE or breaker in ("open", "paused", "probing"),
        prompt=_is_prompt(row, breaker),
        due=row["due"],
        later=row["later"],
        dead=row["dead"],
        oldest_due_s=_overdue_s(row["oldest"], now),
    )


def _health(row: dict[str, Any]) -> Health:
    return Health(**{name: row[f"health__{name}"] for name in _BREAKER if row[f"health__{name}"] is not None})


def _is_prompt(row: dict[str, Any], breaker: str) -> bool:
    return row["state"] == Endpoint.State.ACTIVE and breaker == "closed" and not row["rate_limit_per_s"] and not row["ordered"]


def _overdue_s(due_at: datetime | None, now: datetime) -> float:
    return max((now - due_at).total_seconds(), 0.0) if due_at else 0.0
