"""Who asks, before anybody has worked on the request: it decides whose share of threads and memory is used.

What a request says of itself is believed only as far as it was found to be true a moment ago: the tenant of a key that opened the API,
the people of a tenant whose session was verified. A key that was made up, or a cookie that opens nothing, is its address's, so nobody gets
a share by inventing somebody. Nothing is decided here but whose share it is: what a key opens is looked up as ever.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from jetrelay import forwarded, proxies
from jetrelay.dashboard.access import Access
from jetrelay.shares import Asker

Answer = Callable[[HttpRequest], HttpResponseBase]
Environ = dict[str, Any]

# What a key or a session was found to be is believed for so long after it was last seen to be true, and of so many of them.
BELIEVED_S = 600.0
MOST = 20_000
# In a request's environ. No header can be called so.
NAME = "jetrelay.asker"


class Known:
    """Who holds a key or a session, by its digest. Beyond the most, what was not seen for longest is forgotten."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._askers: OrderedDict[bytes, tuple[float, Asker]] = OrderedDict()
        self._lock = threading.Lock()

    def learn(self, secret: str, asker: Asker) -> None:
        digest = _digest(secret)
        with self._lock:
            self._askers[digest] = monotonic(), asker
            self._askers.move_to_end(digest)
            if len(self._askers) > self._most:
                self._askers.popitem(last=False)

    def forget(self, secret: str) -> None:
        with self._lock:
            self._askers.pop(_digest(secret), None)

    def find(self, secret: str) -> Asker | None:
        at, asker = self._askers.get(_digest(secret), (0.0, None))
        return asker if monotonic() - at < BELIEVED_S else None

    def clear(self) -> None:
        with self._lock:
            self._askers.clear()

    def __len__(self) -> int:
        return len(self._askers)


keys, sessions = Known(), Known()


def tenant(id: object) -> Asker:
    """The programs of a tenant: all of its keys together."""
    return Asker("tenant", str(id))


def asker_of(environ: Environ) -> Asker:
    """Whose share this request uses."""
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and (known := keys.find(text.strip())):
        return known
    # A browser's session opens no call of the API.
    session = "" if environ.get("PATH_INFO", "").startswith("/api/v1") else session_of(environ)
    if session and (known := sessions.find(session)):
        return known
    return _stranger(proxies.asker_of(environ))


def session_of(environ: Environ) -> str:
    """The session that a request shows. Ours needs no quotes: what Python makes of a quoted cookie takes the square of its backslashes."""
    start = f"{settings.SESSION_COOKIE_NAME}="
    cookies = [each.strip() for each in environ.get("HTTP_COOKIE", "").split(";") if start in each]
    # Of two with one name Django takes the last.
    return next((each.removeprefix(start) for each in reversed(cookies) if each.startswith(start)), "")


def learned(get_response: Answer) -> Answer:
    """Middleware, after authentication: whose sessions they are that were verified, for their next requests."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        session = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
        # Only where somebody has looked (Django keeps it so): a request that needs no user costs no query.
        if session and hasattr(request, "_cached_user"):
            if request.user.is_authenticated:
                found: Access | None = getattr(request, "access", None)
                known = None if found else sessions.find(session)
                sessions.learn(session, known or people(request.user, found or Access.of(request.user)))
            else:
                sessions.forget(session)
        return response

    return middleware


def people(user: Any, access: Access) -> Asker:
    """The people of a tenant are one, apart from its programs: however many members it makes, and however busy a script of theirs is.

    Those who are in the same several tenants are one too, and so are all who are in none: nobody gets a share by making accounts.
    """
    if access.sees is None:
        return Asker("user", str(user.pk))
    return Asker("people", " ".join(sorted(str(tenant.pk) for tenant in access.sees)) or "of no tenant")


def _stranger(address: str) -> Asker:
    return Asker("address", forwarded.network_of(address), stranger=True)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
