"""Which events an endpoint wants."""

from typing import ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from subscriptions import validation
from subscriptions.fields import PatternListField
from subscriptions.models.config import ConfigModel
from subscriptions.models.endpoints import Endpoint
from subscriptions.models.sources import Source


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    def active(self) -> Self:
        return self.filter(active=True)

    def in_force(self) -> Self:
        """The active ones, of endpoints that may see their source."""
        mine = self.active().exclude(endpoint__state__in=(Endpoint.State.UNVERIFIED, Endpoint.State.DELETED))
        return mine.filter(models.Q(source__tenant=None) | models.Q(source__tenant=models.F("endpoint__tenant")))

    def of(self, source: Source) -> Self:
        return self.in_force().filter(source=source)

    def streams(self) -> models.QuerySet[Source]:
        """The streams that some of these are for: somebody has to listen to them."""
        mine = self.in_force().filter(source=models.OuterRef("pk"))
        return Source.objects.filter(models.Exists(mine), kind=Source.Kind.JETSTREAM).order_by("pk")


def _commits() -> list[str]:
    return ["commit"]


def _everything() -> list[str]:
    return ["*"]


class Subscription(ConfigModel):
    """The wish of one endpoint for some events of one source. An empty list of DIDs or operations means all."""

    prefix = "sub"
    # Subscriptions to Jetstream see commits alone, unless they ask for more: identity and account events
    # pass every filter of the stream, and few receivers expect them.

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="subscriptions")
    source = models.ForeignKey(Source, models.CASCADE, related_name="subscriptions")
    collections = PatternListField(
        default=_everything, each=validation.clean_pattern, help_text='A JSON list: ["app.bsky.feed.post", "app.bsky.graph.*"], or ["*"] for everything.'
    )
    dids = PatternListField("DIDs", default=list, blank=True, each=validation.clean_did, help_text="A JSON list. Empty: every account.")
    operations = PatternListField(default=list, blank=True, each=validation.clean_operation, help_text='Any of "create", "update", "delete". Empty: all.')
    kinds = PatternListField(default=_commits, each=validation.clean_kind, help_text='Any of "commit", "identity", "account", "sync", "api".')
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # What was wanted before a change is not kept: only that there was one.
    updated_at = models.DateTimeField(auto_now=True)

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)

    _required: ClassVar = ("collections", "kinds")

    def __str__(self) -> str:
        return f"{', '.join(self.collections)} to {self.endpoint}"

    def clean(self) -> None:
        for name in self._required:
            if not getattr(self, name):
                raise ValidationError({name: "Name at least one."})
        chosen = hasattr(self, "source") and hasattr(self, "endpoint")
        if chosen and self.source.tenant_id is not None and self.source.tenant_id != self.endpoint.tenant_id:
            raise ValidationError({"source": "This source belongs to another tenant."})
