"""Signing secrets in the hands of staff: a new one, or the present one, shown once on the page that answers and nowhere else."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction

from delivery import rotation
from delivery.admin.acts import Told, log
from subscriptions.forms import OVERLAPS
from subscriptions.models import Endpoint


@transaction.atomic
def rotate(user: Any, id: UUID, choice: str) -> Told:
    """Replace the secret. `choice` is one of `OVERLAPS`: for how many hours the old one stays valid."""
    try:
        endpoint = rotation.rotate(id, timedelta(hours=int(choice)))
    except rotation.NotRotatable as refusal:
        return Told(messages.ERROR, str(refusal))
    words = f"the old one stays valid for {OVERLAPS[choice]}"
    log(user, endpoint, f"Rotated the signing secret; {words}.", action="endpoint.rotate-secret", detail=words)
    return Told(messages.WARNING, _new_secret_message(endpoint))


@transaction.atomic
def reveal(user: Any, id: UUID) -> Told:
    """Show the present secret, and log that it was shown."""
    endpoint = Endpoint.objects.present().get(pk=id)
    log(user, endpoint, "Revealed the signing secret", action="endpoint.reveal-secret")
    return Told(messages.WARNING, f"The signing secret of {endpoint.name} is {endpoint.secret} (shown only now, and logged).")


def _new_secret_message(endpoint: Endpoint) -> str:
    message = f"The new signing secret of {endpoint.name} is {endpoint.secret} (shown only now: give it to the receiver)."
    if not endpoint.previous_secret:
        return f"{message} The old one is no longer valid."
    until = f"{endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC"
    if endpoint.signature_scheme == Endpoint.SignatureScheme.HOOKSTREAM:
        return f"{message} This scheme has room for one signature: the old secret signs until {until}, the new one from then on."
    return f"{message} Both secrets sign until {until}."
