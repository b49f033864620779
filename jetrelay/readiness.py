"""`GET /health/ready`: whether Jetrelay does its work, part by part. For people, for deployments, and for alerts.

`/health` says whether this process can answer; a supervisor may restart it for that. What is said here is about the whole
installation: restarting the web server would mend none of it.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import redis
from django.conf import settings
from django.db import Error, connection
from django.db.models import Max
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from delivery import leases
from delivery.lanes import lanes_due
from delivery.leases import lane_lease, listener_lease
from delivery.models import Lease, StreamHost
from jetrelay import away, horizon, writable
from jetrelay.metrics import owed
from subscriptions import versions
from subscriptions.models import Subscription

log = logging.getLogger(__name__)

# Requests within this share one look.
SHARED_S = 1.0
# A broker that takes longer to say that it is there is no help to anybody.
BROKER_TIMEOUT_S = 1.0
# A standby takes over within 7 s of a crash: that is no trouble yet.
LISTENER_GRACE = timedelta(seconds=15)
# A listener renews its lease every two seconds and looks at its hosts each second; whatever the dates say, one that does not is none.
STANDSTILL_S = 30.0


class Problem(NamedTuple):
    """What is wrong, and what to do about it. Anyone may ask, so there are no addresses in it: those are in the log."""

    problem: str
    do: str


class Note(NamedTuple):
    """What somebody should know, although everything works."""

    note: str


Part = Callable[[], Problem | Note | None]


class Standstill:
    """For how long something has been as it is, by this process's own clock: dates that others wrote may be wrong."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, float]] = {}

    def seconds(self, name: str, value: object) -> float:
        known = self._seen.get(name)
        if known is None or known[0] != value:
            known = self._seen[name] = value, monotonic()
        return monotonic() - known[1]

    def forget(self) -> None:
        self._seen.clear()


_standstill = Standstill()


def database() -> Problem | Note | None:
    try:
        writable.try_database(connection)
    except (Error, OSError) as error:
        if not (refusal := away.refusal(error)):
            raise
        log.warning("ready: the database takes no writes: %s", str(error).strip())
        return Problem(f"takes no writes: {refusal[0]}", refusal[1])
    found = horizon.holders()
    return Note(f"nothing that was settled since can be cleaned up: {found[0].kind}. Run: python manage.py doctor") if found else None


def migrations() -> Problem | None:
    missing, unknown = versions.gap()
    if missing:
        named = ", ".join(missing[:3])
        return Problem(f"{len(missing)} not applied: {named}{', …' if len(missing) > 3 else ''}", "Run: python manage.py migrate")
    if unknown and not settings.JETRELAY_ACCEPT_NEWER_DATABASE:
        named = ", ".join(unknown[:3])
        return Problem(f"a newer version has applied {named}{', …' if len(unknown) > 3 else ''}", "Start that version, or restore the backup from before it.")
    return None


def broker() -> Problem | None:
    try:
        if settings.CELERY_BROKER_URL.startswith("redis"):
            _try(settings.CELERY_BROKER_URL)
        else:
            for name in ("data_folder_out", "processed_folder"):
                writable.try_folder(Path(str(settings.CELERY_BROKER_TRANSPORT_OPTIONS[name])))
    except redis.RedisError as error:
        log.warning("ready: the broker: %s", error)
        if writable.is_refusal(error):
            what, do = writable.why_redis(error)
            return Problem(f"takes no writes: {what}", f"{do} {_MEANWHILE}")
        return Problem("does not answer", f"Check BROKER_URL and whether Redis runs. {_MEANWHILE}")
    except OSError as error:
        log.warning("ready: the broker's folder: %s", error)
        return Problem(f"its folder cannot be written to: {error.strerror}", f"Mend the broker's folder in JETRELAY_DATA_DIR, or make room. {_MEANWHILE}")
    return None


def listener() -> Problem | None:
    for source in Subscription.objects.streams():
        name = listener_lease(source.pk)
        near = Now() + timedelta(seconds=leases.LONGEST_S)
        lease = Lease.objects.filter(name=name, expires_at__gt=Now() - LISTENER_GRACE, expires_at__lte=near).first()
        if lease is None:
            return Problem("no listener reads the stream", "Start one: manage.py run_jetstream (manage.py up does). It goes on where the last one stopped.")
        seen_at = StreamHost.objects.filter(source=source).aggregate(seen_at=Max("seen_at"))["seen_at"]
        still_s = max(_standstill.seconds(name, lease.expires_at), _standstill.seconds(f"{name} seen", seen_at) if seen_at else 0.0)
        if still_s > STANDSTILL_S:
            return Problem(f"the listener has given no sign of life for {still_s:,.0f} s", "Look at its log, and start it again: manage.py run_jetstream.")
    return None


def deliveries() -> Problem | None:
    if blocked := _blocked_lanes():
        named = ", ".join(map(str, blocked))
        return Problem(
            f"work is due in lane{'s'[: len(blocked) != 1]} {named}, and a lease that a wrong clock has dated keeps others away",
            "A worker cuts such a lease to its term as soon as it looks: start one, or look at its log.",
        )
    now, most_s = timezone.now(), settings.JETRELAY_READY_MAX_LAG_S
    oldest = owed.oldest_prompt(now)
    still_s = _standstill.seconds("oldest", oldest)
    late_s = max((now - oldest.due_at).total_seconds(), still_s) if oldest else 0.0
    if late_s <= most_s:
        return None
    return Problem(
        f"the oldest has been due for {late_s:,.0f} s, and {most_s:,} s is the bound (JETRELAY_READY_MAX_LAG_S)",
        "Start workers, or more of them: celery -A jetrelay worker -P threads -Q lanes,default. The overview shows the backlog.",
    )


def _blocked_lanes() -> list[int]:
    misdated = set(leases.misdated().values_list("name", flat=True))
    # What is due is asked only where something is wrong: it costs more.
    return sorted(lane for lane in lanes_due() if lane_lease(lane) in misdated) if misdated else []


# In the order in which they are told. All but the broker need the database.
PARTS: dict[str, Part] = {"database": database, "broker": broker, "migrations": migrations, "listener": listener, "deliveries": deliveries}
_MEANWHILE = "Deliveries go on meanwhile: workers look for due work by themselves."
_DATABASE = Problem("does not answer", "Check DATABASE_URL and whether the database runs.")
_UNKNOWN = Problem("cannot be told: the database does not answer, or has not been migrated", "Mend the database and the migrations first.")


def look() -> dict[str, Problem | Note | None]:
    """Each part and its problem, if it has one."""
    return {name: _asked(name, part) for name, part in PARTS.items()}


class _Shared:
    """One look for all who ask within a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Problem | Note | None] = {}
        self._looked_at = float("-inf")

    def look(self) -> dict[str, Problem | Note | None]:
        with self._lock:
            if monotonic() - self._looked_at >= SHARED_S:
                self._found = look()
                self._looked_at = monotonic()
            return self._found

    def forget(self) -> None:
        self._looked_at = float("-inf")
        _standstill.forget()


shared = _Shared()


@require_safe
@never_cache
def ready(request: HttpRequest) -> JsonResponse:
    found = shared.look()
    well = not any(isinstance(said, Problem) for said in found.values())
    parts = {name: {"status": "problem" if isinstance(said, Problem) else "ok", **(said._asdict() if said else {})} for name, said in found.items()}
    return JsonResponse({"status": "ok" if well else "unavailable", "version": settings.VERSION, "parts": parts}, status=200 if well else 503)


def _asked(name: str, part: Part) -> Problem | Note | None:
    try:
        return part()
    except Error as error:
        log.warning("ready: %s: %s", name, error)
        return _DATABASE if name == "database" else _UNKNOWN


def _try(url: str) -> None:
    # A connection of its own: one from a pool may have been there before the broker went away.
    client = redis.Redis.from_url(url, socket_connect_timeout=BROKER_TIMEOUT_S, socket_timeout=BROKER_TIMEOUT_S)
    try:
        writable.try_redis(client)
    finally:
        client.close()
