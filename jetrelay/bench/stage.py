"""Endpoints for a benchmark's own database. Runs in a process that has it as Django's: `processes.django(…)`.

Each endpoint has a host name of its own below `localhost`, which libcurl resolves to loopback by itself (RFC 6761), so
that connections are kept apart as those to strangers are; and one subscription, to a collection nobody else wants.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.validators import MaxValueValidator
from django.db import connection, transaction
from django.db.models import Field
from django.utils import timezone

from delivery.models import Attempt, Delivery, Event
from subscriptions.ids import new_id
from subscriptions.models import SHARDS, ConfigVersion, Endpoint, Source, Subscription, Tenant

# What the processes must be allowed, for such endpoints.
LOOPBACK = {"JETRELAY_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128"}


@dataclass(frozen=True)
class Group:
    """Endpoints of one kind, on one port of this machine."""

    name: str
    count: int
    port: int
    state: str = "active"
    timeout_s: float = 30.0
    # Requests open at once, and who goes first, where they are not as an endpoint has them by itself.
    max_in_flight: int = Endpoint._meta.get_field("max_in_flight").default
    priority: int = Endpoint.Priority.NORMAL.value
    tenant: str = "bench"
    # One address for all of them, where clients take part that know nothing of names below localhost.
    address: str = ""
    # Whether they get the events of each subject in order.
    ordered: bool = False

    def url(self, number: int) -> str:
        return self.address or f"http://{self.name}-{number}.localhost:{self.port}/sink"


def largest(name: str) -> float:
    """The most that this setting of an endpoint may be."""
    field: Field[Any, Any] = Endpoint._meta.get_field(name)  # type: ignore[assignment]
    return float(min(each.limit_value for each in field.validators if isinstance(each, MaxValueValidator)))


def collection(group: str, number: int) -> str:
    """What this endpoint of the group wants."""
    return f"example.bench.{group}.n{number}"


@transaction.atomic
def build(groups: list[Group]) -> None:
    """Make the endpoints, spread evenly over the lanes."""
    tenants = {slug: Tenant.objects.create(slug=slug, name=slug) for slug in sorted({group.tenant for group in groups})}
    source = Source.objects.create(kind=Source.Kind.JETSTREAM, name="Jetstream")
    cast = [(group, number) for group in groups for number in range(group.count)]
    endpoints = [
        Endpoint(
            tenant=tenants[group.tenant],
            name=f"{group.name}-{number}",
            url=group.url(number),
            state=group.state,
            timeout_s=group.timeout_s,
            ordered=group.ordered,
            max_in_flight=group.max_in_flight,
            priority=group.priority,
            shard=place % SHARDS,
        )
        for place, (group, number) in enumerate(cast)
    ]
    Endpoint.objects.bulk_create(endpoints)
    Subscription.objects.bulk_create(
        Subscription(endpoint=endpoint, source=source, collections=[collection(group.name, number)])
        for endpoint, (group, number) in zip(endpoints, cast, strict=True)
    )
    ConfigVersion.bump()


@transaction.atomic
def owe(group: str, bodies: list[bytes], deliveries: int) -> None:
    """Store so many events, with these bodies in turn; each is owed to one of the group's endpoints, and due now."""
    source, endpoints, now = Source.objects.get(), ids(group), timezone.now()
    for first in range(0, deliveries, 5000):
        numbers = range(first, min(first + 5000, deliveries))
        events = [
            Event(
                id=new_id(),
                source=source,
                dedup_key=number.to_bytes(16),
                kind="commit",
                type="example.bench",
                operation="create",
                subject=f"did:plc:{number:024}",
                occurred_at=now,
                received_at=now,
                body=bodies[number % len(bodies)],
            )
            for number in numbers
        ]
        Event.objects.bulk_create(events, batch_size=500)
        Delivery.objects.bulk_create(
            [
                Delivery(id=new_id(), event=event, endpoint_id=endpoints[number % len(endpoints)], due_at=now, created_at=now)
                for event, number in zip(events, numbers, strict=True)
            ],
            batch_size=500,
        )


def empty() -> None:
    """Let go of all events and deliveries, and leave the tables as autovacuum would have left them."""
    for model in (Attempt, Delivery, Event):
        model._default_manager.all()._raw_delete("default")
    tidy()


def tidy() -> None:
    """What autovacuum does after so many rows were written."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def resume() -> None:
    """Activate every endpoint that was paused."""
    Endpoint.objects.filter(state=Endpoint.State.PAUSED).set_state(Endpoint.State.ACTIVE, "")


def ids(group: str) -> list[UUID]:
    return list(Endpoint.objects.filter(name__startswith=f"{group}-").order_by("id").values_list("id", flat=True))
