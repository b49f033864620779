"""Where events come from."""

from typing import Self

from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone

from subscriptions.models.config import ConfigModel
from subscriptions.models.tenants import Tenant, Tenants

# Of the source that posted events go to if they name none.
POSTED_NAME = "HTTP API"


class SourceQuerySet(models.QuerySet["Source"]):
    def for_tenants(self, tenants: Tenants) -> Self:
        """Their own, and those that all share."""
        return self if tenants is None else self.filter(Q(tenant=None) | Q(tenant__in=tenants))


class Source(ConfigModel):
    """Where events come from. A source with no tenant is shared by all of them."""

    class Kind(models.TextChoices):
        JETSTREAM = "jetstream", "Jetstream"
        API = "api", "HTTP API"

    prefix = "src"

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="sources")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=100)
    keep_unmatched = models.BooleanField(default=False, help_text="Store events that no subscription wants, so that a later endpoint can recover them.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = SourceQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="source_name_per_tenant"),
            models.UniqueConstraint(fields=["name"], condition=models.Q(tenant=None), name="source_name_shared"),
        ]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of_posts(cls, tenant: Tenant) -> "Source":
        """The tenant's source of posted events; made when it is first asked for."""
        mine = cls.objects.filter(tenant=tenant, kind=cls.Kind.API).select_related("tenant").order_by("id")
        found = mine.first()
        if found is None:
            try:
                with transaction.atomic():
                    found = cls.objects.create(tenant=tenant, kind=cls.Kind.API, name=POSTED_NAME, keep_unmatched=True)
            except IntegrityError:
                # Somebody was quicker, and may have made others meanwhile.
                found = mine.get(name=POSTED_NAME)
        return found
