"""Sums of the tallies since the beginning, for counters that must never fall: see `delivery/totals.py`."""

from django.db import models

from delivery.models.tallies import Histogram
from subscriptions.models import Endpoint, Source


class TotalMark(models.Model):
    """How far the tallies of one table have been summed."""

    tally = models.CharField(max_length=32, primary_key=True)
    # What is tallied before this is in the totals; what is tallied from then on is not.
    until = models.DateTimeField()
    # Before this, it is in them for good, and hour by hour no longer.
    closed = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.tally} until {self.until:%F %H:%M}"


class EventTotal(models.Model):
    """What came in, by source: one row for everything long past, and one for each hour since."""

    hour = models.DateTimeField()
    # A source that is deleted leaves what it has counted.
    source = models.ForeignKey(Source, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False)
    received = models.BigIntegerField(default=0)
    stored = models.BigIntegerField(default=0)
    duplicate = models.BigIntegerField(default=0)
    unmatched = models.BigIntegerField(default=0)
    invalid = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            # read by those who sum: the rows of an hour
            models.UniqueConstraint(fields=["hour", "source"], name="event_total_row"),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%F %H:%M} {self.received:,} received"


class AttemptTotal(Histogram):
    """What went out, by endpoint and outcome: one row for everything long past, and one for each hour since."""

    hour = models.DateTimeField()
    endpoint = models.ForeignKey(Endpoint, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False)
    outcome = models.CharField(max_length=16)
    attempts = models.BigIntegerField(default=0)
    # Whole numbers, because a sum of fractions depends on their order: a counter that is a hair lower counts as one that began anew.
    total_us = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            # read by those who sum: the rows of an hour
            models.UniqueConstraint(fields=["hour", "endpoint", "outcome"], name="attempt_total_row"),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%F %H:%M} {self.outcome}"
