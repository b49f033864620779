"""Counts per minute: what came in and what went out."""

from bisect import bisect_left
from typing import Any, Self

from django.db import models

from subscriptions.models import Endpoint, Source, Tenants

# Upper bounds of the latency histogram in ms; slower attempts fall into the last bucket, `over`.
LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
# The columns that count attempts up to each bound, and over the last.
HISTOGRAM = (*(f"ms_{bound}" for bound in LATENCY_BOUNDS_MS), "ms_over")


class Histogram(models.Model):
    """Attempts by how long they took."""

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
        abstract = True


class EventTallyQuerySet(models.QuerySet["EventTally"]):
    def for_tenants(self, tenants: Tenants) -> Self:
        """Of their own sources, and of those that all share."""
        return self if tenants is None else self.filter(source__in=Source.objects.for_tenants(tenants).order_by().values("pk"))


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

    objects = EventTallyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "event tallies"
        constraints = [
            # read by the upserts of tallies and, by its first column, by the dashboard
            models.UniqueConstraint(fields=["minute", "source", "kind", "type"], name="event_tally_row"),
        ]

    def __str__(self) -> str:
        return f"{self.minute:%F %H:%M} {self.type or self.kind}"


class AttemptTallyQuerySet(models.QuerySet["AttemptTally"]):
    def for_tenants(self, tenants: Tenants) -> Self:
        return self if tenants is None else self.filter(endpoint__in=Endpoint.objects.for_tenants(tenants).order_by().values("pk"))


class AttemptTally(Histogram):
    """What went out, per minute, endpoint and outcome, with a histogram of how long attempts took."""

    minute = models.DateTimeField()
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    outcome = models.CharField(max_length=16)
    attempts = models.BigIntegerField(default=0)
    total_ms = models.FloatField(default=0)

    objects = AttemptTallyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "attempt tallies"
        constraints = [
            # read by the upserts of tallies and, by its first column, by the dashboard
            models.UniqueConstraint(fields=["minute", "endpoint", "outcome"], name="attempt_tally_row"),
        ]
        indexes = [
            # read by the pages of endpoints: the last hour and day of a few, however many others are busy
            models.Index(fields=["endpoint", "minute"], name="attempt_tally_endpoint"),
        ]

    def __str__(self) -> str:
        return f"{self.minute:%F %H:%M} {self.outcome}"

    @staticmethod
    def bucket(ms: float) -> str:
        """The name of the column that counts an attempt of this duration."""
        return HISTOGRAM[bisect_left(LATENCY_BOUNDS_MS, ms)]

    def buckets(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in HISTOGRAM}
