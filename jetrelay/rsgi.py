"""The application that granian serves.

The front takes requests in, threads that do next to nothing wait for commits, and a few work.

Who posts an event waits for the transaction that it shares with others: the more of them can wait,
the larger it is. All other requests are work, and each thread that does it holds a connection to
the database: that is done by a few threads. `/health` has a thread of its own, so that it answers
while all others work.
"""

import asyncio
import contextlib
import logging
import resource

from django.conf import settings

from jetrelay.wsgi import PROBED, SITE_THREADS, express, site  # isort: skip - it sets Django up
from jetrelay.front.application import Front, Route
from jetrelay.front.connections import Connections
from jetrelay.front.heads import Environ
from jetrelay.front.served import FILES
from jetrelay.front.threads import Threads

logger = logging.getLogger(__name__)

# How many may wait for a commit.
POSTERS = 56


def front(posters: int = POSTERS) -> Front:
    """An application of its own, whose events are posted by so many threads."""
    waiting, working, probing = (
        Threads(posters, "poster"),
        Threads(SITE_THREADS, "site"),
        Threads(1, "probe"),
    )
    posted: Route = (waiting, express(working))
    worked: Route = (working, site)
    probed: Route = (probing, site)

    def route(environ: Environ) -> Route:
        path = environ["PATH_INFO"]
        if path == "/api/v1/events" and environ["REQUEST_METHOD"] == "POST":
            return posted
        return probed if path == PROBED else worked

    # A line for each request is written by what works on it.
    return _Watched(route, working, has_lane=not settings.JETRELAY_LOG_REQUESTS)


class _Watched(Front):
    """With an eye on its connections, and room for them."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__rsgi_init__(loop)
        _have_room()
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
