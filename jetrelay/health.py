"""`GET /health`: whether this process can do its work. For load balancers and supervisors, so it needs no sign-in.

Who asks waits for no database: one thread looks, at most once a second and only while somebody asks. Whatever tenants do to the others, and
whether or not the database answers, `/health` does.
"""

import logging
import threading
from time import monotonic

from django.conf import settings
from django.db import Error, close_old_connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from subscriptions.models import ConfigVersion

log = logging.getLogger(__name__)

# In a request's environ, what the watch has found. No header can be called so.
FOUND = "jetrelay.health"
# A look is good for so long; a new one is waited for so long, by so many at once. A database that has said nothing for so long is away.
GOOD_S = 1.0
WAIT_S = 0.5
WAITING = 8
SILENT_S = 5.0


@require_safe
@never_cache
def health(request: HttpRequest) -> JsonResponse:
    problems = request.META[FOUND] if FOUND in request.META else _problems()
    if problems:
        return JsonResponse({"status": "unavailable", "version": settings.VERSION, "problems": problems}, status=503)
    return JsonResponse({"status": "ok", "version": settings.VERSION})


def _problems() -> dict[str, str]:
    """What does not work, by part. Details go to the log, since anyone may ask."""
    try:
        # Reads a table, so that a database without migrations does not pass for a working one.
        ConfigVersion.current()
    except Error as error:
        log.warning("health: the database does not answer: %s", error)
        return {"database": "does not answer, or has not been migrated"}
    return {}


class Watch:
    """Looks on a thread of its own, with a connection of its own, and tells everybody what it found."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._found_at = float("-inf")
        self._asked_at = 0.0
        self._looks = False
        self._changed = threading.Condition()
        self._wanted = threading.Event()
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._thread: threading.Thread | None = None

    def problems(self) -> dict[str, str]:
        """What does not work, by part, as it was found within the last second; or that the database says nothing."""
        with self._changed:
            if monotonic() - self._found_at <= GOOD_S:
                return self._found
            self._ask()
            began = self._asked_at
        if self._waiting.acquire(blocking=False):
            try:
                with self._changed:
                    self._changed.wait_for(lambda: self._found_at >= began, WAIT_S)
            finally:
                self._waiting.release()
        with self._changed:
            silent_s = monotonic() - self._asked_at if self._looks else 0.0
            never = self._found_at == float("-inf")
            return {"database": "has not answered yet"} if never or silent_s > SILENT_S else self._found

    def _ask(self) -> None:
        if self._looks:
            return
        if self._thread is None:
            # Here and not before: a process that forks has none of its parent's threads. Where the
            # system has no more of them this raises, and the next one who asks tries again.
            thread = threading.Thread(target=self._run, name="health", daemon=True)
            thread.start()
            self._thread = thread
        self._looks, self._asked_at = True, monotonic()
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                close_old_connections()
                found = _problems()
            except Exception:
                # Whatever it was, the next look is taken, and whoever asks hears of it.
                log.exception("health: looking at the database failed")
                found = {"database": "could not be looked at; the log has the reason"}
            with self._changed:
                self._found, self._found_at, self._looks = found, monotonic(), False
                self._changed.notify_all()


watch = Watch()
