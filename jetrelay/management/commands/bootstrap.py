"""`manage.py bootstrap`: what an installation starts with. Safe to run at every start; `up` does."""

from typing import Any

from django.core.management.base import BaseCommand

from jetrelay.bootstrap import bootstrap


class Command(BaseCommand):
    help = "Make the tenant, the stream, the administrator and the environment's endpoint, where they are missing or differ."

    def handle(self, *args: Any, **options: Any) -> None:
        for line in bootstrap():
            self.stdout.write(line)
