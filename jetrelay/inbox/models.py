"""The built-in receiver: what arrived at `/inbox/<token>`, for trying things out."""

import secrets

from django.db import models
from django.utils import timezone

from subscriptions.models import Endpoint


def _new_token() -> str:
    return secrets.token_urlsafe(16)


class Inbox(models.Model):
    """An address that accepts deliveries of one endpoint and shows whether they verify."""

    token = models.CharField(max_length=64, unique=True, default=_new_token)
    endpoint = models.OneToOneField(Endpoint, models.CASCADE, related_name="inbox")
    received = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "inboxes"

    def __str__(self) -> str:
        return f"inbox of {self.endpoint}"


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
