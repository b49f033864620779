"""The admin of endpoints and of what happened. The stream's is in `jetrelay/dashboard/admin.py`."""

from delivery.admin import deliveries, endpoints, flow, replays, tallies
from subscriptions.tables import BoundedPaginator, ReadOnlyAdmin

__all__ = ["BoundedPaginator", "ReadOnlyAdmin", "deliveries", "endpoints", "flow", "replays", "tallies"]
