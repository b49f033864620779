"""`manage.py run_jetstream`: store what the Jetstream sends, until told to stop."""

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connection

from delivery import interpreter
from delivery.listener import Listener
from subscriptions import versions
from subscriptions.models import Source

logger = logging.getLogger(__name__)

# Between two looks at a database that is away.
_LOOK_EVERY_S = 1.0


class Command(BaseCommand):
    help = "Listen to the Jetstream hosts named by JETSTREAM_HOSTS. SIGTERM stores what has been read and ends it. A second one stands by."

    def handle(self, *args: Any, **options: Any) -> None:
        stopped = threading.Event()
        _when_told(stopped.set)
        source = _wait_for_source(stopped)
        if source is None:
            return
        listener = Listener(source, settings.JETSTREAM_HOSTS)
        _when_told(listener.stop)
        if stopped.is_set():
            listener.stop()
        interpreter.collect_rarely()
        interpreter.return_large_blocks()
        try:
            listener.run()
        except (DatabaseError, InterfaceError) as error:
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CommandError(f"Stopped while the database could not be used ({problem}). What was not stored yet is read again at the next start.") from error


def _when_told(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


def _wait_for_source(stopped: threading.Event) -> Source | None:
    """The Jetstream's source; None when told to stop. Raises CommandError when there is none.

    A database that is away at the start is waited for like one that goes away later: whoever starts this again and
    again waits longer each time, and the stream with it.
    """
    said = False
    while not stopped.is_set():
        try:
            if why := versions.objection(being_made=said):
                raise CommandError(why)
            source = Source.objects.filter(kind=Source.Kind.JETSTREAM, tenant=None).first()
        except (DatabaseError, InterfaceError) as error:
            if not said:
                logger.warning("The database cannot be used; the listener waits for it before it starts. %s", str(error).strip())
            said = True
            connection.close()
            stopped.wait(_LOOK_EVERY_S)
            continue
        if source is None:
            raise CommandError("There is no Jetstream source yet: run `manage.py bootstrap` first (`manage.py up` does).")
        return source
    return None
