"""What happened, and what is still owed: events, deliveries, attempts, and what the processes share.

The tables are sized for ten million settled and a million pending deliveries. Every index names its reader;
what no reader needs is not indexed, because each index is paid for on every insert. The big tables carry no
foreign key constraints in the database: rows are written in one transaction by `outbox` and `lanes`, and a
constraint would look up the parent of every row again.
"""

from datetime import datetime
from typing import Any, Self

from django.db import models
from django.utils import timezone

from subscriptions.ids import PublicModel
from subscriptions.models import Endpoint, Source, Tenant
from subscriptions.validation import V2_PATH

# Upper bounds of the latency histogram in ms; slower attempts fall into the last bucket, `over`.
LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
MAX_KEPT_RESPONSE = 4096
MAX_REJECTED = 1000


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

    class Meta:
        ordering = ("-id",)
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
    settled_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "deliveries"
        indexes = [
            # read by lanes: an endpoint's due deliveries, oldest first; also counts the backlog. Settled rows leave it.
            models.Index(fields=["endpoint", "due_at", "id"], name="delivery_due", condition=models.Q(state=0)),
            # read by the dashboard, admin and API: dead letters of an endpoint; also counts them
            models.Index(fields=["endpoint", "id"], name="delivery_dead", condition=models.Q(state=2)),
            # read by the dashboard, admin and API: an endpoint's deliveries, newest first
            models.Index(fields=["endpoint", "-id"], name="delivery_endpoint"),
        ]
        constraints = [
            # read by the event page and by pruning: an event's deliveries; and nobody is owed one event twice
            models.UniqueConstraint(fields=["event", "endpoint"], name="delivery_once"),
        ]


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

    class Meta:
        ordering = ("id",)
        indexes = [
            # read by the delivery page: its attempts in order; also by pruning
            models.Index(fields=["delivery", "id"], name="attempt_delivery"),
        ]

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def response_text(self) -> str:
        return bytes(self.response_body).decode(errors="replace")


class StreamHost(models.Model):
    """One host of a stream: up to where it has been stored, and how the listener's connection to it is doing."""

    source = models.ForeignKey(Source, models.CASCADE, related_name="hosts")
    host = models.CharField(max_length=255)
    # Unix µs, or the host's seq when below 1e15 (jetstream.md). Moved only with the events before it.
    cursor = models.BigIntegerField(null=True, blank=True)
    cursor_saved_at = models.DateTimeField(null=True)
    # The dedup key of the event that has the seq in `cursor`: under that seq the host has to bring it again.
    cursor_key = models.BinaryField(max_length=16, null=True)
    # How far the stream has come, by the host's own clock, and from where on nothing is missing of what was asked for.
    reached_at = models.DateTimeField(null=True)
    covered_from = models.DateTimeField(null=True)
    asked_for = models.CharField(max_length=64, blank=True, help_text="A digest of what was asked for in that stretch.")
    last_event_at = models.DateTimeField(null=True)
    connected_since = models.DateTimeField(null=True)
    # Renewed by a living listener, so that a dead one does not look connected.
    seen_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True)
    # This machine's clock less the host's when the last event came.
    lag_s = models.FloatField(null=True)
    events_per_s = models.FloatField(default=0)
    bytes_per_s = models.FloatField(default=0)
    compressed = models.BooleanField(default=False)
    # Collections that another host brings and this one does not: [{"collection", "brought_by", "since", "missed"}].
    partial = models.JSONField(default=list)
    # Since `counted_since`.
    events = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    reconnects = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    counted_since = models.DateTimeField(default=timezone.now)
    # What people ask for; the listener does it within a second and clears it. See `delivery/stream.py`.
    reconnect_asked_at = models.DateTimeField(null=True)
    rewind_to = models.DateTimeField(null=True)

    class Meta:
        ordering = ("host",)
        constraints = [models.UniqueConstraint(fields=["source", "host"], name="cursor_per_host")]

    def __str__(self) -> str:
        return self.host

    @property
    def wire(self) -> str:
        return "v2" if self.host.endswith(V2_PATH) else "v1"


class StreamGap(PublicModel):
    """A stretch of one host's stream that may be missing. Times are by that host's clock."""

    prefix = "gap"

    source = models.ForeignKey(Source, models.CASCADE, related_name="gaps")
    host = models.CharField(max_length=255)
    from_at = models.DateTimeField()
    to_at = models.DateTimeField()
    reason = models.CharField(max_length=200)
    noticed_at = models.DateTimeField(default=timezone.now)
    # The host that has stored this stretch without a break; empty while none has.
    filled_by = models.CharField(max_length=255, blank=True)
    filled_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        # A host that is asked for the same stretch again, after a crash, leaves the same gap.
        constraints = [models.UniqueConstraint(fields=["source", "host", "from_at"], name="gap_per_host")]
        indexes = [
            # read by the listener every second, and by the pages: the gaps that nobody has filled
            models.Index(fields=["source", "from_at"], name="gap_open", condition=models.Q(filled_by="")),
        ]

    def __str__(self) -> str:
        return f"{self.host}: {self.from_at:%F %T} to {self.to_at:%F %T}"


class RejectedFrame(models.Model):
    """What a host sent that was no event. The last `MAX_REJECTED` are kept."""

    source = models.ForeignKey(Source, models.CASCADE, related_name="rejected_frames")
    host = models.CharField(max_length=255)
    received_at = models.DateTimeField()
    reason = models.CharField(max_length=300)
    size = models.PositiveIntegerField(help_text="Of the whole frame, in bytes.")
    head = models.BinaryField(help_text="Its first 4,096 bytes.")

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.reason

    def text(self) -> str:
        """The head for people to read; bytes that are not UTF-8 are shown as replacement characters."""
        return bytes(self.head).decode(errors="replace")


class Lease(models.Model):
    """The right to drain a lane, or to run a listener, until `expires_at`. See `delivery/leases.py`."""

    name = models.CharField(max_length=64, primary_key=True)
    token = models.UUIDField(null=True)
    owner = models.CharField(max_length=100, blank=True, help_text="Host and process, for people.")
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class EventTally(models.Model):
    """What came in, per minute. received = stored + duplicate + unmatched + invalid."""

    minute = models.DateTimeField()
    source = models.ForeignKey(Source, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    kind = models.CharField(max_length=32)
    type = models.CharField(max_length=320)
    received = models.BigIntegerField(default=0)
    stored = models.BigIntegerField(default=0)
    duplicate = models.BigIntegerField(default=0)
    unmatched = models.BigIntegerField(default=0)
    invalid = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "event tallies"
        constraints = [
            # read by the upserts of tallies and, by its first column, by the dashboard
            models.UniqueConstraint(fields=["minute", "source", "kind", "type"], name="event_tally_row"),
        ]

    def __str__(self) -> str:
        return f"{self.minute:%F %H:%M} {self.type or self.kind}"


class AttemptTally(models.Model):
    """What went out, per minute, endpoint and outcome, with a histogram of how long attempts took."""

    minute = models.DateTimeField()
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    outcome = models.CharField(max_length=16)
    attempts = models.BigIntegerField(default=0)
    total_ms = models.FloatField(default=0)
    ms_5 = models.BigIntegerField(default=0)
    ms_10 = models.BigIntegerField(default=0)
    ms_25 = models.BigIntegerField(default=0)
    ms_50 = models.BigIntegerField(default=0)
    ms_100 = models.BigIntegerField(default=0)
    ms_250 = models.BigIntegerField(default=0)
    ms_500 = models.BigIntegerField(default=0)
    ms_1000 = models.BigIntegerField(default=0)
    ms_2500 = models.BigIntegerField(default=0)
    ms_5000 = models.BigIntegerField(default=0)
    ms_10000 = models.BigIntegerField(default=0)
    ms_30000 = models.BigIntegerField(default=0)
    ms_over = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "attempt tallies"
        constraints = [
            # read by the upserts of tallies and, by its first column, by the dashboard
            models.UniqueConstraint(fields=["minute", "endpoint", "outcome"], name="attempt_tally_row"),
        ]

    def __str__(self) -> str:
        return f"{self.minute:%F %H:%M} {self.outcome}"

    @staticmethod
    def bucket(ms: float) -> str:
        """The name of the column that counts an attempt of this duration."""
        return next((f"ms_{bound}" for bound in LATENCY_BOUNDS_MS if ms <= bound), "ms_over")

    def buckets(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*(f"ms_{bound}" for bound in LATENCY_BOUNDS_MS), "ms_over")}
