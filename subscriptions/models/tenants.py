"""Tenants, their members and their keys to the API."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from subscriptions import allowance
from subscriptions.ids import PublicModel


class Tenant(PublicModel):
    """Whose endpoints, keys and deliveries these are."""

    prefix = "tnt"

    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    quotas = models.JSONField(
        "quotas of its own",
        default=dict,
        blank=True,
        validators=[allowance.validate],
        help_text='A JSON object, such as {"endpoints": 5000}. What is not named here has the installation\'s.',
    )

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        # An empty box.
        self.quotas = self.quotas or {}


# Whose rows are asked for: those of these tenants, or everybody's where it is None. Every `for_tenants` takes it.
Tenants = Sequence[Tenant] | None


class MembershipQuerySet(models.QuerySet["Membership"]):
    def for_tenants(self, tenants: Tenants) -> Self:
        return self if tenants is None else self.filter(tenant__in=tenants)

    def owners(self) -> Self:
        """Those who may do everything, and can sign in to do it."""
        return self.filter(role=Membership.Role.OWNER, user__is_active=True)


class Membership(models.Model):
    """What a user of the dashboard may do in a tenant. Superusers need none: they see all."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner: everything, members and keys included"
        MEMBER = "member", "Member: endpoints and deliveries"
        VIEWER = "viewer", "Viewer: looks, and changes nothing"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        ordering = ("tenant", "user")
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant} ({self.role})"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def for_tenants(self, tenants: Tenants) -> Self:
        return self if tenants is None else self.filter(tenant__in=tenants)

    def expired(self, now: datetime | None = None) -> Self:
        return self.filter(revoked_at=None, expires_at__lte=now or timezone.now())

    def revoked(self) -> Self:
        return self.exclude(revoked_at=None)

    def live(self, now: datetime | None = None) -> Self:
        """Those that open the API now."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now or timezone.now()), revoked_at=None)


class ApiKey(PublicModel):
    """A key to the API. The key itself is shown once; only its SHA-256 is kept. Made by `subscriptions/keys.py`."""

    class State(models.TextChoices):
        LIVE = "live", "Live"
        EXPIRED = "expired", "Expired"
        REVOKED = "revoked", "Revoked"

    prefix: ClassVar[str] = "key"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    visible_prefix = models.CharField(max_length=16, editable=False)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    scopes = models.JSONField(default=list, blank=True)
    rate_limit_per_s = models.PositiveIntegerField(
        "rate limit (requests/s)", null=True, blank=True, help_text="Requests per second to the API. Empty: JETRELAY_API_RATE_LIMIT."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=200, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    # To the minute: a write for every request would cost more than the request.
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # When another key took its place; that one is rotated from then on.
    rotated_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The key whose place this one took. Its id alone: nobody looks for keys by it.
    replaced = models.UUIDField(null=True, blank=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.name} ({self.visible_prefix}…)"

    def state(self, now: datetime) -> State:
        if self.revoked_at:
            return self.State.REVOKED
        return self.State.EXPIRED if self.expires_at and self.expires_at <= now else self.State.LIVE
