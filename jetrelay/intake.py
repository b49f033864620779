"""Bodies are taken in before anybody works on their requests.

A client that sends half of a body, and then nothing, keeps one of the web server's many threads waiting instead of one of the few
that work. Of those many, some are kept free of bodies: pages and `/health` answer however many clients dawdle. The server
knows no deadline for a body, so where strangers can reach Jetrelay a proxy that buffers requests belongs in front of it.
"""

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from io import BytesIO
from threading import BoundedSemaphore
from typing import Any

from jetrelay import places
from jetrelay.api import problems
from jetrelay.safety import HEADER_LINES
from subscriptions.ids import new_id, to_public

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

# How many of the server's threads may wait for bodies.
READERS = places.BODIES
# A body that has arrived is read in no time: whoever waits so long for leave to read one waits behind those that dawdle.
_PATIENCE_S = 1.0


class TakenIn:
    """The same application, given bodies that are here. `readers`: so many are waited for at once; `most`: bytes that are read ahead.

    A longer body is left for the application to refuse unread, which for all but the API this does itself.
    """

    def __init__(self, application: Wsgi, readers: int, most: int) -> None:
        self._application, self._most = application, most
        self._free = BoundedSemaphore(readers)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = _length(environ)
        of_api = environ.get("PATH_INFO", "").startswith("/api/")
        if length > self._most and not of_api:
            return _refuse(start_response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request's body is larger than {self._most:,} bytes.")
        if 0 < length <= self._most:
            if not self._free.acquire(timeout=_PATIENCE_S):
                refuse = _refuse_api if of_api else _refuse
                return refuse(start_response, HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are waiting for their bodies: try again soon.")
            try:
                body = environ["wsgi.input"].read(length)
            finally:
                self._free.release()
            environ["wsgi.input"] = BytesIO(body)
        return self._application(environ, start_response)


def _length(environ: dict[str, Any]) -> int:
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _refuse(start_response: Any, status: HTTPStatus, words: str) -> Iterable[bytes]:
    start_response(f"{status.value} {_PHRASES.get(status, status.phrase)}", [("Content-Type", "text/plain; charset=utf-8"), *_HEADERS])
    return [f"{words}\n".encode()]


def _refuse_api(start_response: Any, status: HTTPStatus, words: str) -> Iterable[bytes]:
    """As everything is refused there."""
    id = to_public("req", new_id())
    document = problems.document(problems.Problem(status, "busy", words), id)
    start_response(f"{status.value} {status.phrase}", [("Content-Type", problems.MEDIA_TYPE), ("X-Request-Id", id), *_HEADERS])
    return [json.dumps(document, separators=(",", ":")).encode()]


_HEADERS = [("Cache-Control", "no-store"), ("Retry-After", "5"), ("Connection", "close"), *HEADER_LINES]
# RFC 9110's name for it, which Python has from 3.13 on.
_PHRASES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large"}
