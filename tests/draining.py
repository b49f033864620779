"""Lanes that are drained in the test itself: endpoints in one lane, what they are owed, and receivers with answers of all kinds."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from delivery import lanes
from delivery.engines import engine
from delivery.engines.base import DeliveryRow, EventRow
from delivery.models import Delivery, EndpointHealth
from delivery.order import order_key
from delivery.sources.incoming import dedup_key
from subscriptions.ids import new_id
from subscriptions.models import ConfigVersion, Endpoint
from tests.builders import POST, make_endpoint, make_source
from tests.receiver import Answer, Handler, Received, Receiver
from tests.threads import patiently

LANE = 3

_numbers = itertools.count(1)


def when(event: threading.Event, status: int = 200) -> Answer:
    """An answer that waits for an event."""

    def answer(handler: Handler, _: Received) -> None:
        event.wait(30)
        handler.reply(status)

    return answer


def replying(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    return lambda handler, _: handler.reply(status, body, headers)


def endpoint_at(receiver: Receiver, **over: Any) -> Endpoint:
    return make_endpoint(**{"url": receiver.url, "shard": LANE} | over)


def owe(endpoint: Endpoint, count: int, subjects: Sequence[str] = ("",)) -> list[bytes]:
    """This many pending deliveries, all due, of these subjects in turn; gives the bodies in the order of their ids."""
    now, source = timezone.now(), make_source()
    whose = list(itertools.islice(itertools.cycle(subjects), count))
    bodies = [b'{"n":%d,"of":"%b"}' % (next(_numbers), subject.encode()) for subject in whose]
    events = [
        EventRow(new_id(), source.id, dedup_key([body.decode()]), "commit", POST, "create", subject, "", None, now, now, body)
        for body, subject in zip(bodies, whose, strict=True)
    ]
    rows = [DeliveryRow(new_id(), event.id, endpoint.id, order_key(event.subject) if endpoint.ordered else None) for event in events]
    with transaction.atomic():
        engine().insert_events(events)
        engine().insert_deliveries(rows, now)
    return bodies


def states(endpoint: Endpoint) -> dict[str, int]:
    rows = patiently(lambda: list(Delivery.objects.filter(endpoint=endpoint).values_list("state", flat=True)))
    return dict(Counter(Delivery.State(state).label for state in rows))


def bodies(receiver: Receiver) -> list[bytes]:
    return [request.body for request in receiver.requests]


def drain_all(lane: int = LANE) -> None:
    while lanes.drain(lane):
        pass


def retry_now(endpoint: Endpoint) -> None:
    """As if the waits of all retries had passed."""
    Delivery.objects.pending().filter(endpoint=endpoint).update(due_at=timezone.now())


def cool(endpoint: Endpoint) -> None:
    """As if the endpoint's breaker had cooled and the patience it asked for had passed."""
    for name in ("open_until", "paused_until"):
        EndpointHealth.objects.filter(pk=endpoint.pk).exclude(**{name: None}).update(**{name: timezone.now()})
    EndpointHealth.objects.filter(pk=endpoint.pk).update(version=health(endpoint).version + 1)
    ConfigVersion.bump()


def health(endpoint: Endpoint) -> EndpointHealth:
    return EndpointHealth.objects.get(pk=endpoint.pk)


def time_left(moment: datetime | None) -> timedelta:
    assert moment is not None
    return moment - timezone.now()


def requests_by(receiver: Receiver, key: Callable[[Received], Any]) -> dict[Any, list[Received]]:
    """What came, grouped, in the order in which it came."""
    grouped: dict[Any, list[Received]] = {}
    for request in receiver.requests:
        grouped.setdefault(key(request), []).append(request)
    return grouped
