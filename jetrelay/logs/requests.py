"""The id of a request: in its answer, and in every line that is logged meanwhile. A line for each request, if that is wanted."""

import logging
import re
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from structlog.contextvars import bound_contextvars

from jetrelay.logs import masking
from subscriptions.ids import new_id, to_public

Answer = Callable[[HttpRequest], HttpResponseBase]
Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]

logger = logging.getLogger("jetrelay.requests")

# An id that somebody in front of us has given: a proxy's, or a client's. Whatever else it may hold does not get into a log.
_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
HEADER = "X-Request-Id"
# In a request's environ: a list for what Django makes of it, from whoever lets go of that when it is answered. No header can be called so.
SERVED = "jetrelay.served"


def request_id(given: str | None) -> str:
    """The id to go by: the one that came with the request, if it is one, else a new one."""
    if given and _GIVEN.match(given) and masking.text(given) == given:
        return given
    return to_public("req", new_id())


def identified(get_response: Answer) -> Answer:
    """Middleware."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        id = request_id(request.META.get("HTTP_X_REQUEST_ID"))
        request.request_id = id  # type: ignore[attr-defined]
        if SERVED in request.META:
            request.META[SERVED].append(request)
        with bound_contextvars(request_id=id):
            response = get_response(request)
        response[HEADER] = id
        return response

    return middleware


def logged(site: Wsgi) -> Wsgi:
    """The same application, with a line for each request: without its query, which may hold anything, and without its body."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        began = perf_counter()
        said: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            said.update(status=int(status[:3]), request_id=next((value for name, value in headers if name.lower() == "x-request-id"), ""))
            return start_response(status, headers, *more)

        try:
            return site(environ, start)
        finally:
            path = masking.text(environ.get("PATH_INFO", "")[:500])
            extra = {"method": environ.get("REQUEST_METHOD", ""), "path": path, "status": 500, **said, "duration_ms": round((perf_counter() - began) * 1e3, 1)}
            logger.info("request", extra=extra)

    return application
