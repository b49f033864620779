"""A new signing secret for an endpoint, for the admin, the pages and the API alike."""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from subscriptions.models import Endpoint, new_secret


class NotRotatable(Exception):
    """The secret has to stay as it is for now; the message says why and what to do."""


@transaction.atomic
def rotate(id: UUID, overlap: timedelta) -> Endpoint:
    """Sign with a new secret from now on; the old one stays valid for the overlap. Returns the endpoint with both.

    Raises NotRotatable; ValueError for an overlap that is too long.
    """
    endpoint = Endpoint.objects.present().select_for_update().get(pk=id)
    if refusal := _why_not(endpoint, at_once=not overlap):
        raise NotRotatable(refusal)
    endpoint.replace_secret(new_secret(), overlap)
    endpoint.save(update_fields=["secret", "previous_secret", "previous_secret_expires_at"])
    return endpoint


def _why_not(endpoint: Endpoint, *, at_once: bool) -> str:
    """What stands against a new secret now; empty if nothing does."""
    if endpoint.origin == Endpoint.Origin.ENVIRONMENT and settings.WEBHOOK_SECRET:
        return f"The secret of {endpoint.name} is WEBHOOK_SECRET: change it in the environment and start again. The old one then stays valid for 24 hours."
    if len(endpoint.secrets_at(timezone.now())) > 1 and not at_once:
        until = f"{endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC"
        return f"A rotation of {endpoint.name} is under way until {until}, and a third secret would end the oldest at once: wait, or end both now."
    return ""
