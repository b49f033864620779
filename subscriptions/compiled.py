"""The subscriptions of a source as plain objects, reloaded when ConfigVersion moves."""

from collections.abc import Iterator
from time import monotonic
from uuid import UUID

from subscriptions.matching import Filter, Matcher, Wanted, wanted
from subscriptions.models import ConfigVersion, Source, Subscription


def filters_of(source: Source, endpoint: UUID | None = None) -> Iterator[Filter]:
    """The active subscriptions to a source: of every endpoint, or of one."""
    chosen = Subscription.objects.of(source).filter(endpoint=endpoint) if endpoint else Subscription.objects.of(source)
    rows = chosen.values_list("endpoint_id", "collections", "dids", "operations", "kinds")
    for endpoint, collections, dids, operations, kinds in rows.iterator():
        yield Filter(endpoint, tuple(collections), tuple(dids), tuple(operations), tuple(kinds))


def filter_of(subscription: Subscription) -> Filter:
    """Of one subscription, saved or not, active or not."""
    each = subscription
    return Filter(each.endpoint_id, tuple(each.collections), tuple(each.dids), tuple(each.operations), tuple(each.kinds))


class Compiled:
    """What one source's subscriptions want. `refresh` costs one small query while nothing changed.

    `rest_factor`: compiling is followed by a rest from it for so many times as long. Where many tenants' subscriptions are compiled
    together, one who changes theirs a hundred times a second must not slow the others down. 0: a change is seen at once.
    """

    def __init__(self, source: Source, rest_factor: float = 0.0) -> None:
        self.source, self.rest_factor = source, rest_factor
        self.rest_until = 0.0
        self.version = -1
        self.matcher = Matcher()
        self.wanted: Wanted | None = None
        self.shards: dict[UUID, int] = {}

    def refresh(self) -> bool:
        """Recompile if the configuration moved. Returns whether it did."""
        began = monotonic()
        if began < self.rest_until:
            return False
        version = ConfigVersion.current()
        if version == self.version:
            return False
        filters = list(filters_of(self.source))
        self.matcher, self.wanted = Matcher(filters), wanted(filters)
        self.shards = dict(Subscription.objects.of(self.source).values_list("endpoint_id", "endpoint__shard"))
        self.version = version
        self.rest_until = monotonic() + (monotonic() - began) * self.rest_factor
        return True
