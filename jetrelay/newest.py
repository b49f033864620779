"""The newest deliveries of some endpoints, by the index of each: for the API and the pages."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from delivery.engines import engine

# Enough for a page of the API's largest size, and to know whether there is more.
_LEAST_OF_EACH = 201


class Look(NamedTuple):
    """The next ids, the newest first, and whether there are more behind them."""

    ids: list[UUID]
    more: bool

    def above(self, floor: UUID | None) -> "Look":
        """What of it is newer than this id. Where anything is not, nothing behind it is either."""
        inside = [id for id in self.ids if floor is None or id > floor]
        return Look(inside, self.more and len(inside) == len(self.ids))


def newest(endpoints: Sequence[UUID], after: UUID | None, most: int, state: int | None = None, least: int | None = None) -> Look:
    """The newest deliveries of all these endpoints that are older than `after`: so many, or fewer where there are many endpoints.

    Of each so many are read, or `least` where many endpoints share them: as many as a page has. Where one has more than that, what lies
    behind its last one is left for the next look: another endpoint's may lie in between. A state has to have an index of its own, as dead
    has; with any other this reads on until it has enough.
    """
    if not endpoints:
        return Look([], False)
    least = least or _LEAST_OF_EACH
    each = max(least, most // len(endpoints)) if most > least else most + 1
    found = engine().newest(endpoints, after, each, state)
    counts: dict[UUID, list[UUID]] = {}
    for endpoint, id in found:
        counts.setdefault(endpoint, []).append(id)
    horizon = max((min(ids) for ids in counts.values() if len(ids) == each), default=None)
    ids = sorted((id for _, id in found if horizon is None or id >= horizon), reverse=True)
    return Look(ids[:most], len(ids) > most or horizon is not None)
