"""Whether the processes that make up Jetrelay are at work, and whether all that is due has an owner."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from time import monotonic

from celery import current_app
from django.conf import settings
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from delivery import leases
from delivery.lanes import lanes_due
from delivery.leases import lane_lease, listener_lease
from delivery.models import Lease, StreamHost
from jetrelay.doctor.finding import Finding, ok, problem, skipped, warning
from jetrelay.doctor.registry import Check
from jetrelay.metrics.owed import oldest_prompt
from subscriptions.models import Source, Subscription

# Beat writes down every three minutes what it has done meanwhile (celery.beat.Scheduler.sync_every).
BEAT_SILENT = timedelta(minutes=8)
# A worker that is there takes a wake at once.
ANSWER_S = 5.0
# The sweep finds a lane without an owner within a second.
LOOK_AGAIN_S = 3.0
# Due for longer than this: workers do not keep up, or the endpoint does not.
LATE = timedelta(minutes=2)
# Owners renew their leases each third of their terms, which are of 6 and 9 s.
RENEWED_S = 5.0
# No two clocks are further apart that are kept right.
AHEAD = timedelta(minutes=1)
_EVERYTHING = "`manage.py up` runs everything."
_START_BEAT = f"Start it: `celery -A jetrelay beat`; {_EVERYTHING} Without it nothing is pruned, and replays stand still."
_START_WORKER = f"Start one with this environment: `celery -A jetrelay worker -P threads -Q lanes,default`; {_EVERYTHING}"
_START_LISTENER = f"Start it: `manage.py run_jetstream`; {_EVERYTHING} It goes on from where it was, as far back as the hosts go."


def beat() -> Iterator[Finding]:
    rows = list(PeriodicTask.objects.filter(name__in=settings.CELERY_BEAT_SCHEDULE))
    if not rows:
        yield problem("beat has never run", _START_BEAT)
        return
    disabled = sorted(row.name for row in rows if not row.enabled)
    if disabled:
        yield warning(f"switched off by hand: {', '.join(disabled)}", "Enable it in the admin, under Schedules; a restart of beat does so too.")
    last = max((row.last_run_at for row in rows if row.last_run_at), default=None)
    # Just started, it has written the schedule and not yet when it ran.
    last = max(each for each in (last, *(row.date_changed for row in rows)) if each is not None)
    if last - timezone.now() > AHEAD:
        told = f"beat's last run is dated {last:%F %T} UTC, which is still to come"
        yield problem(told, f"A clock was ahead. Beat runs what is due as soon as it is there: {_START_BEAT}")
    elif timezone.now() - last > BEAT_SILENT:
        yield problem(f"beat was last heard of {_ago(last)}", _START_BEAT)
    else:
        yield ok(f"beat was heard of {_ago(last)}")


def worker() -> Iterator[Finding]:
    """A wake for a lane that nobody owns: whoever takes it takes the lane's lease, and gives it back as nothing is due."""
    lanes = [lane_lease(lane) for lane in range(settings.JETRELAY_LANES)]
    owned = leases.live(lanes)
    held = _leases(owned)
    # By what they do: a lease may be dated by a wrong clock, and have no owner.
    if owned and _until(lambda: _leases(owned) != held, RENEWED_S):
        yield ok(f"{len(owned)} of {len(lanes)} lanes are being drained")
        return
    free = next((number for number, name in enumerate(lanes) if name not in owned), None)
    if free is None:
        yield problem(f"all {len(lanes)} lanes have owners, and none of them has renewed its lease within {RENEWED_S:.0f} s", _START_WORKER)
        return
    before = _leases([lanes[free]])
    # It expires soon, so that a broker without workers is left as it was.
    current_app.send_task("delivery.drain", args=[free], queue="lanes", expires=2 * ANSWER_S, retry=False, ignore_result=True)
    began = monotonic()
    if _until(lambda: _leases([lanes[free]]) != before, ANSWER_S):
        yield ok(f"a worker took a wake within {monotonic() - began:.1f} s")
    else:
        yield problem(f"no worker took a wake within {ANSWER_S:.0f} s", _START_WORKER)


def listener() -> Iterator[Finding]:
    sources = Subscription.objects.streams()
    for source in sources:
        name = listener_lease(source.id)
        lease = Lease.objects.filter(name=name).first()
        if lease is None or name not in leases.live([name]):
            since = f"since {lease.expires_at:%F %T} UTC" if lease else "and never did"
            yield problem(f"nobody listens to {source.name}, {since}", _START_LISTENER)
            continue
        held = _leases([name])
        if not _until(lambda name=name, held=held: _leases([name]) != held, RENEWED_S):  # type: ignore[misc]
            yield problem(f"{lease.owner} listens to {source.name} by its lease, and has not renewed it within {RENEWED_S:.0f} s", _START_LISTENER)
        yield from _hosts(source, lease.owner)
    if not sources:
        yield skipped("no endpoint wants anything of a stream")


def _hosts(source: Source, owner: str) -> Iterator[Finding]:
    seen = list(StreamHost.objects.filter(source=source))
    hosts = [host for host in seen if host.host in settings.JETSTREAM_HOSTS]
    if not hosts:
        connected = ", ".join(sorted(host.host for host in seen if host.connected_since))
        if connected:
            advice = "Give doctor the listener's environment, or start the listener with this one."
            yield warning(f"{owner} listens to {connected}, which JETSTREAM_HOSTS does not name here", advice)
        else:
            yield warning(f"{owner} listens to {source.name}, and is connected to no host yet", "Look again in some seconds; then look at the listener's log.")
        return
    away = [host for host in hosts if host.connected_since is None]
    for host in away:
        known = "another host brings its events meanwhile" if len(away) < len(hosts) else "nothing comes in meanwhile"
        advice = f"Is the URL in JETSTREAM_HOSTS right, and can this machine reach it? {known.capitalize()}."
        yield (warning if len(away) < len(hosts) else problem)(f"{host.host} is not connected: {host.problem or 'not yet'}", advice)
    if len(away) < len(hosts):
        yield ok(f"{owner} listens to {source.name}, {len(hosts) - len(away)} of {len(hosts)} hosts connected")


def machines() -> Iterator[Finding]:
    """Who holds leases now, by machine."""
    live = leases.current().values_list("owner", flat=True)
    names = sorted({owner.rpartition(":")[0] for owner in live if owner})
    for_one = [
        what for what, is_so in (("SQLite", connection.vendor == "sqlite"), ("a broker of files", not settings.CELERY_BROKER_URL.startswith("redis"))) if is_so
    ]
    if len(names) > 1 and for_one:
        yield problem(
            f"{', '.join(names)} are at work on {' and '.join(for_one)}", "That is for one machine alone: move to PostgreSQL and Redis, or stop all but one."
        )
    elif names:
        yield ok(f"at work: {', '.join(names)}")
    else:
        yield skipped("nobody holds a lease at the moment")


def lanes() -> Iterator[Finding]:
    due = lanes_due()
    if due:
        # A wake may be on its way.
        time.sleep(LOOK_AGAIN_S)
        due &= lanes_due()
    if due:
        told = f"work is due in lane{'s' if len(due) > 1 else ''} {', '.join(map(str, sorted(due)))}, and nobody owns {'them' if len(due) > 1 else 'it'}"
        yield problem(told, f"{_START_WORKER} JETRELAY_LANES ({settings.JETRELAY_LANES}) must be the same for all processes.")
    oldest = oldest_prompt(timezone.now())
    if oldest and timezone.now() - oldest.due_at > LATE:
        advice = "" if due else "If its page shows answers that come quickly, more workers help; else its receiver holds it up."
        told = f"{oldest.name} ({oldest.public_id}) has a delivery that was due {_ago(oldest.due_at)}"
        yield warning(told, advice or "It waits for an owner of its lane.")
    elif not due:
        yield ok(f"the oldest delivery was due {_ago(oldest.due_at)}" if oldest else "nothing is due")


def dates() -> Iterator[Finding]:
    """Leases that no owner can have dated so: their clock was ahead."""
    found = list(leases.misdated().order_by("name"))
    for lease in found:
        told = f"the lease {lease.name} is dated until {lease.expires_at:%F %T} UTC by {lease.owner or 'somebody'}: that clock was ahead"
        yield problem(told, "Keep clocks right (NTP). Whoever wants the lease cuts it to its term: start a worker and a listener if none runs.")
    if not found:
        yield ok("no lease is dated beyond its term")


def _leases(names: Iterable[str]) -> list[tuple[object, ...]]:
    return list(Lease.objects.filter(name__in=list(names)).order_by("name").values_list("token", "owner", "expires_at"))


def _until(true: Callable[[], bool], most_s: float) -> bool:
    deadline = monotonic() + most_s
    while monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return False


def _ago(moment: datetime) -> str:
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}s ago"
    return f"{seconds} s ago"


CHECKS = (
    Check("beat", beat, needs=("database",)),
    Check("leases", dates, needs=("database",)),
    Check("worker", worker, needs=("database", "broker"), limit_s=RENEWED_S + ANSWER_S + 5),
    Check("listener", listener, needs=("database",), limit_s=RENEWED_S + 10),
    Check("machines", machines, needs=("database",)),
    Check("lanes", lanes, needs=("database",), limit_s=LOOK_AGAIN_S + 10),
)
