"""Finding events: newest first, by the primary key or the index of subjects, and never past so many rows.

No index serves a filter by type, source, time or text. Such a page looks at the next rows in the order of the index,
whether they match or not, and says how far it came; the next page goes on from there.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Length

from delivery.models import Delivery, Event
from jetrelay.dashboard.events.filters import Filters, of_sources
from subscriptions.ids import moment_of
from subscriptions.models import Source, Tenants

PAGE = 50
# Rows that a filter without an index looks at for one page: 15 to 55 ms of PostgreSQL.
MAX_LOOKED_AT = 20_000
# Bytes of bodies that text is looked for in: a page of large ones looks at fewer.
MAX_READ = 32 * 1024 * 1024


@dataclass(frozen=True)
class Found:
    """A page of events. `beyond`: there are more, behind the last row or, where `looked_at` says so, behind the last one looked at."""

    rows: list[Event]
    # Where the next page begins; None after the last.
    beyond: uuid.UUID | None = None
    # How many rows were looked at, where the page ended with that.
    looked_at: int = 0

    @property
    def back_to(self) -> datetime | None:
        return moment_of(self.beyond) if self.beyond else None


class Search:
    """The events of these tenants that pass the filters: of each question, one look at no more than so many rows.

    `above` is an id below which nothing is looked for, as the cursor of the live tail.
    """

    def __init__(self, filters: Filters, tenants: Tenants, above: uuid.UUID | None = None) -> None:
        self.filters, self.tenants = filters, tenants
        rows = Event.objects.filter(subject=filters.subject) if filters.subject else Event.objects.all()
        if filters.ceiling:
            rows = rows.filter(pk__lt=filters.ceiling)
        if floor := filters.floor:
            rows = rows.filter(pk__gte=floor)
        self._walked = rows.filter(pk__gt=above) if above else rows

    def page(self, size: int = PAGE) -> Found:
        rows = list(self.matching.defer("body", "dedup_key").prefetch_related("source")[: size + 1])
        if len(rows) > size:
            return Found(rows[:size], rows[size - 1].pk)
        return Found(rows, self._end, self._most if self._end else 0)

    @property
    def matching(self) -> "QuerySet[Event]":
        """Those that pass, newest first, among the rows that are looked at."""
        rows = self._walked.filter(pk__gte=self._end) if self._end else self._walked
        return rows.filter(self._narrow).order_by("-pk")

    @property
    def cut(self) -> bool:
        """Whether there are rows that are not looked at."""
        return self._end is not None

    @cached_property
    def _narrow(self) -> Q:
        narrow = self.filters.narrow
        if self.tenants is not None:
            narrow &= of_sources(list(Source.objects.for_tenants(self.tenants).order_by().values_list("pk", flat=True)))
        return narrow

    @cached_property
    def _end(self) -> uuid.UUID | None:
        """The last row that is looked at, where there are more behind it. A page of which every row matches needs no end."""
        if not self._narrow:
            return None
        ids = list(self._walked.order_by("-pk").values_list("pk", flat=True)[self._most - 1 : self._most + 1])
        return ids[0] if len(ids) > 1 else None

    @cached_property
    def _most(self) -> int:
        """How many rows to look at. What a body holds is read; how long it is, is not."""
        most = MAX_LOOKED_AT
        while self.filters.search and most > 1:
            lengths = self._walked.order_by("-pk").annotate(length=Length("body")).values("length")[:most]
            if (lengths.aggregate(total=Sum("length"))["total"] or 0) <= MAX_READ:
                break
            most = max(most // 4, 1)
        return most


@dataclass(frozen=True)
class Owed:
    """What became of an event at the endpoints that somebody sees: how many deliveries of it are in a state."""

    state: Delivery.State
    number: int


def owed(events: Sequence[Event], tenants: Tenants) -> dict[uuid.UUID, list[Owed]]:
    """Of each of these events. One query."""
    rows = Delivery.objects.for_tenants(tenants).filter(event__in=[each.pk for each in events]).order_by()
    found: dict[uuid.UUID, list[Owed]] = defaultdict(list)
    for event, state, number in rows.values_list("event", "state").annotate(number=Count("pk")):
        found[event].append(Owed(Delivery.State(state), number))
    return {event: sorted(each, key=lambda owed: owed.state) for event, each in found.items()}
