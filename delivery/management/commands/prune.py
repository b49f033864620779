"""`manage.py prune`: delete what is older than its retention, as the scheduler does every few minutes."""

import math
import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from delivery.prune import BUDGET_S, Pruner, trial


class Command(BaseCommand):
    help = (
        "Delete events and settled deliveries older than JETRELAY_RETENTION_DAYS, dead ones older than JETRELAY_DEAD_LETTER_DAYS, "
        "entries of the audit log older than JETRELAY_AUDIT_DAYS, and old tallies, in small steps while everything runs. "
        "An event stays as long as one of its deliveries does."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count what would be deleted")
        parser.add_argument("--all", action="store_true", help=f"go on until everything is done (default: at most {BUDGET_S:g} s)")

    def handle(self, *, dry_run: bool, all: bool, **options: Any) -> None:
        if dry_run:
            self.stdout.write(f"Would delete {trial()}.")
            return
        stopping = threading.Event()
        before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            report = Pruner().run(stopping.wait, math.inf if all else BUDGET_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if report is None:
            raise CommandError("Somebody else is pruning: wait for a minute.")
        self.stdout.write(f"Deleted {report}.{'' if report.finished else ' There may be more: --all goes on to the end.'}")
