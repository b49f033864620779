"""What flows: an event, stored once; a delivery of it for each endpoint that wants it; the attempts made for a delivery."""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models.lookups import Exact
from django.utils import timezone

from subscriptions.ids import PublicModel, to_public
from subscriptions.models import Endpoint, Source, Tenant, Tenants

MAX_KEPT_RESPONSE = 4096
# No row has it: a batch is named by what is in it.
BATCH_PREFIX = "bat"


class EventQuerySet(models.QuerySet["Event"]):
    def for_tenants(self, tenants: Tenants) -> Self:
        """Of their own sources, and of those that all share."""
        return self if tenants is None else self.filter(source__in=Source.objects.for_tenants(tenants).order_by().values("pk"))


class Event(PublicModel):
    """One thing that happened, stored once. The body is kept byte for byte as received."""

    prefix = "evt"

    source = models.ForeignKey(Source, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    # SHA-256 cut to 16 bytes: whatever its parts are, the index stays narrow.
    dedup_key = models.BinaryField(max_length=16)
    kind = models.CharField(max_length=32)
    type = models.CharField(max_length=320)
    operation = models.CharField(max_length=32, blank=True)
    subject = models.CharField(max_length=2048, blank=True)
    origin = models.CharField(max_length=255, blank=True, help_text="The host that brought the event first.")
    origin_cursor = models.BigIntegerField(null=True, help_text="Where it stood in that host's stream (µs or seq).")
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField()
    body = models.BinaryField()

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            # read by the event pages and the admin: what came about one subject, newest first
            models.Index(fields=["subject", "-id"], name="event_subject"),
        ]
        constraints = [
            # read by outbox: is this event new?
            models.UniqueConstraint(fields=["source", "dedup_key"], name="event_dedup"),
        ]

    def text(self) -> str:
        """The body for people to read; bytes that are not UTF-8 are shown as replacement characters."""
        return bytes(self.body).decode(errors="replace")


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(endpoint__tenant=tenant)

    def for_tenants(self, tenants: Tenants) -> Self:
        return self if tenants is None else self.filter(endpoint__tenant__in=tenants)

    def pending(self) -> Self:
        return self.filter(state=Delivery.State.PENDING)

    def dead(self) -> Self:
        return self.filter(state=Delivery.State.DEAD)

    def due(self, now: datetime | None = None) -> Self:
        return self.pending().filter(due_at__lte=now or timezone.now())


class Delivery(PublicModel):
    """One event owed to one endpoint. `lanes` alone moves it on; `replay` alone moves it back."""

    class State(models.IntegerChoices):
        PENDING = 0, "pending"
        DELIVERED = 1, "delivered"
        DEAD = 2, "dead"
        CANCELLED = 3, "cancelled"

    prefix = "dlv"

    event = models.ForeignKey(Event, models.PROTECT, related_name="deliveries", db_constraint=False, db_index=False)
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="deliveries", db_constraint=False, db_index=False)
    state = models.PositiveSmallIntegerField(choices=State.choices, default=State.PENDING)
    due_at = models.DateTimeField()
    # Every attempt ever made, and those since it was last put in the queue: a replay starts the schedule again.
    attempt_count = models.PositiveIntegerField(default=0)
    tries = models.PositiveIntegerField(default=0)
    last_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.CharField(max_length=32, blank=True)
    # Of an ordered endpoint's deliveries: a digest of the event's subject. See `delivery/order.py`.
    order_key = models.BigIntegerField(null=True)
    settled_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "deliveries"
        indexes = [
            # read by lanes: an endpoint's due deliveries, oldest first; also counts the backlog. Settled rows leave it.
            models.Index(fields=["endpoint", "due_at", "id"], name="delivery_due", condition=models.Q(state=0)),
            # read by lanes: the oldest pending event of each subject. Deliveries of endpoints without an order are not in it.
            models.Index(fields=["endpoint", "order_key", "event"], name="delivery_order", condition=models.Q(state=0, order_key__isnull=False)),
            # read by the dashboard, admin and API: dead letters of an endpoint; also counts them
            models.Index(fields=["endpoint", "id"], name="delivery_dead", condition=models.Q(state=2)),
            # read by the dashboard, admin and API: an endpoint's deliveries, newest first
            models.Index(fields=["endpoint", "-id"], name="delivery_endpoint"),
            # read by the metrics: deliveries in a state that there is not. It is empty, or something is wrong.
            models.Index(fields=["id"], name="delivery_unaccounted", condition=models.Q(state__gt=3)),
        ]
        constraints = [
            # read by the event page and by pruning: an event's deliveries; and nobody is owed one event twice
            models.UniqueConstraint(fields=["event", "endpoint"], name="delivery_once"),
        ]


def in_state(state: int) -> models.Q:
    """The condition for deliveries that were chosen otherwise, by their ids say: no index of this state is looked at for it.

    `state = 0` would be an invitation to read all that is pending. What statistics say of how much that is may be an hour old, and by now it
    is half of the table.
    """
    return models.Q(Exact(_STATE, state))


_STATE = models.Func(models.F("state"), template="%(expressions)s + 0", output_field=models.IntegerField())


class Attempt(PublicModel):
    """One request made for a delivery. Append-only."""

    prefix = "att"

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="attempts", db_constraint=False, db_index=False)
    number = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    # Phases in ms from the start of the request, as libcurl counts them: each includes the ones before it.
    dns_ms = models.FloatField(default=0)
    connect_ms = models.FloatField(default=0)
    tls_ms = models.FloatField(default=0)
    first_byte_ms = models.FloatField(default=0)
    total_ms = models.FloatField(default=0)
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=32, blank=True)
    error_detail = models.CharField(max_length=300, blank=True)
    response_headers = models.TextField(blank=True)
    response_body = models.BinaryField(max_length=MAX_KEPT_RESPONSE, blank=True)
    # The digest of the batch that it travelled in; null where it travelled as itself. See `delivery/parcels.py`.
    batch = models.UUIDField(null=True)

    class Meta:
        ordering = ("id",)
        indexes = [
            # read by the delivery page: its attempts in order; also by pruning
            models.Index(fields=["delivery", "id"], name="attempt_delivery"),
            # read by the attempt's page: what went along in one request. Those that travelled alone are not in it.
            models.Index(fields=["batch"], name="attempt_batch", condition=models.Q(batch__isnull=False)),
        ]

    @property
    def batch_id(self) -> str | None:
        """The `webhook-id` of its batch."""
        return to_public(BATCH_PREFIX, self.batch) if self.batch else None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def response_text(self) -> str:
        return bytes(self.response_body).decode(errors="replace")
