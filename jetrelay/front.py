"""In front of everything: whose request this is, and whether there is memory for its body, before a byte of that is read."""

from collections.abc import Callable, Iterable
from typing import Any

from jetrelay import askers, busy
from jetrelay.shares import GuardedShares

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class Front:
    """The same application. `most`: a longer body is refused further on, and never read; `body_bytes`: of all bodies together."""

    def __init__(self, application: Wsgi, body_bytes: int, most: int) -> None:
        self._application, self._most = application, most
        self._bytes = GuardedShares(body_bytes)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        asker = environ[askers.NAME] = askers.asker_of(environ)
        text = environ.get("CONTENT_LENGTH") or ""
        length = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
        if not 0 < length <= self._most:
            return self._application(environ, start_response)
        if not self._bytes.take(asker, length):
            return busy.refuse(environ, start_response, busy.BODIES)
        try:
            return self._application(environ, start_response)
        finally:
            self._bytes.give_back(asker, length)
