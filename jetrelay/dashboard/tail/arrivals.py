"""What has arrived since the last look, each event once.

    a cursor in the URL:  after=evt_0197…        every event up to here has been shown, skipped or passed over
                          seen=3fa0c2d1b7e4…     of those behind it, which have been shown (the last 8 digits of each id)

Ids are times, but an event may be committed after one with a higher id: another process made that later and was quicker.
So `after` keeps some seconds behind the newest event, what lies between is looked at again, and what has been seen of
it is left out. The server remembers nothing: any process answers, and a cursor is good for as long as somebody keeps it.

What comes faster than anybody reads is skipped, and counted; `after` then moves up to the oldest event that was shown.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from delivery.models import Event
from jetrelay.dashboard.events.filters import Filters
from jetrelay.dashboard.events.search import MAX_LOOKED_AT, Search
from subscriptions.ids import first_id, from_public, moment_of, to_public
from subscriptions.models import Tenants

# Of one look; and of the first one.
MOST_NEW = 25
MOST_AT_FIRST = 50
# How much later than one with a higher id an event may be committed.
LOOK_BACK = timedelta(seconds=5)
_DIGITS = 8
_SEEN = re.compile(rf"(?:[0-9a-f]{{{_DIGITS}}}){{0,500}}\Z")
_NOTHING = uuid.UUID(int=0)


@dataclass(frozen=True)
class Cursor:
    """`problem` says in words what of the URL was not understood."""

    after: uuid.UUID | None = None
    seen: frozenset[str] = frozenset()
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        after, seen = query.get("after", ""), query.get("seen", "")
        id = from_public(after)
        if after and id is None:
            return cls(problem=f"“{after[:40]}” is not an event's id: the newest are shown.")
        if not _SEEN.match(seen):
            return cls(id, problem="What is shown already was not understood: some may be shown twice.")
        return cls(id, frozenset(seen[at : at + _DIGITS] for at in range(0, len(seen), _DIGITS)))

    def parts(self) -> dict[str, str]:
        parts = {"after": to_public(Event.prefix, self.after) if self.after else "", "seen": "".join(sorted(self.seen))}
        return {name: value for name, value in parts.items() if value}


@dataclass(frozen=True)
class Arrivals:
    """New events, the newest first; how many others there were that are not shown; and from where to look the next time."""

    rows: list[Event]
    cursor: Cursor
    skipped: int = 0
    # There were more than those that were counted.
    more: bool = False

    @property
    def notice(self) -> str:
        if self.skipped:
            return f"{'More than ' if self.more else ''}{self.skipped:,} skipped: too many to show"
        return "Some were passed over: too many to look at" if self.more else ""


def arrivals(filters: Filters, tenants: Tenants, cursor: Cursor) -> Arrivals:
    """What is new since the cursor; without one, the newest."""
    most = MOST_NEW if cursor.after else MOST_AT_FIRST
    newest = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or _NOTHING
    search = Search(filters.live, tenants, cursor.after)
    # One more than can be shown or has been, which says that there are others.
    found = list(search.matching.filter(pk__lte=newest).defer("body", "dedup_key").prefetch_related("source")[: most + len(cursor.seen) + 1])
    new = [row for row in found if _short(row.pk) not in cursor.seen]
    shown, full = new[:most], len(new) > most
    after = max(_settled(newest), cursor.after or _NOTHING, shown[-1].pk if full else _NOTHING)
    next_cursor = Cursor(after, frozenset(_short(row.pk) for row in found if row.pk > after))
    if cursor.after is None or not full:
        return Arrivals(shown, next_cursor, 0, search.cut and cursor.after is not None)
    # Counted no further than to a bound: who comes back after a day asks about millions.
    matched = search.matching.filter(pk__lte=newest).values("pk")[: MAX_LOOKED_AT + 1].count()
    if search.cut or matched > MAX_LOOKED_AT:
        return Arrivals(shown, next_cursor, min(matched, MAX_LOOKED_AT) - len(shown), more=True)
    # All that has been seen lies above the cursor.
    return Arrivals(shown, next_cursor, max(0, matched - len(cursor.seen) - len(shown)))


def _settled(newest: uuid.UUID) -> uuid.UUID:
    """The id below which no event is expected any more. By the clock that makes the ids, or by ours where that is ahead."""
    now = datetime.now(UTC)
    moment = min(now, moment_of(newest)) if newest != _NOTHING else now
    return first_id(moment - LOOK_BACK)


def _short(id: uuid.UUID) -> str:
    return id.hex[-_DIGITS:]
