"""What the API itself has to remember: answers to requests that may come again."""

from django.db import models
from django.utils import timezone

from subscriptions.fields import EncryptedTextField
from subscriptions.models import Tenant


class IdempotentRequest(models.Model):
    """A POST with an `Idempotency-Key`: under way, or answered. Kept for 24 hours. See `idempotency.py`."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    # The id of the API key that asked: nobody else has the answer. Null: an older version did not write it down.
    asker = models.UUIDField(null=True)
    # SHA-256 of the asker's scopes, the method, the path and the body.
    fingerprint = models.BinaryField(max_length=32)
    created_at = models.DateTimeField(default=timezone.now)
    # While it is under way.
    taken_until = models.DateTimeField(null=True)
    status = models.PositiveSmallIntegerField(null=True)
    # As JSON. An answer may hold a secret that is shown once.
    answer = EncryptedTextField(blank=True, default="")
    # Characters of the answer as it lies there. What a tenant may keep is bounded by them.
    size = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            # read by every POST with a key: was it here before? also counts a tenant's
            models.UniqueConstraint(fields=["tenant", "key", "asker"], name="idempotent_asked_once"),
        ]
        indexes = [
            # read by whoever deletes what is older than a day
            models.Index(fields=["created_at"], name="idempotent_age"),
        ]

    def __str__(self) -> str:
        return self.key
