"""What a request gets that no view has seen: because it asks for another site, or because nobody can read it."""

from http import HTTPStatus

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.template import loader

from jetrelay.api import problems

_UNREADABLE = "Jetrelay cannot read this request: it is malformed, or larger than any that its pages send."
_NO_NAME = "This request's Host header is no name of a host. If there is a proxy in front of Jetrelay, let it pass on the one that it was given."
_UNKNOWN_NAME = (
    "Jetrelay was asked for as {name}, and does not know itself by that name. If you run it: set JETRELAY_PUBLIC_URL to the address that people use,"
    " or add {name} to JETRELAY_ALLOWED_HOSTS, and start it again."
)


def refuse(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for what it calls suspicious. Nothing is logged: anyone may send such requests, as often as they like."""
    code, why = _unknown_host(request) if isinstance(exception, DisallowedHost) else ("bad_request", _UNREADABLE)
    if problems.are_wanted(request):
        response = problems.answer(request, problems.Problem(HTTPStatus.BAD_REQUEST, code, why))
    else:
        response = HttpResponse(loader.render_to_string("400.html", {"why": why}), status=HTTPStatus.BAD_REQUEST)
    response.headers["Cache-Control"] = "no-store"
    return response


def _unknown_host(request: HttpRequest) -> tuple[str, str]:
    # As ALLOWED_HOSTS has it: without the port, and empty where it is no name.
    name, _ = split_domain_port(request.META.get("HTTP_HOST", ""))
    return "unknown_host", _UNKNOWN_NAME.format(name=name) if name else _NO_NAME
