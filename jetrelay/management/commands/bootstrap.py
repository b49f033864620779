"""`manage.py bootstrap`: what an installation starts with. Safe to run at every start; `up` does."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from jetrelay.bootstrap import bootstrap
from subscriptions import versions


class Command(BaseCommand):
    help = "Make the tenant, the stream, the administrator and the environment's endpoint, where they are missing or differ."

    def handle(self, *args: Any, **options: Any) -> None:
        if why := versions.objection():
            raise CommandError(why)
        for line in bootstrap():
            self.stdout.write(line)
