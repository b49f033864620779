"""Signing secrets in the hands of staff: a new one, or the present one, shown once in a message and nowhere else."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.utils import timezone

from delivery.admin.acts import Told, log
from subscriptions.forms import OVERLAPS
from subscriptions.models import Endpoint, new_secret


@transaction.atomic
def rotate(user: Any, id: UUID, choice: str) -> Told:
    """Replace the secret. `choice` is one of `OVERLAPS`: for how many hours the old one stays valid."""
    endpoint = Endpoint.objects.present().select_for_update().get(pk=id)
    if refusal := _why_no_rotation(endpoint, at_once=choice == "0"):
        return Told(messages.ERROR, refusal)
    endpoint.replace_secret(new_secret(), timedelta(hours=int(choice)))
    endpoint.save(update_fields=["secret", "previous_secret", "previous_secret_expires_at"])
    log(user, endpoint, f"Rotated the signing secret; the old one stays valid for {OVERLAPS[choice]}.")
    return Told(messages.WARNING, _new_secret_message(endpoint))


@transaction.atomic
def reveal(user: Any, id: UUID) -> Told:
    """Show the present secret, and log that it was shown."""
    endpoint = Endpoint.objects.present().get(pk=id)
    log(user, endpoint, "Revealed the signing secret")
    return Told(messages.WARNING, f"The signing secret of {endpoint.name} is {endpoint.secret} (shown only now, and logged).")


def _why_no_rotation(endpoint: Endpoint, *, at_once: bool) -> str:
    """What stands against a new secret now; empty if nothing does."""
    if endpoint.origin == Endpoint.Origin.ENVIRONMENT and settings.WEBHOOK_SECRET:
        return f"The secret of {endpoint.name} is WEBHOOK_SECRET: change it in the environment and start again. The old one then stays valid for 24 hours."
    if len(endpoint.secrets_at(timezone.now())) > 1 and not at_once:
        until = f"{endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC"
        return f"A rotation of {endpoint.name} is under way until {until}, and a third secret would end the oldest at once: wait, or end both now."
    return ""


def _new_secret_message(endpoint: Endpoint) -> str:
    message = f"The new signing secret of {endpoint.name} is {endpoint.secret} (shown only now: give it to the receiver)."
    if not endpoint.previous_secret:
        return f"{message} The old one is no longer valid."
    until = f"{endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC"
    if endpoint.signature_scheme == Endpoint.SignatureScheme.HOOKSTREAM:
        return f"{message} This scheme has room for one signature: the old secret signs until {until}, the new one from then on."
    return f"{message} Both secrets sign until {until}."
