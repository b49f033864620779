"""Which endpoints want an event. Pure: plain objects in, endpoint ids out.

All subscriptions to one source are compiled into one dictionary keyed by (kind, operation, pattern, DID), so that
an event costs one look-up for each pattern that could cover it, however many subscriptions exist:

    app.bsky.feed.post  ->  "app.bsky.feed.post", "app.bsky.feed.*", "app.bsky.*", "app.*", "*"
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from subscriptions.validation import MAX_WANTED_COLLECTIONS, MAX_WANTED_DIDS, STREAM_KINDS, is_collection

Endpoints = tuple[UUID, ...]

# Collections are few on a real stream, but anyone may invent one: the memory of answers is bounded.
_MAX_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Filter:
    """One subscription. Empty `dids` or `operations` stand for all of them."""

    endpoint: UUID
    collections: tuple[str, ...]
    dids: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("commit",)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask a Jetstream for: a superset of every filter. Empty means no limit."""

    collections: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    # Asked for on the v2 wire alone: v1 sends identity and account events to everybody.
    kinds: tuple[str, ...] = ()

    @property
    def broad(self) -> bool:
        """Whether a living host always has something to send."""
        return not self.collections and not self.dids and (not self.kinds or "commit" in self.kinds)


def patterns_covering(type: str) -> list[str]:
    """Every pattern that matches this collection or event type, the exact name first."""
    parts = type.split(".")
    return [type, *(".".join(parts[:size]) + ".*" for size in range(len(parts) - 1, 0, -1)), "*"]


class Matcher:
    """Compiled subscriptions to one source."""

    def __init__(self, filters: Iterable[Filter] = ()) -> None:
        self._any_did: dict[tuple[str, str, str], set[UUID]] = {}
        self._by_did: dict[tuple[str, str, str, str], set[UUID]] = {}
        self._remembered: dict[tuple[str, str, str], Endpoints] = {}
        for each in filters:
            self._add(each)

    def _add(self, each: Filter) -> None:
        for kind in each.kinds:
            # Only commits and API events have a collection or type to filter by; Jetstream passes the rest too.
            patterns = each.collections if kind in ("commit", "api") else ("*",)
            for operation in each.operations if kind == "commit" and each.operations else ("",):
                for pattern in patterns:
                    if each.dids:
                        for did in each.dids:
                            self._by_did.setdefault((kind, operation, pattern, did), set()).add(each.endpoint)
                    else:
                        self._any_did.setdefault((kind, operation, pattern), set()).add(each.endpoint)

    def match(self, kind: str, type: str, operation: str, did: str) -> Endpoints:
        """The endpoints that want this event, each once."""
        question = (kind, type, operation)
        found = self._remembered.get(question)
        if found is None:
            found = self._remember(question)
        if not self._by_did:
            return found
        mine: set[UUID] = set()
        for pattern in patterns_covering(type):
            for asked in {"", operation}:
                mine |= self._by_did.get((kind, asked, pattern, did), set())
        return tuple(sorted(mine.union(found))) if mine else found

    def _remember(self, question: tuple[str, str, str]) -> Endpoints:
        kind, type, operation = question
        found: set[UUID] = set()
        for pattern in patterns_covering(type):
            for asked in {"", operation}:
                found |= self._any_did.get((kind, asked, pattern), set())
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[question] = answer = tuple(sorted(found))
        return answer


def wanted(filters: Iterable[Filter]) -> Wanted | None:
    """The union of all filters, as far as one Jetstream connection can express it; None when nobody wants anything."""
    every = list(filters)
    if not every:
        return None
    collections = {pattern for each in every for pattern in (each.collections if "commit" in each.kinds else ())}
    dids = {did for each in every for did in each.dids}
    # A host refuses the whole request for one pattern that it cannot read: then, as for "*", ask for everything.
    if len(collections) > MAX_WANTED_COLLECTIONS or not all(map(is_collection, collections)):
        collections = set()
    if len(dids) > MAX_WANTED_DIDS or any(not each.dids for each in every):
        dids = set()
    kinds = {kind for each in every for kind in each.kinds if kind in STREAM_KINDS}
    return Wanted(tuple(sorted(collections)), tuple(sorted(dids)), () if len(kinds) == len(STREAM_KINDS) else tuple(sorted(kinds)))
