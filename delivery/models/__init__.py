"""What happened, and what is still owed: events, deliveries, attempts, and what the processes share.

The tables are sized for ten million settled and a million pending deliveries. Every index names its reader;
what no reader needs is not indexed, because each index is paid for on every insert. The big tables carry no
foreign key constraints in the database: rows are written in one transaction by `outbox` and `lanes`, and a
constraint would look up the parent of every row again.
"""

from delivery.models.flow import BATCH_PREFIX, MAX_KEPT_RESPONSE, Attempt, Delivery, DeliveryQuerySet, Event
from delivery.models.health import EndpointHealth
from delivery.models.lease import Lease
from delivery.models.replays import Replay
from delivery.models.stream import MAX_REJECTED, RejectedFrame, StreamGap, StreamHost
from delivery.models.tallies import LATENCY_BOUNDS_MS, AttemptTally, EventTally
from delivery.models.totals import AttemptTotal, EventTotal, TotalMark

__all__ = [
    "BATCH_PREFIX",
    "LATENCY_BOUNDS_MS",
    "MAX_KEPT_RESPONSE",
    "MAX_REJECTED",
    "Attempt",
    "AttemptTally",
    "AttemptTotal",
    "Delivery",
    "DeliveryQuerySet",
    "EndpointHealth",
    "Event",
    "EventTally",
    "EventTotal",
    "Lease",
    "RejectedFrame",
    "Replay",
    "StreamGap",
    "StreamHost",
    "TotalMark",
]
