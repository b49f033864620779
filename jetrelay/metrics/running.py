"""What runs: leases, the hosts of the stream, gaps and replays."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, DurationField, ExpressionWrapper, F, Sum
from django.db.models.functions import Now

from delivery.leases import LONGEST_S, lane_lease, listener_lease
from delivery.models import Lease, Replay, StreamGap
from jetrelay.dashboard.overview.figures import bounded_count
from jetrelay.dashboard.stream.hosts import Stream, streams
from jetrelay.metrics import owed
from jetrelay.metrics.families import Families, counter, gauge
from subscriptions.ids import to_public
from subscriptions.models import Source, Subscription

# Hosts come and go with JETSTREAM_HOSTS, which names eight at most.
MOST_HOSTS = 100


def families(now: datetime) -> Families:
    yield from _leases()
    yield from _hosts(streams(past_shown=None)[:MOST_HOSTS], now)
    yield from _gaps()
    yield from _replays()


def _leases() -> Families:
    # By the clock of the database, which times them.
    left = ExpressionWrapper(F("expires_at") - Now(), output_field=DurationField())
    listeners = {listener_lease(pk): pk for pk in _streams()}
    lanes = {lane_lease(lane): str(lane) for lane in range(settings.JETRELAY_LANES)}
    rows = Lease.objects.filter(name__in=[*lanes, *listeners]).annotate(left=left).values_list("name", "left")
    found: dict[str, timedelta] = dict(rows)
    held = {name: float(timedelta() < found.get(name, timedelta()) <= timedelta(seconds=LONGEST_S)) for name in (*lanes, *listeners)}
    yield gauge(
        "lane_lease_held",
        "1 while a worker drains the lane. A lane without due work needs none.",
        "lane",
        (((lane,), held[name]) for name, lane in lanes.items()),
    )
    yield gauge(
        "lane_lease_left_seconds",
        "How long the lane's lease still runs; below 0: since when it has run out.",
        "lane",
        (((lane,), found[name].total_seconds()) for name, lane in lanes.items() if name in found),
    )
    wanted = set(Subscription.objects.streams().filter(pk__in=listeners.values()).values_list("pk", flat=True))
    yield gauge(
        "listener_wanted",
        "1 while some endpoint wants anything of the stream, so that somebody has to listen.",
        "source",
        (((to_public(Source.prefix, pk),), float(pk in wanted)) for pk in listeners.values()),
    )
    yield gauge(
        "listener_lease_held",
        "1 while a listener reads the stream.",
        "source",
        (((to_public(Source.prefix, pk),), held[name]) for name, pk in listeners.items()),
    )
    yield gauge(
        "listener_lease_left_seconds",
        "How long the listener's lease still runs; below 0: since when it has run out.",
        "source",
        (((to_public(Source.prefix, pk),), found[name].total_seconds()) for name, pk in listeners.items() if name in found),
    )


def _streams() -> list[Any]:
    return list(Source.objects.filter(kind=Source.Kind.JETSTREAM).order_by("pk").values_list("pk", flat=True)[: owed.MOST_NAMED])


def _hosts(hosts: list[Stream], now: datetime) -> Families:
    named = [((to_public(Source.prefix, each.row.source_id), each.host), each) for each in hosts]
    # What is no longer listened to has counted, and is neither connected nor late.
    current = [(labels, each) for labels, each in named if each.current]
    both = "source host"
    yield counter(
        "host_events",
        "Events that a host has brought since its counters were reset; each host brings its own copy.",
        both,
        ((labels, each.row.events) for labels, each in named),
    )
    yield counter("host_received_bytes", "Bytes that a host has sent.", both, ((labels, each.row.bytes) for labels, each in named))
    yield counter("host_reconnects", "How often a host was connected to again.", both, ((labels, each.row.reconnects) for labels, each in named))
    yield counter("host_rejected_frames", "Frames of a host that could not be read.", both, ((labels, each.row.rejected) for labels, each in named))
    yield gauge(
        "host_connected",
        "1 while the listener is connected to a host that it is to listen to.",
        both,
        ((labels, float(each.connected)) for labels, each in current),
    )
    yield gauge(
        "stream_lag_seconds",
        "How far a host's newest event was behind this machine's clock when it came; of hosts that are connected.",
        both,
        ((labels, each.lag_s) for labels, each in current if each.lag_s is not None),
    )
    yield gauge(
        "stream_silent_seconds",
        "Since when a host has brought no event.",
        both,
        ((labels, _age_s(each.row.last_event_at, now)) for labels, each in current if each.row.last_event_at),
    )
    yield gauge(
        "stream_missing_collections",
        "Collections that another host brings and this one leaves out.",
        both,
        ((labels, float(len(each.alarms))) for labels, each in current),
    )


def _gaps() -> Families:
    found = {"open": bounded_count(StreamGap.objects.alarming()), "acknowledged": bounded_count(StreamGap.objects.open().exclude(acknowledged_at=None))}
    yield gauge(
        "stream_gaps",
        "Stretches of the stream that may be missing and that no host has filled: `open` ones nobody has acknowledged.",
        "state",
        (((state,), float(count.number)) for state, count in found.items()),
    )


def _replays() -> Families:
    ended = {state: bounded_count(Replay.objects.filter(state=state)).number for state in (Replay.State.FINISHED, Replay.State.CANCELLED)}
    running = Replay.objects.running().order_by().aggregate(number=Count("pk"), expected=Sum("expected"), done=Sum("done"))
    states = Counter({Replay.State.RUNNING.value: running["number"], **{state.value: number for state, number in ended.items()}})
    yield gauge("replays", "Replays, recoveries and dismissals in bulk, by state.", "state", (((state,), float(number)) for state, number in states.items()))
    yield gauge(
        "replay_deliveries",
        "Of those that run: deliveries that their previews have counted (`expected`), and put back, made or dismissed so far (`done`).",
        "progress",
        (((name,), float(running[name] or 0)) for name in ("expected", "done")),
    )


def _age_s(at: datetime, now: datetime) -> float:
    return max((now - at).total_seconds(), 0.0)
