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
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from delivery.engines import engine
from delivery.models import Delivery, Event, Replay
from delivery.order import order_key
from delivery.replay import moves
from delivery.replay.moves import Moved
from subscriptions.compiled import filters_of
from subscriptions.ids import first_id, new_id
from subscriptions.matching import Matcher, patterns_covering
from subscriptions.models import Endpoint, Source

FIRST = UUID(int=0)
# Between the moment that a row names and its id; also what the clocks of two machines may differ by.
SLACK = timedelta(minutes=1)
# Events are stored in transactions: an id that is younger than this may still be on its way in.
SETTLING = timedelta(seconds=5)


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

    def __init__(self, wish: Replay) -> None:
        self.wish = wish

    @abstractmethod
    def look(self, at: Position, most: int, now: datetime) -> list[Position]:
        """The next rows, whether they match or not. Fewer than asked for: there are no more."""

    @abstractmethod
    def matching(self, ids: Sequence[UUID]) -> set[UUID]:
        """Those of these that the replay is about. Takes no locks."""

    @abstractmethod
    def move(self, ids: Sequence[UUID], now: datetime) -> Moved:
        """Do with them what was asked for, as far as it is still possible, in the caller's transaction."""

    def at_end(self, now: datetime) -> bool:
        """Whether what `look` finds now is all there will ever be."""
        return True

    def hold(self) -> None:  # noqa: B027 - most need nothing
        """Lock what the step depends on. In the caller's transaction, before anything is looked at."""

    def _in_time(self, moment: datetime) -> bool:
        return (self.wish.since is None or moment >= self.wish.since) and (self.wish.until is None or moment < self.wish.until)

    def _named(self, type: str) -> bool:
        """Whether the replay's collections cover this one, by the same wildcards as a subscription's."""
        return not self.wish.collections or not self._patterns.isdisjoint(patterns_covering(type))

    @property
    def _patterns(self) -> set[str]:
        return set(self.wish.collections)


class Deliveries(Walk):
    """For a replay and for dismissing."""

    def look(self, at: Position, most: int, now: datetime) -> list[Position]:
        rows = Delivery.objects.filter(pk__lt=self.wish.before_id)
        wish = self.wish
        if wish.event_id:
            # As many as there are endpoints: sorted here, so that no planner walks along the primary key for their order.
            ids = rows.filter(event=wish.event_id).order_by().values_list("pk", flat=True)
            return [Position(FIRST, id) for id in sorted(ids) if id > at.id][:most]
        if wish.delivery_state == Delivery.State.DEAD:
            return self._dead(rows.filter(state=Delivery.State.DEAD), at, most)
        if wish.endpoint_id:
            rows = rows.filter(endpoint=wish.endpoint_id)
        with engine().index_only():
            return [Position(FIRST, id) for id in rows.filter(pk__gt=at.id).order_by("id").values_list("pk", flat=True)[:most]]

    def _dead(self, rows: "QuerySet[Delivery]", at: Position, most: int) -> list[Position]:
        """Of the endpoint that it has come to, then of the ones after it."""
        here = self.wish.endpoint_id or at.endpoint
        with engine().index_only():
            found = [Position(here, id) for id in rows.filter(endpoint=here, pk__gt=at.id).order_by("id").values_list("pk", flat=True)[:most]]
            if self.wish.endpoint_id or len(found) == most:
                return found
            after = bounds(self.wish, self.wish.created_at)[0]
            others = rows.filter(endpoint__gt=here, pk__gt=after).order_by("endpoint_id", "id").values_list("endpoint_id", "pk")
            return found + [Position(*row) for row in others[: most - len(found)]]

    def matching(self, ids: Sequence[UUID]) -> set[UUID]:
        wish = self.wish
        rows = self._wanted().filter(pk__in=ids).order_by()
        if wish.event_id:
            rows = rows.filter(event=wish.event_id)
        if wish.endpoint_id:
            rows = rows.filter(endpoint=wish.endpoint_id)
        elif wish.tenant_id:
            rows = rows.filter(endpoint__in=Endpoint.objects.filter(tenant=wish.tenant_id).values("pk"))
        found = [(id, event) for id, event, made in rows.values_list("pk", "event_id", "created_at") if self._in_time(made)]
        if wish.collections:
            events = Event.objects.filter(pk__in={event for _, event in found}).order_by()
            named = {event for event, type in events.values_list("pk", "type") if self._named(type)}
            found = [(id, event) for id, event in found if event in named]
        return {id for id, _ in found}

    def move(self, ids: Sequence[UUID], now: datetime) -> Moved:
        # The state once more: a delivery may have been settled or dismissed since it was looked at.
        chosen = self._wanted().filter(pk__in=ids)
        return moves.set_aside(chosen, now) if self.wish.action == Replay.Action.DISMISS else moves.put_back(chosen, now)

    def _wanted(self) -> "QuerySet[Delivery]":
        if self.wish.delivery_state is None:
            return Delivery.objects.exclude(state=Delivery.State.PENDING)
        return Delivery.objects.filter(state=self.wish.delivery_state)


class Missed(Walk):
    """For a recovery: stored events, and whether the endpoint's subscriptions want one that it is not owed."""

    def __init__(self, wish: Replay) -> None:
        super().__init__(wish)
        self.endpoint: Endpoint | None = None
        self._matchers: dict[UUID, Matcher] | None = None

    def hold(self) -> None:
        engine().hold_endpoints([self._endpoint_id])

    def at_end(self, now: datetime) -> bool:
        return first_id(now - SETTLING) >= self.wish.before_id

    def look(self, at: Position, most: int, now: datetime) -> list[Position]:
        before = min(self.wish.before_id, first_id(now - SETTLING))
        with engine().index_only():
            ids = Event.objects.filter(pk__gt=at.id, pk__lt=before).order_by("id").values_list("pk", flat=True)
            return [Position(FIRST, id) for id in ids[:most]]

    def matching(self, ids: Sequence[UUID]) -> set[UUID]:
        rows = Event.objects.filter(pk__in=ids, source__in=list(self.matchers)).order_by()
        columns = rows.values_list("pk", "source_id", "kind", "type", "operation", "subject", "received_at")
        wanted = {id for id, source, kind, type, operation, subject, received_at in columns
                  if self._in_time(received_at) and self._named(type) and self.matchers[source].match(kind, type, operation, subject)}  # fmt: skip
        return wanted - set(Delivery.objects.filter(event__in=wanted, endpoint=self._endpoint_id).order_by().values_list("event_id", flat=True))

    def move(self, ids: Sequence[UUID], now: datetime) -> Moved:
        """Make the deliveries of those events that are still here."""
        endpoint = moves.receiving([self._endpoint_id]).get(self._endpoint_id)
        if endpoint is None:
            return Moved()
        held = sorted(engine().hold_events(ids))
        keys = self._keys(held) if endpoint.ordered else {}
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
        rows = Event.objects.filter(pk__in=events).order_by().values_list("pk", "subject")
        return {id: order_key(subject) for id, subject in rows}


def walk_of(wish: Replay) -> Walk:
    return Missed(wish) if wish.action == Replay.Action.RECOVER else Deliveries(wish)
