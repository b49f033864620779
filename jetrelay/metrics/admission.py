"""Who may read `/metrics`: whoever has the token, and whoever asks from a network that the operator has named.

Prometheus calls a container by its name, so requests come with a Host that the site does not know. That is no matter where the token
is shown. Without it, a page in somebody's browser might have its own name point to this machine, which is what the check of Host is
against: so only names without a dot, and addresses, pass for one of ours; no stranger can have a browser ask for those.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.crypto import constant_time_compare

from jetrelay.proxies import is_in

Answer = Callable[[HttpRequest], HttpResponseBase]

METRICS = "/metrics"
# Tell everybody the same, and nothing of the name that they were asked by.
HEALTH = ("/health", "/health/ready")

_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<four>[0-9.]+)|(?P<plain>[a-z0-9_-]+))(?::[0-9]+)?", re.IGNORECASE)

_NOT_ALLOWED = """Metrics are not for everybody, and this request came from {asker}. One of these lets it in:

JETRELAY_METRICS_TOKEN: set it, and send "Authorization: Bearer" with the same token.
JETRELAY_METRICS_NETWORKS: name the network that Prometheus asks from, such as 10.0.0.0/8. It is: {networks}
"""
_PROXIED = "The request came through a proxy, and JETRELAY_TRUSTED_PROXIES names none: its address says nothing about who asks.\n"
_WRONG_TOKEN = "The token is not the one in JETRELAY_METRICS_TOKEN.\n"  # noqa: S105 - a message


def by_any_name(get_response: Answer) -> Answer:
    """Middleware: what programs ask for inside of a network is answered whatever name they know us by."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path in HEALTH or (request.path == METRICS and (has_token(request) or _is_inside(request.META.get("HTTP_HOST", "")))):
            request.META["HTTP_HOST"] = "localhost"
        return get_response(request)

    return middleware


def refusal(request: HttpRequest) -> HttpResponse | None:
    """The answer to who may not read; None to who may."""
    if has_token(request) or (not _is_proxied(request) and is_in(request.META.get("REMOTE_ADDR", ""), tuple(settings.JETRELAY_METRICS_NETWORKS))):
        return None
    if settings.JETRELAY_METRICS_TOKEN and request.headers.get("Authorization"):
        return _refused(401, _WRONG_TOKEN)
    networks = ", ".join(map(str, settings.JETRELAY_METRICS_NETWORKS))
    text = _NOT_ALLOWED.format(asker=request.META.get("REMOTE_ADDR") or "an unknown address", networks=networks)
    return _refused(401 if settings.JETRELAY_METRICS_TOKEN else 403, text + (_PROXIED if _is_proxied(request) else ""))


def has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    expected = settings.JETRELAY_METRICS_TOKEN
    return bool(expected) and scheme.lower() == "bearer" and constant_time_compare(token.strip(), expected)


def _is_proxied(request: HttpRequest) -> bool:
    """Whether the address is that of a proxy that nobody has named: on the same machine it would be let in for everybody."""
    return not settings.JETRELAY_TRUSTED_PROXIES and any(name in request.headers for name in ("X-Forwarded-For", "Forwarded"))


def _is_inside(host: str) -> bool:
    """Whether a Host header is an address, or a name without a dot."""
    found = _HOST.fullmatch(host)
    if not found:
        return False
    if found["plain"]:
        return True
    try:
        ip_address(found["six"] or found["four"])
    except ValueError:
        return False
    return True


def _refused(status: int, text: str) -> HttpResponse:
    response = HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
    if status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="metrics"'
    return response
