"""The site as a WSGI application, and its parts for `jetrelay.rsgi`, which is what is served.

`application` here is for servers that know WSGI alone. Nothing of what `jetrelay.front` does is
done for it: such a server has to bound bodies and connections by itself, and to leave out header
lines whose name has an underscore. Bodies in chunks are refused, unless it says how long they are.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application

# As `manage.py` does: what a request makes the site write is nobody else's.
os.umask(0o077)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")

_site = get_wsgi_application()

from subscriptions import versions  # noqa: E402 - what these import needs Django set up

versions.check()

from delivery import interpreter  # noqa: E402
from jetrelay import askers, busy  # noqa: E402
from jetrelay.api import problems  # noqa: E402
from jetrelay.api.express import Express  # noqa: E402
from jetrelay.api.views import IN_CHUNKS  # noqa: E402
from jetrelay.front import places  # noqa: E402
from jetrelay.front.threads import FairThreads  # noqa: E402
from jetrelay.logs import requests  # noqa: E402
from jetrelay.safety import HEADER_LINES  # noqa: E402

logger = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def on(threads: FairThreads, site: Wsgi) -> Wsgi:
    """The same application on these threads, in fair turns. What it answers is read by the caller's."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer: SimpleQueue[tuple[Iterable[bytes], BaseException | None]] = SimpleQueue()

        def by(answers: Wsgi) -> None:
            try:
                answer.put((answers(environ, start_response), None))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                answer.put(((), error))

        refuse = partial(by, busy.refuse)
        asker = environ.get(askers.NAME) or askers.asker_of(environ)
        if not threads.do(asker, partial(by, site), refuse):
            refuse()
        parts, error = answer.get()
        if error:
            raise error
        return parts

    return application


def express(threads: FairThreads) -> Wsgi:
    """The lane for posted events. What is not plain is worked on by these threads."""
    return _logged(Express(on(threads, _site)))


def _logged(site: Wsgi) -> Wsgi:
    return requests.logged(site) if settings.JETRELAY_LOG_REQUESTS else site


def for_others(site: Wsgi) -> Wsgi:
    """The same application, which does not see the process's environment.

    Some servers put it into every request, passwords included.
    """
    own = {name: value for name, value in os.environ.items() if name not in _OF_REQUESTS}
    told: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not told and environ.get("SERVER_SOFTWARE") == "Granian":
            told.append("once")
            logger.warning(_NOT_LIKE_THIS)
        return site(
            {name: value for name, value in environ.items() if own.get(name) != value},
            start_response,
        )

    return application


def with_lengths(site: Wsgi) -> Wsgi:
    """The same application, which refuses bodies in chunks.

    In WSGI a body is as long as is said, and empty where nothing is: what was sent must not pass
    for nothing. A server that takes such bodies in before it asks says how long they are.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not environ.get("HTTP_TRANSFER_ENCODING") or environ.get("CONTENT_LENGTH"):
            return site(environ, start_response)
        problem = problems.Problem(411, "length_required", IN_CHUNKS)
        headers = [("Cache-Control", "no-store"), ("Connection", "close"), *HEADER_LINES]
        if environ.get("PATH_INFO", "").startswith("/api/"):
            id = requests.request_id(environ.get("HTTP_X_REQUEST_ID"))
            body = json.dumps(problems.document(problem, id), separators=(",", ":")).encode()
            headers += [("Content-Type", problems.MEDIA_TYPE), (requests.HEADER, id)]
        else:
            body = f"{IN_CHUNKS}\n".encode()
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        start_response(problems.status_line(problem), headers)
        return [body]

    return application


_NOT_LIKE_THIS = """granian serves jetrelay.wsgi, which has no limits for strangers.
Start it with --interface rsgi jetrelay.rsgi:application, as the README says."""
_OF_REQUESTS = frozenset(
    (
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "SERVER_NAME",
        "SERVER_PORT",
    )
)

site = _logged(_site)
application = for_others(
    with_lengths(express(FairThreads(places.SITE_THREADS, places.CALLS, places.TURN_WITHIN_S, "site"))),
)
# The loop that takes requests in waits for the interpreter as those that work do.
interpreter.take_short_turns()
interpreter.collect_rarely()
# Bodies of some megabytes come and go.
interpreter.return_large_blocks()
