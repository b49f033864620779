"""The head of a request as WSGI's environ: exactly what the request said, and nothing else.

WSGI writes `X-Forwarded-For` and `X_Forwarded_For` alike, so that of two headers the later one
would count. Lines whose name has an underscore are left out here, before anything is decided (nginx
and Apache do the same). What may be said once is refused when it is said twice; what may be a list
is joined in its order. The process's own environment, which holds passwords, is not among it.
"""

import sys
from typing import Any
from urllib.parse import quote

Environ = dict[str, Any]

# Two of these would leave it to chance which one counts.
_ONCE = frozenset(
    (
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "origin",
        "referer",
        "transfer-encoding",
        "x-csrftoken",
        "x-request-id",
    )
)
# A value that is not ASCII is not handed over by the server: what decides something must not go
# missing.
_DECISIVE = _ONCE | {
    "content-encoding",
    "cookie",
    "forwarded",
    "if-match",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
}
_LEFT_OUT = ""
_IN_QUERIES = "%/?:@!$&'()*+,;=~"
# Clients may make up names: so many are remembered.
_MAX_NAMES = 500

_BASE: Environ = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "wsgi.errors": sys.stderr,
    "wsgi.multiprocess": False,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}
_names: dict[str, str] = {}


class BadHead(Exception):
    """Why this request cannot be taken, in words for whoever sent it."""


def environ_of(scope: Any) -> Environ:
    """The environ of this request, without its body. Raises BadHead."""
    environ = _BASE.copy()
    headers, seen = scope.headers, 0
    for name, value in headers.items():
        key = _names.get(name)
        if key is None:
            key = _remembered(name)
        if key is _LEFT_OUT:
            continue
        if key in environ:
            if name in _ONCE:
                raise BadHead(f"The header {name} was sent twice: send it once.")
            environ[key] = f"{environ[key]}{'; ' if name == 'cookie' else ','}{value}"
        else:
            environ[key] = value
            seen += 1
    if len(names := headers.keys()) != seen:
        _check_unreadable(names, environ)
    authority = scope.authority
    if authority is not None and authority != environ.get("HTTP_HOST", authority):
        raise BadHead("The address of the request names one host, and its Host header another.")
    environ.setdefault("HTTP_HOST", authority or "")
    # The server has decoded it already; bytes that were no UTF-8 came as U+FFFD.
    path = scope.path
    environ["PATH_INFO"] = path if path.isascii() else path.encode().decode("latin-1")
    environ["REQUEST_METHOD"] = scope.method
    query = scope.query_string
    environ["QUERY_STRING"] = query if query.isascii() else quote(query, safe=_IN_QUERIES)
    environ["SERVER_NAME"], _, environ["SERVER_PORT"] = scope.server.rpartition(":")
    environ["REMOTE_ADDR"] = address_of(scope.client)
    version = scope.http_version
    environ["SERVER_PROTOCOL"] = "HTTP/1.0" if version == "1" else f"HTTP/{version}"
    environ["wsgi.url_scheme"] = scope.scheme
    return environ


def address_of(client: str) -> str:
    """The address in `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    return client.rpartition(":")[0].strip("[]")


def _remembered(name: str) -> str:
    if "_" in name:
        key = _LEFT_OUT
    elif name in ("content-type", "content-length"):
        key = name.upper().replace("-", "_")
    else:
        key = f"HTTP_{name.upper().replace('-', '_')}"
    if len(_names) < _MAX_NAMES:
        _names[name] = key
    return key


def _check_unreadable(names: list[str], environ: Environ) -> None:
    for name in names:
        if name in _DECISIVE and _remembered(name) not in environ:
            raise BadHead(f"The header {name} has characters that are not ASCII: leave them out.")
