"""`manage.py doctor`: looks at this installation, and says what to do."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from jetrelay.doctor.consulting import consult


class Command(BaseCommand):
    help = (
        "Look at this installation: programs, settings, clock, database, broker, processes, endpoints. Says what to do; exit code 1 where there is a problem."
    )
    # They are one of the things that are looked at.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")

    def handle(self, *, json: bool, **_: Any) -> None:
        sys.exit(consult(self.stdout.write, as_json=json))
