"""The WSGI application that granian serves, on many threads that do next to nothing.

Who posts an event waits for the transaction that it shares with others: the more of them can wait, the larger it is. All
other requests are work, and each thread that does it holds a connection to the database: that is done by a few threads.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
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
from jetrelay import patience  # noqa: E402
from jetrelay.api.express import Express  # noqa: E402
from jetrelay.intake import READERS, TakenIn  # noqa: E402
from jetrelay.logs.requests import logged  # noqa: E402

# Requests take milliseconds: more threads would only hold more connections open.
SITE_THREADS = min(8, 2 * (os.cpu_count() or 1) + 1)

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def on_few_threads(site: Wsgi, threads: int) -> Wsgi:
    """The same application on threads of its own. What it answers is read by the caller's."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="site")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return pool.submit(site, environ, start_response).result()

    return application


_whole = Express(on_few_threads(_site, SITE_THREADS))
application = TakenIn(logged(_whole) if settings.JETRELAY_LOG_REQUESTS else _whole, READERS, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
interpreter.collect_rarely()
patience.keeps = True
