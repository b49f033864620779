"""Errors as `application/problem+json` (RFC 9457): what is wrong, where, and what to change."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.ingest import NotStored
from jetrelay.away import is_held, is_passing, refusal, took_too_long
from subscriptions.allowance import CODE, Exceeded

logger = logging.getLogger(__name__)

# Where the database was told to stop, or somebody else is at work on the same rows. Nothing was changed.
TOO_LONG = (
    "The database took longer for this than it may for one request, and was told to stop: ask for less, such as a shorter time or one endpoint, or try again."
)
HELD = "Somebody else is changing the same at this moment, and this did not wait for longer: nothing was changed, try again."

MEDIA_TYPE = "application/problem+json"
# Of what is wrong so much is told: a body can hold a million mistakes, and nobody reads more than the first of them.
MOST_ERRORS = 50
# Characters of one pointer, which quotes the client's own names, and of one explanation.
_LONGEST_POINTER, _LONGEST_DETAIL = 300, 1000


class Problem(exceptions.APIException):
    """An error as the client sees it. `errors` are (JSON pointer, detail), of which the first MOST_ERRORS are told."""

    def __init__(self, status: int, code: str, detail: str, errors: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, code)
        self.status_code, self.code, self.errors, self.headers = status, code, list(errors), dict(headers or {})


def invalid(*errors: tuple[str, str]) -> Problem:
    """A body that can be read and not be used: (JSON pointer, what to change)."""
    return Problem(422, "invalid", _sum(errors), errors)


def over_quota(error: Exceeded) -> Problem:
    """409 where somebody has to do something first; 429 where it is enough to wait."""
    headers = {"Retry-After": str(error.wait_s)} if error.wait_s else None
    return Problem(429 if error.wait_s else 409, CODE, " ".join(error.messages), headers=headers)


def bad_query(name: str, detail: str) -> Problem:
    return Problem(400, "invalid_query", f"Query parameter {name}: {detail}")


def not_found(what: str = "There is nothing here.") -> Problem:
    return Problem(404, "not_found", what)


def respond(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: every error of the API has this form, whoever raised it."""
    request: Request = context["request"]
    problem = of(error)
    if problem.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("The API failed on %s %s (request %s)", request.method, request.path, request_id(request), exc_info=error)
    return Response(document(problem, request_id(request)), problem.status_code, headers=problem.headers, content_type=MEDIA_TYPE)


def document(problem: Problem, request_id: str) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "code": problem.code,
        "detail": _cut(str(problem.detail), _LONGEST_DETAIL + _LONGEST_POINTER),
        "errors": told(problem.errors),
        "request_id": request_id,
    }


def told(errors: Sequence[tuple[str, str]], most: int = MOST_ERRORS) -> list[dict[str, str]]:
    """The first of them, and how many more there are."""
    first = [{"pointer": _cut(pointer, _LONGEST_POINTER), "detail": _cut(detail, _LONGEST_DETAIL)} for pointer, detail in errors[:most]]
    rest = len(errors) - most
    return [*first, {"pointer": "", "detail": f"And {rest:,} more."}] if rest > 0 else first


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def answer(request: HttpRequest, problem: Problem) -> HttpResponse:
    """A problem where no view of the API can answer."""
    return JsonResponse(document(problem, request_id(request)), status=problem.status_code, headers=problem.headers, content_type=MEDIA_TYPE)


def status_line(problem: Problem) -> str:
    """As WSGI wants it."""
    return f"{problem.status_code} {HTTPStatus(problem.status_code).phrase}"


def request_id(request: Any) -> str:
    """The id of this request, made when it came in."""
    return str(getattr(getattr(request, "_request", request), "request_id", ""))


def of(error: Exception) -> Problem:
    """The problem that an error is to the client."""
    match error:
        case Problem():
            return error
        case exceptions.ValidationError():
            errors = list(_flattened(error.detail))
            return Problem(422, "invalid", _sum(errors), errors)
        case Exceeded():
            return over_quota(error)
        case DjangoValidationError():
            errors = list(_of_django(error))
            return Problem(422, "invalid", _sum(errors), errors)
        case NotStored():
            return Problem(503, "not_stored", f"{error} Send it again, with the same id: it is then stored once.", headers={"Retry-After": "1"})
        case OperationalError() if took_too_long(error):
            return Problem(503, "took_too_long", TOO_LONG, headers={"Retry-After": "5"})
        case OperationalError() if is_held(error):
            return Problem(503, "held", HELD, headers={"Retry-After": "1"})
        case OperationalError() | InterfaceError() if is_passing(error):
            return Problem(503, "unavailable", "The database does not answer: try again.", headers={"Retry-After": "1"})
        case DatabaseError() if refusal(error):
            return Problem(503, "unavailable", "The database takes no writes: try again later.", headers={"Retry-After": "5"})
        case RequestDataTooBig():
            return Problem(413, "too_large", "The body is too large.")
        case exceptions.NotAuthenticated():
            return Problem(401, "no_key", "Send a key: Authorization: Bearer jr_…", headers={"WWW-Authenticate": "Bearer"})
        case exceptions.AuthenticationFailed():
            return Problem(401, "invalid_key", str(error.detail), headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        case Http404():
            return not_found()
        case DjangoPermissionDenied():
            return Problem(403, "forbidden", "This is not allowed.")
        case exceptions.UnsupportedMediaType():
            return Problem(415, "unsupported_media_type", "Send JSON, with Content-Type: application/json.")
        case exceptions.APIException():
            headers = {"Allow": ", ".join(getattr(error, "allowed", ()))} if isinstance(error, exceptions.MethodNotAllowed) else None
            return Problem(error.status_code, str(getattr(error, "default_code", "error")), str(error.detail), headers=headers)
    return Problem(500, "internal", "Jetrelay failed on this request. The log has the reason, under the request's id.")


def _flattened(detail: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """DRF's nested errors as (JSON pointer, words)."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flattened(inner, pointer if name == "non_field_errors" else f"{pointer}/{escaped(str(name))}")
    elif isinstance(detail, list | tuple):
        for number, inner in enumerate(detail):
            # A list holds either the words for this place, or what is wrong with each item.
            yield from _flattened(inner, f"{pointer}/{number}" if isinstance(inner, Mapping | list) else pointer)
    else:
        yield pointer, str(detail)


def _of_django(error: DjangoValidationError) -> Iterator[tuple[str, str]]:
    if hasattr(error, "error_dict"):
        for name, words in error.message_dict.items():
            yield ("" if name == "__all__" else f"/{name}"), " ".join(words)
    else:
        yield "", " ".join(error.messages)


def escaped(name: str) -> str:
    """A name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _sum(errors: Sequence[tuple[str, str]]) -> str:
    if not errors:
        return "The body cannot be used."
    pointer, detail = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    pointer, detail = _cut(pointer, _LONGEST_POINTER), _cut(detail, _LONGEST_DETAIL)
    return f"{pointer}: {detail}{more}" if pointer else f"{detail}{more}"
