"""Steering the stream, for the admin, the pages and the API: what people may ask of a host, and how it is doing.

A wish is written down in the host's row, and the listener carries it out within a second or so; where none is running,
the next one does when it starts.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone

from delivery.models import MAX_REJECTED, RejectedFrame, StreamGap, StreamHost
from delivery.sources.incoming import moment
from delivery.sources.jetstream.rejects import Reject
from delivery.sources.jetstream.resuming import Gap
from subscriptions.models import Source


class InvalidRewind(ValueError):
    """A host cannot be moved to this time; the message says why."""


def reconnect(hosts: QuerySet[StreamHost]) -> int:
    """Have the listener connect to these hosts again, from where they are. Returns how many."""
    return hosts.update(reconnect_asked_at=timezone.now())


def rewind(hosts: QuerySet[StreamHost], to: datetime) -> int:
    """Have the listener read these hosts again from a time on; what is stored already is not stored twice.

    Returns how many. Raises InvalidRewind for a time that lies ahead of any of them: that would leave a gap.
    """
    if to > timezone.now():
        raise InvalidRewind("This time lies in the future: a stream can only be moved back.")
    ahead = hosts.filter(reached_at__lt=to).first()
    if ahead is not None:
        raise InvalidRewind(f"{ahead.host} has only come to {ahead.reached_at:%F %T} UTC: moving it ahead would leave a gap.")
    return hosts.update(rewind_to=to)


def reset_counters(hosts: QuerySet[StreamHost]) -> int:
    """Count events, bytes, reconnects and rejected frames from now on. Returns how many hosts."""
    return hosts.update(events=0, bytes=0, reconnects=0, rejected=0, counted_since=timezone.now())


# --- what the listener writes down -----------------------------------------------------------------------------


def record_gap(source: Source, host: str, gap: Gap) -> StreamGap:
    """Kept once, however often the same stretch is asked for in vain."""
    row, _ = StreamGap.objects.update_or_create(
        source=source, host=host, from_at=moment(gap.from_us), defaults={"to_at": moment(gap.to_us), "reason": gap.reason, "filled_by": "", "filled_at": None}
    )
    return row


def fill_gaps(source: Source) -> list[StreamGap]:
    """Mark the open gaps that another host has stored without a break. Returns those."""
    filled = []
    for gap in StreamGap.objects.open().filter(source=source):
        covers = StreamHost.objects.filter(source=source, covered_from__lte=gap.from_at, reached_at__gte=gap.to_at).exclude(host=gap.host).first()
        if covers is not None:
            gap.filled_by, gap.filled_at = covers.host, timezone.now()
            gap.save(update_fields=["filled_by", "filled_at"])
            filled.append(gap)
    return filled


def acknowledge(gaps: "QuerySet[StreamGap]", by: str) -> int:
    """Say that somebody knows of these gaps. Returns how many were news; one that a host fills later is filled all the same."""
    return StreamGap.objects.alarming().filter(pk__in=gaps.values("pk")).update(acknowledged_at=timezone.now(), acknowledged_by=by[:150])


def record_rejects(source: Source, rejects: Sequence[Reject]) -> None:
    """Keep the last of them."""
    RejectedFrame.objects.bulk_create(
        RejectedFrame(source=source, host=each.host, received_at=each.at, reason=each.reason[:300].replace("\0", "�"), size=each.size, head=each.head)
        for each in rejects[-MAX_REJECTED:]
    )
    oldest = RejectedFrame.objects.order_by("-id").values_list("id", flat=True)[MAX_REJECTED : MAX_REJECTED + 1].first()
    if oldest is not None:
        RejectedFrame.objects.filter(id__lte=oldest).delete()
