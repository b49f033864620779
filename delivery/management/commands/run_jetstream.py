"""`manage.py run_jetstream`: store what the Jetstream sends, until told to stop."""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError

from delivery.listener import Listener
from subscriptions.models import Source


class Command(BaseCommand):
    help = "Listen to the Jetstream hosts named by JETSTREAM_HOSTS. SIGTERM stores what has been read and ends it. A second one stands by."

    def handle(self, *args: Any, **options: Any) -> None:
        source = Source.objects.filter(kind=Source.Kind.JETSTREAM, tenant=None).first()
        if source is None:
            raise CommandError("There is no Jetstream source yet: run `manage.py bootstrap` first (`manage.py up` does).")
        listener = Listener(source, settings.JETSTREAM_HOSTS)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: listener.stop())
        try:
            listener.run()
        except (DatabaseError, InterfaceError) as error:
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CommandError(f"Stopped while the database could not be used ({problem}). What was not stored yet is read again at the next start.") from error
