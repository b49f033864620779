"""How an endpoint is doing: what its breaker, its pace and its order have to remember between two turns of its lane."""

from django.db import models

from subscriptions.models import Endpoint


class EndpointHealth(models.Model):
    """One row for each endpoint that ever was in trouble, or is paced or ordered. No row: all is well. See `delivery/breaker.py`.

    Written by the owner of the endpoint's lane, and by people through `delivery/endpoints.py`.
    """

    endpoint = models.OneToOneField(Endpoint, models.CASCADE, primary_key=True, related_name="health")
    # Moved by people. What an owner still writes under an older version is dropped.
    version = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0, help_text="In a row, since the last success.")
    failing_since = models.DateTimeField(null=True, help_text="The first of them.")
    trips = models.PositiveSmallIntegerField(default=0, help_text="How often the breaker has opened since all was well.")
    # While this is set the breaker is open; past it, one request goes to see.
    open_until = models.DateTimeField(null=True)
    # Requests that may be open at once while the endpoint recovers; null without a bound of its own.
    ramp = models.PositiveSmallIntegerField(null=True)
    paused_until = models.DateTimeField(null=True, help_text="What the receiver asked for by Retry-After.")
    reason = models.CharField(max_length=300, blank=True, help_text="What its last failure was.")
    # Of an endpoint with a rate limit: when its next request may start.
    paced_until = models.DateTimeField(null=True)
    # Of an ordered endpoint: since when everything it is owed has its `order_key`.
    ordered_since = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "endpoint health"

    def __str__(self) -> str:
        return f"health of {self.endpoint_id}"
