"""What is told where no view can answer: the database is away or takes no writes, the request is for another site or unreadable, or something failed.

While the database is away a page says so and when to come again, instead of one that says that something went wrong.
Whatever else fails is logged, and told as a failure. The API's views have words of their own (`jetrelay/api/problems.py`).
"""

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus

from django.core.exceptions import DisallowedHost
from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.request import split_domain_port
from django.template import loader
from django.views import defaults

from jetrelay.api import problems
from jetrelay.away import is_away, is_held, refusal, took_too_long

logger = logging.getLogger(__name__)

Answer = Callable[[HttpRequest], HttpResponseBase]

# Restarts take seconds; whoever reads a page does not want to wait for longer than that.
RETRY_AFTER_S = 5

_UNREADABLE = "Jetrelay cannot read this request: it is malformed, or larger than any that its pages send."
_NO_NAME = "This request's Host header is no name of a host. If there is a proxy in front of Jetrelay, let it pass on the one that it was given."
_UNKNOWN_NAME = (
    "Jetrelay was asked for as {name}, and does not know itself by that name. If you run it: set JETRELAY_PUBLIC_URL to the address that people use,"
    " or add {name} to JETRELAY_ALLOWED_HOSTS, and start it again."
)


def when_database_is_away(get_response: Answer) -> Answer:
    """Middleware: an answer for each view that could not reach the database."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return get_response(request)

    def of_view(request: HttpRequest, error: Exception) -> HttpResponse | None:
        return _unavailable(request, error) if _is_database(error) else None

    middleware.process_exception = of_view  # type: ignore[attr-defined] # where Django looks for it
    return middleware


def went_wrong(request: HttpRequest) -> HttpResponseBase:
    """Django's handler for whatever no view has caught: other middleware, and error pages that ask who is signed in."""
    error = sys.exception()
    return _unavailable(request, error) if _is_database(error) else defaults.server_error(request)


def _is_database(error: BaseException | None) -> bool:
    """Whether the database is away or takes no writes, took too long, or somebody else held what was to be changed."""
    return isinstance(error, Error) and (is_away(error) or took_too_long(error) or is_held(error) or refusal(error) is not None)


def refused(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for what it calls suspicious."""
    code, why = _unknown_host(request) if isinstance(exception, DisallowedHost) else ("bad_request", _UNREADABLE)
    return _told(request, problems.Problem(HTTPStatus.BAD_REQUEST, code, why), {"why": why})


def _unknown_host(request: HttpRequest) -> tuple[str, str]:
    # As ALLOWED_HOSTS has it: without the port, and empty where it is no name.
    name, _ = split_domain_port(request.META.get("HTTP_HOST", ""))
    return "unknown_host", _UNKNOWN_NAME.format(name=name) if name else _NO_NAME


def _unavailable(request: HttpRequest, error: BaseException | None) -> HttpResponse:
    what = "takes no writes" if refusal(error) else "does not answer"
    if took_too_long(error):
        code, told, why = "took_too_long", problems.TOO_LONG, "the database took too long"
    elif is_held(error):
        code, told, why = "held", problems.HELD, "somebody else held what it was to change"
    else:
        code, told, why = "unavailable", f"The database {what}: try again.", f"the database {what}"
    logger.warning("%s could not be answered, because %s: %s", request.method, why, str(error).strip())
    problem = problems.Problem(HTTPStatus.SERVICE_UNAVAILABLE, code, told)
    response = _told(request, problem, {"retry_after_s": RETRY_AFTER_S, "what": what, "why": "" if code == "unavailable" else told})
    # One line is enough, and Django's would name the path, which of an inbox is its secret.
    response._has_been_logged = True  # type: ignore[attr-defined]
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _told(request: HttpRequest, problem: problems.Problem, words: dict[str, object]) -> HttpResponse:
    """The problem to a client of the API, and the page of its status, with these words, to everybody else."""
    if request.path.startswith("/api/v1"):
        response = problems.answer(request, problem)
    else:
        # Without the request: no context processor may ask the database who this is.
        response = HttpResponse(loader.render_to_string(f"{problem.status_code}.html", words), status=problem.status_code)
    response.headers["Cache-Control"] = "no-store"
    return response
