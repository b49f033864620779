"""`GET /health`: whether this process can do its work. For load balancers and supervisors, so it needs no sign-in."""

import logging

from django.conf import settings
from django.db import Error
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from subscriptions.models import ConfigVersion

log = logging.getLogger(__name__)


@require_safe
@never_cache
def health(request: HttpRequest) -> JsonResponse:
    problems = _problems()
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
