"""The WSGI application that granian serves, on many threads that do next to nothing.

Who posts an event waits for the transaction that it shares with others: the more of them can wait, the larger it is. All
other requests are work, and each thread that does it holds a connection to the database: that is done by a few threads.
Whoever asks has a share of everything, and never all of it (`places.py`, `shares.py`).
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")

_site = get_wsgi_application()

from delivery import interpreter  # noqa: E402 - what these import needs Django set up
from jetrelay import places  # noqa: E402
from jetrelay.api.express import Express  # noqa: E402
from jetrelay.front import Front  # noqa: E402
from jetrelay.intake import READERS, TakenIn  # noqa: E402
from jetrelay.logs.requests import logged  # noqa: E402
from jetrelay.site import OnFairThreads, Vital  # noqa: E402

_fair = OnFairThreads(_site, places.SITE_THREADS, places.CALLS, "site", places.STREAMS)
_whole = Express(Vital(_fair, _site))
_most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
_taken_in = TakenIn(logged(_whole) if settings.JETRELAY_LOG_REQUESTS else _whole, READERS, _most)
application = Front(_taken_in, places.BODY_BYTES, _most)
interpreter.collect_rarely()
