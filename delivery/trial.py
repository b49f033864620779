"""What a subscription would have brought: a filter tried on the newest events that are stored."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from delivery.models import Event
from subscriptions.matching import Filter, Matcher
from subscriptions.models import Source

# Events that one trial looks at; a second's work.
MOST = 20_000
LOOKED_BACK = 200_000
SAMPLES = 20
_TYPES = 50


class Trial(NamedTuple):
    """Of so many events looked at, how many match; by (kind, type), the most frequent first; and the newest of them."""

    looked_at: int
    matched: int
    oldest_at: datetime | None
    per_type: Sequence[tuple[tuple[str, str], int]]
    samples: Sequence[Event]


def trial(source: Source, wanted: Filter, last: int = 1000) -> Trial:
    """Try the filter on the newest stored events of this source, `MOST` of them at most.

    Only what is stored can be looked at: of a Jetstream that is what some subscription wanted.
    """
    newest = Event.objects.order_by("-id").values_list("pk", flat=True)
    # No index leads from a source to its newest events: one that has few among millions is looked for so far back.
    floor = next(iter(newest[LOOKED_BACK : LOOKED_BACK + 1]), None)
    rows = Event.objects.filter(source=source).order_by("-id").values_list("pk", "kind", "type", "operation", "subject")
    rows = (rows.filter(pk__gt=floor) if floor else rows)[: min(last, MOST)]
    matcher, counts, ids = Matcher([wanted]), Counter[tuple[str, str]](), list[UUID]()
    looked_at, id = 0, None
    for id, kind, type, operation, subject in rows.iterator():
        looked_at += 1
        if matcher.match(kind, type, operation, subject):
            counts[kind, type] += 1
            if len(ids) < SAMPLES:
                ids.append(id)
    oldest = Event.objects.filter(pk=id).values_list("received_at", flat=True).first() if id else None
    samples = list(Event.objects.filter(pk__in=ids).order_by("-id").defer("body", "dedup_key"))
    return Trial(looked_at, counts.total(), oldest, counts.most_common(_TYPES), samples)
