"""The application that granian serves.

The front takes requests in, threads that do next to nothing wait for commits, and a few work.

Who posts an event waits for the transaction that it shares with others: the more of them can wait,
the larger it is. All other requests are work, and each thread that does it holds a connection to
the database: that is done by a few threads, of which nobody has all. `/health` has a thread of its
own and asks no database, so that it answers whatever the others do.
"""

import asyncio
import contextlib
import logging
import resource
from collections.abc import Iterable
from typing import Any

from django.conf import settings

from jetrelay.wsgi import express, site  # isort: skip - it sets Django up
from jetrelay import health, patience
from jetrelay.front import places
from jetrelay.front.application import Front, Route, Wsgi
from jetrelay.front.connections import Connections
from jetrelay.front.heads import Environ
from jetrelay.front.served import FILES
from jetrelay.front.threads import FairThreads

logger = logging.getLogger(__name__)


def front(posters: int = places.POSTERS) -> Front:
    """An application of its own, whose events are posted by so many threads."""
    waiting = FairThreads(posters, max(posters, places.POSTS), places.TURN_WITHIN_S, "poster")
    working = FairThreads(places.SITE_THREADS, places.CALLS, places.TURN_WITHIN_S, "site", patience.used_s)
    posted: Route = (waiting, express(working))
    worked: Route = (working, site)
    apart: dict[str, Route] = {
        path: (FairThreads(places.VITAL_THREADS, places.VITAL_CALLS, places.TURN_WITHIN_S, path), made)
        for path, made in (("/health", probed(site)), ("/health/ready", site), ("/metrics", site))
    }

    def route(environ: Environ) -> Route:
        path = environ["PATH_INFO"]
        if path == "/api/v1/events" and environ["REQUEST_METHOD"] == "POST":
            return posted
        return apart.get(path, worked)

    # A line for each request is written by what works on it.
    return _Watched(route, working, has_lane=not settings.JETRELAY_LOG_REQUESTS)


def probed(site: Wsgi) -> Wsgi:
    """The site, told what is known of the database, so that it need not ask."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ[health.FOUND] = health.watch.problems()
        return site(environ, start_response)

    return application


class _Watched(Front):
    """With an eye on its connections, and room for them."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__rsgi_init__(loop)
        _have_room()
        # All that this process asks the database is for requests.
        patience.keeps = True
        Connections(self.active).watch()


def _have_room() -> None:
    """Raise the limit on open files: a server that may open no more stops accepting, for good."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has a limit that it does not name
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft < FILES:
        words = "%d files may be open, and %d are needed: raise the limit (ulimit -n)"
        logger.warning(words, soft, FILES)


application = front()
