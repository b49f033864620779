"""The built-in receiver: what arrived for an endpoint, for trying things out."""

import secrets
from hashlib import sha256
from typing import Any, Self

from django.db import models
from django.utils import timezone

from subscriptions.fields import EncryptedTextField
from subscriptions.models import Endpoint


def _new_token() -> str:
    return secrets.token_urlsafe(16)


def digest_of(token: str) -> bytes:
    return sha256(b"jetrelay inbox " + token.encode()).digest()


class InboxQuerySet(models.QuerySet["Inbox"]):
    def present(self) -> Self:
        """With their endpoints. Without its secret, the inbox of a deleted one has nothing to verify with."""
        return self.exclude(endpoint__state=Endpoint.State.DELETED).select_related("endpoint")


class Inbox(models.Model):
    """Accepts deliveries of one endpoint and shows whether they verify.

    Whoever knows its token may look: it is found by the token's digest, and kept encrypted to be shown again. Deliveries
    come to an address that is no secret, which is the endpoint's URL and stands in its row.
    """

    token = EncryptedTextField(default=_new_token)
    token_digest = models.BinaryField(max_length=32, unique=True, editable=False)
    endpoint = models.OneToOneField(Endpoint, models.CASCADE, related_name="inbox")
    received = models.BigIntegerField(default=0)

    objects = InboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "inboxes"

    def __str__(self) -> str:
        return f"inbox of {self.endpoint}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.token_digest = digest_of(self.token)
        super().save(*args, **kwargs)


class InboxMessage(models.Model):
    """One request that arrived. The newest are kept, the rest are forgotten."""

    inbox = models.ForeignKey(Inbox, models.CASCADE, related_name="messages")
    webhook_id = models.CharField(max_length=100, blank=True)
    received_at = models.DateTimeField(default=timezone.now)
    verified = models.BooleanField()
    verdict = models.CharField(max_length=200)
    headers = models.JSONField(default=dict)
    body = models.BinaryField()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.webhook_id or f"message {self.pk}"

    def text(self) -> str:
        return bytes(self.body).decode(errors="replace")
