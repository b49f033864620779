"""This machine's clock against the database's and the stream's hosts'."""

from collections.abc import Iterator
from datetime import timedelta

from django.db import connection
from django.utils import timezone

from delivery.models import StreamHost
from jetrelay.doctor.database import row
from jetrelay.doctor.finding import Finding, ok, problem, skipped, warning
from jetrelay.doctor.registry import Check

# Receivers refuse a signature whose time is further from theirs (Standard Webhooks, "Verifying webhook authenticity").
TOLERANCE_S = 300
# Nobody is harmed, and no clock that is kept right is so far off.
SUSPICIOUS_S = 5
# What a host's row says is news for so long.
FRESH = timedelta(minutes=2)
_ADVICE = "Let this machine's clock be kept by NTP (timedatectl set-ntp true)"


def of_database() -> Iterator[Finding]:
    if connection.vendor != "postgresql":
        yield skipped("SQLite uses this machine's clock")
        return
    before = timezone.now()
    theirs = row("SELECT clock_timestamp()")[0]
    after = timezone.now()
    # Wrong by half the time that the question took, at most.
    off_s = (before + (after - before) / 2 - theirs).total_seconds()
    yield _judged(off_s, "the database's")


def of_stream() -> Iterator[Finding]:
    hosts = StreamHost.objects.filter(seen_at__gt=timezone.now() - FRESH, lag_s__isnull=False).order_by("lag_s")
    first = hosts.first()
    if first is None or first.lag_s is None:
        yield skipped("no host has brought an event of late")
    elif first.lag_s < -SUSPICIOUS_S:
        # An event cannot come before it happens. A host that is behind, on the other hand, tells nothing of clocks.
        yield _judged(first.lag_s, f"that of {first.host}")
    else:
        yield ok("no host's events come from the future")


def _judged(off_s: float, whose: str) -> Finding:
    told = f"this machine's clock is {abs(off_s):,.1f} s {'ahead of' if off_s > 0 else 'behind'} {whose}"
    if abs(off_s) > TOLERANCE_S:
        return problem(told, f"{_ADVICE}: receivers refuse signatures that are {TOLERANCE_S // 60} minutes off, and deliveries fall due at the wrong time.")
    if abs(off_s) > SUSPICIOUS_S:
        return warning(told, f"{_ADVICE}: {TOLERANCE_S // 60} minutes off, receivers refuse signatures.")
    return ok(f"this machine's and {whose} agree within {max(abs(off_s), 0.1):.1f} s")


CHECKS = (Check("clock", of_database, needs=("database",)), Check("stream clock", of_stream, needs=("database",)))
