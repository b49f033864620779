"""While the database is away: a page that says so and when to come again, instead of one that says that something went wrong.

Whatever else fails is logged, and told as a failure. The API has words of its own (`jetrelay/api/problems.py`).
"""

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template import loader
from django.views import defaults

from jetrelay.api import problems
from jetrelay.away import is_away

logger = logging.getLogger(__name__)

Answer = Callable[[HttpRequest], HttpResponseBase]

# Restarts take seconds; whoever reads a page does not want to wait for longer than that.
RETRY_AFTER_S = 5


def when_database_is_away(get_response: Answer) -> Answer:
    """Middleware: an answer for each view that could not reach the database."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return get_response(request)

    def of_view(request: HttpRequest, error: Exception) -> HttpResponse | None:
        return _unavailable(request, error) if is_away(error) else None

    middleware.process_exception = of_view  # type: ignore[attr-defined] # where Django looks for it
    return middleware


def went_wrong(request: HttpRequest) -> HttpResponseBase:
    """Django's handler for whatever no view has caught: other middleware, and error pages that ask who is signed in."""
    error = sys.exception()
    return _unavailable(request, error) if is_away(error) else defaults.server_error(request)


def _unavailable(request: HttpRequest, error: BaseException | None) -> HttpResponse:
    logger.warning("%s could not be answered, because the database does not answer: %s", request.method, str(error).strip())
    if problems.are_wanted(request):
        problem = problems.Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The database does not answer: try again.")
        response = problems.answer(request, problem)
    else:
        # Without the request: no context processor may ask the database who this is.
        page = loader.render_to_string("503.html", {"retry_after_s": RETRY_AFTER_S})
        response = HttpResponse(page, status=HTTPStatus.SERVICE_UNAVAILABLE)
    # One line is enough, and Django's would name the path, which of an inbox is its secret.
    response._has_been_logged = True  # type: ignore[attr-defined]
    response.headers["Retry-After"], response.headers["Cache-Control"] = str(RETRY_AFTER_S), "no-store"
    return response
