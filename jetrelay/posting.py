"""Posts that wait for their transaction: each is a thread of the web server, of which one tenant has a share."""

from collections.abc import Sequence

from delivery import ingest
from delivery.ingest import Accepted, Posted
from jetrelay import busy, places
from jetrelay.shares import Shares
from subscriptions.models import Source

_WORDS = "Too many posts of yours are waiting to be stored, or too many of all: send it again, with the same id."
_places = Shares(places.POSTS)


def publish(tenant: object, source: Source, events: Sequence[Posted]) -> list[Accepted]:
    """`ingest.publisher.publish`, if this tenant may wait for it. Raises Problem, and NotStored."""
    if not _places.take(tenant):
        raise busy.problem(_WORDS)
    try:
        return ingest.publisher.publish(source, events)
    finally:
        _places.give_back(tenant)
