"""`manage.py create_tenant SLUG`: somebody whose endpoints, keys and deliveries are their own."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from subscriptions.models import AuditEntry, Membership, Tenant


class Command(BaseCommand):
    help = "Make a tenant. Its endpoints, keys and deliveries are its own; the stream is shared by all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug", help="a short name of letters, digits and hyphens, by which commands know it")
        parser.add_argument("--name", default="", help="as people read it (the slug, if there is none)")
        parser.add_argument("--owner", action="append", default=[], metavar="USERNAME", help="a user of the dashboard who may do everything in it")

    @transaction.atomic
    def handle(self, *, slug: str, name: str, owner: list[str], **_: Any) -> None:
        tenant = Tenant(slug=slug, name=name or slug)
        try:
            tenant.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(f"{field}: {' '.join(words)}" for field, words in error.message_dict.items())) from error
        tenant.save()
        for username in owner:
            user = get_user_model().objects.filter(username=username).first()
            if user is None:
                raise CommandError(f"There is no user {username!r}: make one first, in the admin under Users. No tenant was made.")
            Membership.objects.create(tenant=tenant, user=user, role=Membership.Role.OWNER)
        AuditEntry.note(tenant, "command create_tenant", "tenant.create", tenant.public_id)
        self.stdout.write(f"Tenant {slug} ({tenant.public_id}). Next: manage.py create_api_key {slug}")
