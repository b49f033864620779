"""What was: who did what, and in which state an endpoint was when."""

from typing import Any, Self
from uuid import UUID

from django.db import models
from django.utils import timezone

from subscriptions import asked
from subscriptions.ids import PublicModel
from subscriptions.models.tenants import Tenant, Tenants


def actor_of(user: Any) -> str:
    """How the log names a user. No username has a space, so that no key's name can be taken for one."""
    return f"user {user.get_username()}"


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def for_tenants(self, tenants: Tenants) -> Self:
        """Theirs; of all tenants also what was done to none of them."""
        return self if tenants is None else self.filter(tenant__in=tenants)


class AuditEntry(PublicModel):
    """Something that somebody did: through the API, on a page, in the admin or by a command.

    Append-only, until it is pruned. Nothing secret is in it.
    """

    prefix = "aud"

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, related_name="+", db_index=False)
    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=200, help_text="Such as a key's name and visible beginning.")
    action = models.CharField(max_length=64, help_text="Such as endpoint.pause.")
    target = models.CharField(max_length=64, blank=True, help_text="The public id of what it was done to.")
    detail = models.CharField(max_length=300, blank=True)
    address = models.GenericIPAddressField(null=True)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "audit entries"
        indexes = [
            # read by the audit log: a tenant's entries, newest first
            models.Index(fields=["tenant", "-id"], name="audit_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target} by {self.actor}"

    @classmethod
    def note(cls, tenant: Tenant | UUID | None, actor: str, action: str, target: str = "", detail: str = "", address: str | None = None) -> Self:
        """Write it down, in the caller's transaction. Without an address, that of the request which is being answered, if there is one."""
        tenant_id = tenant.pk if isinstance(tenant, Tenant) else tenant
        address = address or asked.address()
        return cls.objects.create(tenant_id=tenant_id, actor=actor[:200], action=action, target=target, detail=detail[:300], address=address)

    @classmethod
    def note_by(cls, user: Any, tenant: Tenant | UUID | None, action: str, target: str = "", detail: str = "") -> Self:
        """Write down what a user of the pages or of the admin did."""
        return cls.note(tenant, actor_of(user), action, target, detail)


class EndpointPastState(models.Model):
    """A state that an endpoint has left, and how long it was in it. Written by `EndpointQuerySet.mark`; the present one stands in the endpoint."""

    endpoint = models.ForeignKey("subscriptions.Endpoint", models.CASCADE, related_name="past_states", db_index=False)
    state = models.CharField(max_length=16)
    reason = models.CharField(max_length=200, blank=True)
    from_at = models.DateTimeField()
    to_at = models.DateTimeField()

    class Meta:
        ordering = ("endpoint", "to_at")
        indexes = [
            # read by the explanation of an event: in which state was the endpoint at that moment?
            models.Index(fields=["endpoint", "to_at"], name="endpoint_state_until"),
        ]

    def __str__(self) -> str:
        return f"{self.state} until {self.to_at:%F %T}"
