"""Lanes: whose turn it is. One owner at a time drains a lane: take the lease, claim, send, settle.

`tenure.py` is one owner's time at one lane, `crew.py` what the owners in one process do together.
"""

import logging
import threading

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from delivery import health, leases, order, tenure
from delivery.crew import Crew
from delivery.first_due import first_due
from delivery.leases import Holding, lane_lease
from delivery.tenure import Tenure
from subscriptions.models import Endpoint

logger = logging.getLogger(__name__)

_crew = Crew()
_here: set[int] = set()
_here_lock = threading.Lock()


def drain(lane: int) -> bool:
    """Drain the lane until nothing is due, if nobody else does. Returns whether somebody should go on."""
    with _here_lock:
        if lane in _here:
            _crew.inbox.poke()
            return False
        _here.add(lane)
    try:
        holding = Holding(lane_lease(lane), tenure.LEASE_S)
        if tenure.stopping.is_set() or not holding.take():
            return False
        served = Tenure(lane, holding, _crew.inbox)
        _crew.serve(served)
    finally:
        with _here_lock:
            _here.discard(lane)
    if tenure.stopping.is_set() or served.lost:
        return False
    # Whoever published while the lane was owned sent no wake. Now that it is free, look once more, unless it was given up in the
    # middle of its work.
    return served.hands_on or lane in _due(Endpoint.objects.active().in_lane(lane))


def lanes_due() -> set[int]:
    """Lanes with a delivery that could be sent now and that nobody owns."""
    return _due(Endpoint.objects.active())


def _due(endpoints: "QuerySet[Endpoint]") -> set[int]:
    """Those of these endpoints' lanes."""
    now = timezone.now()
    ready = list(endpoints.exclude(health.held(now)).order_by().values_list("pk", "shard", "ordered", "health__ordered_since"))
    lanes = {endpoint: shard % settings.JETRELAY_LANES for endpoint, shard, *_ in ready}
    # An owner looks for itself.
    owned = leases.live(map(lane_lease, set(lanes.values())))
    free = {endpoint for endpoint, lane in lanes.items() if lane_lease(lane) not in owned}
    owing = first_due.among(free, now).keys()
    due = {lanes[endpoint] for endpoint, _, ordered, _ in ready if endpoint in owing and not ordered}
    for endpoint, _, ordered, since in ready:
        # What is due there may have to wait for an older one of its subject that is not.
        if ordered and endpoint in owing and lanes[endpoint] not in due and order.has_turn(endpoint, since):
            due.add(lanes[endpoint])
    return due
