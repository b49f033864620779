"""A stream as its listener sees it: its hosts, the stretches that may be missing, and what was no event."""

from typing import Self

from django.db import models
from django.utils import timezone

from subscriptions.ids import PublicModel
from subscriptions.models import Source
from subscriptions.validation import V2_PATH

MAX_REJECTED = 1000


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


class StreamGapQuerySet(models.QuerySet["StreamGap"]):
    def open(self) -> Self:
        """Those that no host has filled."""
        return self.filter(filled_by="")

    def alarming(self) -> Self:
        """Open ones that nobody has acknowledged."""
        return self.open().filter(acknowledged_at=None)


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
    # Somebody has seen it: it stays open, and raises no alarm any more.
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)

    objects = StreamGapQuerySet.as_manager()

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
