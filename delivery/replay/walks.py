"""What a replay goes over: always the next rows of an index, matching or not, so that no step is longer than another.

| asked for | walks along |
|---|---|
| one event's deliveries | `delivery_once` |
| dead ones | `delivery_dead`: of one endpoint, or of one after the other |
| one endpoint's | `delivery_endpoint` |
| all others | the primary key of deliveries |
| a recovery | the primary key of events |

Ids are made in the order of time, so a time range is a range of ids. Times are compared all the same: an id is made a
little after the moment that its row names.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from time import monotonic
from typing import ClassVar, NamedTuple
from uuid import UUID

from django.db import models
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from delivery.engines import engine
from delivery.models import Delivery, Event, Replay
from delivery.models.flow import in_state
from delivery.order import keyed, order_key
from delivery.replay import moves
from delivery.replay.moves import Moved, among
from subscriptions.compiled import filters_of
from subscriptions.ids import first_id, new_id
from subscriptions.matching import Matcher, patterns_covering
from subscriptions.models import Endpoint, Source

FIRST = UUID(int=0)
# Rows that a count looks at in one go, and for how long it goes on.
CHUNK, COUNT_S = 3000, 1.2
# Between the moment that a row names and its id; also what the clocks of two machines may differ by.
SLACK = timedelta(minutes=1)
# Events are stored in transactions: an id that is younger than this may still be on its way in.
SETTLING = timedelta(seconds=5)


class Count(NamedTuple):
    """How many deliveries match; `more`: at least so many, the counting stopped there."""

    number: int
    more: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}{'+' if self.more else ''}"


class Position(NamedTuple):
    """Behind this delivery or event; where the walk goes endpoint by endpoint, of this one."""

    endpoint: UUID
    id: UUID


def bounds(wish: Replay, now: datetime) -> tuple[UUID, UUID]:
    """The id behind which a walk begins, and the one before which it ends: nothing that is made from now on."""
    after = first_id(wish.since - SLACK) if wish.since else FIRST
    # Who stores events at this moment may have looked at the subscriptions before they changed.
    before = first_id(now + SETTLING) if wish.action == Replay.Action.RECOVER else new_id()
    return after, min(before, first_id(wish.until + SLACK)) if wish.until and wish.until < now else before


class Walk(ABC):
    """The rows that a replay goes over, in their order."""

    # Rows that a preview looks at, at most: a second's work. It ends sooner where that takes longer.
    preview_limit: ClassVar[int] = 100_000

    def __init__(self, wish: Replay) -> None:
        self.wish = wish

    @abstractmethod
    def look(self, at: Position, most: int, now: datetime) -> list[Position]:
        """The next rows, whether they match or not. Fewer than asked for: there are no more."""

    @abstractmethod
    def matching(self, ids: Sequence[UUID]) -> set[UUID]:
        """Those of these that the replay is about. Takes no locks."""

    def count(self, at: Position, most: int, now: datetime) -> Count:
        """How many match, of so many rows from a position on; or as far as it comes while somebody waits.

        By the statements of a step, chunk by chunk: one query for all would be the planner's to arrange, which knows next to nothing of
        rows that died a minute ago.
        """
        number, looked, until = 0, 0, monotonic() + COUNT_S
        while looked < most and (not looked or monotonic() < until):
            asked = min(CHUNK, most - looked)
            rows = self.look(at, asked, now)
            number += len(self.matching([row.id for row in rows]))
            if len(rows) < asked:
                return Count(number)
            looked, at = looked + len(rows), rows[-1]
        return Count(number, bool(self.look(at, 1, now)))

    @abstractmethod
    def move(self, ids: Sequence[UUID], now: datetime) -> Moved:
        """Do with them what was asked for, as far as it is still possible, in the caller's transaction."""

    def at_end(self, now: datetime) -> bool:
        """Whether what `look` finds now is all there will ever be."""
        return True

    def hold(self) -> None:  # noqa: B027 - most need nothing
        """Lock what the step depends on. In the caller's transaction, before anything is looked at."""


class Deliveries(Walk):
    """For a replay and for dismissing."""

    def look(self, at: Position, most: int, now: datetime) -> list[Position]:
        if self.wish.event_id:
            # As many as there are endpoints: sorted here, so that no planner walks along the primary key for their order.
            ids = self._all().order_by().values_list("pk", flat=True)
            return [Position(FIRST, id) for id in sorted(ids) if id > at.id][:most]
        with engine().walking():
            if not self._by_endpoint:
                return [Position(FIRST, id) for id in self._all().filter(pk__gt=at.id).order_by("id").values_list("pk", flat=True)[:most]]
            # Of the endpoint that it has come to, then of the ones after it.
            here = self._all().filter(endpoint=at.endpoint, pk__gt=at.id).order_by("id").values_list("pk", flat=True)
            found = [Position(at.endpoint, id) for id in here[:most]]
            return found + [Position(*row) for row in self._beyond(at.endpoint)[: most - len(found)]] if len(found) < most else found

    def count(self, at: Position, most: int, now: datetime) -> Count:
        if self.wish.event_id or self.wish.collections:
            return super().count(at, most, now)
        number, looked, until, has_begun = 0, 0, monotonic() + COUNT_S, False
        with engine().walking():
            for rows in self._parts():
                after = at.id
                while True:
                    # Also where there is nothing, in each of very many endpoints.
                    if has_begun and monotonic() >= until:
                        return Count(number, more=True)
                    has_begun, asked = True, min(CHUNK, most - looked)
                    ahead = rows.filter(pk__gt=after).order_by("id")
                    if not asked:
                        if ahead.exists():
                            return Count(number, more=True)
                        break
                    found = ahead[:asked].aggregate(looked=models.Count("pk"), number=models.Count("pk", filter=self._condition))
                    looked, number = looked + found["looked"], number + found["number"]
                    if found["looked"] < asked:
                        break
                    after = ahead.values_list("pk", flat=True)[asked - 1]
        return Count(number)

    def _parts(self) -> "Iterator[QuerySet[Delivery]]":
        """What the walk goes along, each in the order of ids."""
        if not self._by_endpoint:
            yield self._all()
            return
        endpoints = self._of_tenant if self.wish.tenant_id else Endpoint.objects.order_by().values_list("pk", flat=True)
        for id in sorted(endpoints):
            yield self._all().filter(endpoint=id)

    @property
    def _condition(self) -> Q:
        """As `_is_wanted`, of rows that were chosen before this is asked: in a subquery with a limit."""
        wish = self.wish
        found = ~Q(state=Delivery.State.PENDING) if wish.delivery_state is None else Q(state=wish.delivery_state)
        if wish.since:
            found &= Q(created_at__gte=wish.since)
        if wish.until:
            found &= Q(created_at__lt=wish.until)
        if wish.endpoint_id:
            return found & Q(endpoint=wish.endpoint_id)
        return found & Q(endpoint__in=self._of_tenant) if wish.tenant_id else found

    def matching(self, ids: Sequence[UUID]) -> set[UUID]:
        # By id alone: to a planner that does not know yet how much is dead, an index of all that is would look like the shorter way.
        rows = among(Delivery.objects.order_by(), ids).values_list("pk", "event_id", "endpoint_id", "state", "created_at")
        found = {id: event for id, event, endpoint, state, created_at in rows if self._is_wanted(endpoint, state, created_at)}
        if not self.wish.collections:
            return set(found)
        named = set(self._named(set(found.values())))
        return {id for id, event in found.items() if event in named}

    def move(self, ids: Sequence[UUID], now: datetime) -> Moved:
        # All of it once more: a delivery may have been settled or dismissed since it was looked at.
        rows = among(self._in_state(), ids)
        return moves.set_aside(rows, now) if self.wish.action == Replay.Action.DISMISS else moves.put_back(rows, now)

    @property
    def _by_endpoint(self) -> bool:
        """Dead letters of all are found by endpoint: they are few among many."""
        return self.wish.delivery_state == Delivery.State.DEAD and not self.wish.endpoint_id and not self.wish.event_id

    def _all(self) -> "QuerySet[Delivery]":
        """What the walk goes along."""
        wish, rows = self.wish, Delivery.objects.filter(pk__lt=self.wish.before_id)
        if wish.event_id:
            return rows.filter(event=wish.event_id)
        if wish.endpoint_id:
            rows = rows.filter(endpoint=wish.endpoint_id)
        return rows.filter(state=Delivery.State.DEAD) if wish.delivery_state == Delivery.State.DEAD else rows

    def _beyond(self, endpoint: UUID) -> "QuerySet[Delivery, tuple[UUID, UUID]]":
        """The dead ones of all endpoints after this one."""
        rows = self._all().filter(endpoint__gt=endpoint, pk__gt=bounds(self.wish, self.wish.created_at)[0])
        return rows.order_by("endpoint_id", "id").values_list("endpoint_id", "pk")

    def _in_state(self) -> "QuerySet[Delivery]":
        if self.wish.delivery_state is None:
            return Delivery.objects.exclude(in_state(Delivery.State.PENDING))
        return Delivery.objects.filter(in_state(self.wish.delivery_state))

    def _is_wanted(self, endpoint: UUID, state: int, created_at: datetime) -> bool:
        """What the replay is about, wherever the walk leads; but for the types of events."""
        wish = self.wish
        if (state == Delivery.State.PENDING) if wish.delivery_state is None else (state != wish.delivery_state):
            return False
        if (wish.since and created_at < wish.since) or (wish.until and created_at >= wish.until):
            return False
        if wish.endpoint_id:
            return endpoint == wish.endpoint_id
        return not wish.tenant_id or endpoint in self._of_tenant

    @cached_property
    def _of_tenant(self) -> frozenset[UUID]:
        return frozenset(Endpoint.objects.filter(tenant=self.wish.tenant_id).order_by().values_list("pk", flat=True))

    def _named(self, events: Collection[UUID]) -> Iterator[UUID]:
        """Those of the events whose type is asked for."""
        patterns = set(self.wish.collections)
        for id, type in among(Event.objects.order_by(), list(events)).values_list("pk", "type"):
            if not patterns.isdisjoint(patterns_covering(type)):
                yield id


class Missed(Walk):
    """For a recovery: stored events, and whether the endpoint's subscriptions want one that it is not owed."""

    # These come here one by one.
    preview_limit = 25_000

    def __init__(self, wish: Replay) -> None:
        super().__init__(wish)
        self.endpoint: Endpoint | None = None
        self._matchers: dict[UUID, Matcher] | None = None

    def hold(self) -> None:
        engine().hold_endpoints([self._endpoint_id])

    def at_end(self, now: datetime) -> bool:
        return first_id(now - SETTLING) >= self.wish.before_id

    def look(self, at: Position, most: int, now: datetime) -> list[Position]:
        with engine().walking():
            return [Position(FIRST, id) for id in self._ahead(at, now).values_list("pk", flat=True)[:most]]

    def matching(self, ids: Sequence[UUID]) -> set[UUID]:
        return set(self._matching(among(Event.objects.order_by(), ids)))

    def count(self, at: Position, most: int, now: datetime) -> Count:
        # What is still on its way counts, too.
        return super().count(at, most, now + timedelta(days=1))

    def _ahead(self, at: Position, now: datetime) -> "QuerySet[Event]":
        return Event.objects.filter(pk__gt=at.id, pk__lt=min(self.wish.before_id, first_id(now - SETTLING))).order_by("id")

    def _matching(self, rows: "QuerySet[Event]") -> Iterator[UUID]:
        """Those of these events that the endpoint wants and is not owed."""
        # A scalar, for which no planner reads all that the endpoint was ever owed: one look at the index for each event.
        owed = Subquery(Delivery.objects.filter(event=OuterRef("pk"), endpoint=self._endpoint_id).order_by().values("pk")[:1])
        columns = rows.values_list("pk", "source_id", "kind", "type", "operation", "subject", "received_at", owed)
        since, until, patterns = self.wish.since, self.wish.until, set(self.wish.collections)
        for id, source, kind, type, operation, subject, received_at, delivery in columns:
            if delivery or source not in self.matchers or (since and received_at < since) or (until and received_at >= until):
                continue
            if patterns and patterns.isdisjoint(patterns_covering(type)):
                continue
            if self.matchers[source].match(kind, type, operation, subject):
                yield id

    def move(self, ids: Sequence[UUID], now: datetime) -> Moved:
        """Make the deliveries of those events that are still here."""
        endpoint = moves.receiving([self._endpoint_id]).get(self._endpoint_id)
        if endpoint is None:
            return Moved()
        held = sorted(engine().hold_events(ids))
        keys = self._keys(held) if keyed([endpoint.pk]) else {}
        rows = [
            Delivery(event_id=event, endpoint_id=endpoint.pk, due_at=now, created_at=now, order_key=keys.get(event), state=Delivery.State.PENDING)
            for event in held
        ]
        # Somebody else may have made one in the meantime; ours are those with our ids.
        Delivery.objects.bulk_create(rows, ignore_conflicts=True)
        made = Delivery.objects.filter(pk__in=[row.pk for row in rows]).count()
        return Moved(made, moves.active_lanes([endpoint]))

    @property
    def matchers(self) -> dict[UUID, Matcher]:
        """What the endpoint's subscriptions want now, by source."""
        if self._matchers is None:
            sources = Source.objects.filter(subscriptions__endpoint=self._endpoint_id, subscriptions__active=True).distinct()
            self._matchers = {source.pk: Matcher(filters) for source in sources if (filters := list(filters_of(source, self._endpoint_id)))}
        return self._matchers

    @property
    def _endpoint_id(self) -> UUID:
        assert self.wish.endpoint_id
        return self.wish.endpoint_id

    @staticmethod
    def _keys(events: Sequence[UUID]) -> dict[UUID, int]:
        rows = among(Event.objects.order_by(), events).values_list("pk", "subject")
        return {id: order_key(subject) for id, subject in rows}


def named(patterns: Sequence[str]) -> Q:
    """The condition for an event's type, with the wildcards of subscriptions. No LIKE: to SQLite, a and A are alike there."""
    found = Q(type__in=[pattern for pattern in patterns if not pattern.endswith("*")])
    for prefix in (pattern[:-1] for pattern in patterns if pattern.endswith("*")):
        found |= Q(Exact(Left("type", len(prefix)), prefix)) if prefix else ~Q(pk=None)
    return found


def walk_of(wish: Replay) -> Walk:
    return Missed(wish) if wish.action == Replay.Action.RECOVER else Deliveries(wish)
