"""`GET /health/ready`: whether Jetrelay does its work, part by part. For people, for deployments, and for alerts.

`/health` says whether this process can answer; a supervisor may restart it for that. What is said here is about the whole
installation: restarting the web server would mend none of it.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import redis
from django.conf import settings
from django.db import Error, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from delivery.leases import listener_lease
from delivery.models import Lease
from jetrelay import horizon
from jetrelay.metrics import owed
from subscriptions.models import Subscription

log = logging.getLogger(__name__)

# Requests within this share one look.
SHARED_S = 1.0
# A broker that takes longer to say that it is there is no help to anybody.
BROKER_TIMEOUT_S = 1.0
# A standby takes over within 7 s of a crash: that is no trouble yet.
LISTENER_GRACE = timedelta(seconds=15)


class Problem(NamedTuple):
    """What is wrong, and what to do about it. Anyone may ask, so there are no addresses in it: those are in the log."""

    problem: str
    do: str


class Note(NamedTuple):
    """What somebody should know, although everything works."""

    note: str


Part = Callable[[], Problem | Note | None]


def database() -> Note | None:
    found = horizon.holders()
    return Note(f"nothing that was settled since can be cleaned up: {found[0].kind}. Run: python manage.py doctor") if found else None


def migrations() -> Problem | None:
    missing = sorted(_known() - MigrationRecorder(connection).applied_migrations().keys())
    if not missing:
        return None
    named = ", ".join(f"{app}.{name}" for app, name in missing[:3])
    return Problem(f"{len(missing)} not applied: {named}{', …' if len(missing) > 3 else ''}", "Run: python manage.py migrate")


def broker() -> Problem | None:
    try:
        if settings.CELERY_BROKER_URL.startswith("redis"):
            _ping(settings.CELERY_BROKER_URL)
        else:
            _write(settings.CELERY_BROKER_TRANSPORT_OPTIONS)
    except (redis.RedisError, OSError) as error:
        log.warning("ready: the broker does not answer: %s", error)
        return Problem("does not answer", "Check BROKER_URL and whether Redis runs. Deliveries go on meanwhile: workers look for due work by themselves.")
    return None


def listener() -> Problem | None:
    for source in Subscription.objects.streams():
        if not Lease.objects.filter(name=listener_lease(source.pk), expires_at__gt=Now() - LISTENER_GRACE).exists():
            return Problem("no listener reads the stream", "Start one: manage.py run_jetstream (manage.py up does). It goes on where the last one stopped.")
    return None


def deliveries() -> Problem | None:
    now, most_s = timezone.now(), settings.JETRELAY_READY_MAX_LAG_S
    oldest = owed.oldest_prompt(now)
    late_s = (now - oldest.due_at).total_seconds() if oldest else 0.0
    if late_s <= most_s:
        return None
    return Problem(
        f"the oldest has been due for {late_s:,.0f} s, and {most_s:,} s is the bound (JETRELAY_READY_MAX_LAG_S)",
        "Start workers, or more of them: celery -A jetrelay worker -P threads -Q lanes,default. The overview shows the backlog.",
    )


# In the order in which they are told. All but the broker need the database.
PARTS: dict[str, Part] = {"database": database, "broker": broker, "migrations": migrations, "listener": listener, "deliveries": deliveries}
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


@cache
def _known() -> frozenset[tuple[str, str]]:
    """The migrations of this version. They do not change while it runs."""
    found: Iterable[tuple[str, str]] = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    return frozenset(found)


def _ping(url: str) -> None:
    # A connection of its own: one from a pool may have been there before the broker went away.
    client = redis.Redis.from_url(url, socket_connect_timeout=BROKER_TIMEOUT_S, socket_timeout=BROKER_TIMEOUT_S)
    try:
        client.ping()
    finally:
        client.close()


def _write(options: dict[str, object]) -> None:
    """Put a file where messages go and take it away. Its name is no message's: see `jetrelay/filebroker.py`."""
    for folder in (options["data_folder_out"], options["processed_folder"]):
        path = Path(str(folder), f".{uuid.uuid4().hex}.ping")
        path.touch()
        path.unlink()
