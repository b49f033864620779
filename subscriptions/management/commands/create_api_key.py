"""`manage.py create_api_key TENANT`: a key to the API, printed once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from subscriptions import keys
from subscriptions.models import AuditEntry, Tenant


class Command(BaseCommand):
    help = "Make a key to the API and print it; it is shown only now. The key alone goes to standard output."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", nargs="?", default="default", help="the slug of the tenant it is for (default)")
        parser.add_argument("--name", default="command line", help="what it is for, as lists show it")
        parser.add_argument(
            "--scope",
            action="append",
            choices=list(keys.SCOPES),
            metavar="SCOPE",
            help=f"what it may do, repeated: {', '.join(keys.SCOPES)} (all but {', '.join(sorted(keys.OPERATORS_SCOPES))})",
        )
        parser.add_argument("--days", type=float, help="for how many days it is valid (for good)")
        parser.add_argument("--rate-limit", type=int, metavar="N", help="requests per second (JETRELAY_API_RATE_LIMIT)")

    @transaction.atomic
    def handle(self, *, tenant: str, name: str, scope: list[str] | None, days: float | None, rate_limit: int | None, **_: Any) -> None:
        if days is not None and not 0 < days <= 36_500:
            raise CommandError("--days is a number above 0, and at most 36,500.")
        if rate_limit is not None and not 1 <= rate_limit <= 1_000_000:
            raise CommandError("--rate-limit is 1 to 1,000,000 requests per second.")
        owner = Tenant.objects.filter(slug=tenant).first()
        if owner is None:
            known = ", ".join(Tenant.objects.values_list("slug", flat=True)[:10]) or "none yet: manage.py create_tenant SLUG"
            raise CommandError(f"There is no tenant {tenant!r}. Tenants: {known}.")
        expires_at = timezone.now() + timedelta(days=days) if days else None
        try:
            key, text = keys.issue(owner, name, scope or keys.TENANTS_SCOPES, expires_at=expires_at, rate_limit_per_s=rate_limit, by="command create_api_key")
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        AuditEntry.note(owner, "command create_api_key", "key.create", key.public_id, f"{key}: {', '.join(key.scopes)}")
        self.stderr.write(f"A key for {owner.slug}, {key.public_id}, shown only now:")
        self.stdout.write(text)
