"""Leases: see `delivery/leases.py`."""

from django.db import models


class Lease(models.Model):
    """The right to drain a lane, or to run a listener, until `expires_at`. See `delivery/leases.py`."""

    name = models.CharField(max_length=64, primary_key=True)
    token = models.UUIDField(null=True)
    owner = models.CharField(max_length=100, blank=True, help_text="Host and process, for people.")
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
