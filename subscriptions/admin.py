"""Tenants, keys, sources and subscriptions, for the operator. Endpoints are in `delivery/admin/endpoints.py`."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from subscriptions import keys
from subscriptions.fields import PatternListField
from subscriptions.forms import SubscriptionForm
from subscriptions.ids import PublicModel, from_public
from subscriptions.models import ApiKey, AuditEntry, Endpoint, EndpointPastState, Membership, Source, Subscription, Tenant
from subscriptions.tables import ReadOnlyAdmin

_LISTS: dict[Any, Any] = {PatternListField: {"widget": forms.Textarea(attrs={"rows": 2, "cols": 60})}}


class Audited(admin.ModelAdmin):  # type: ignore[type-arg]
    """What its forms do stands in the audit log as well as in the admin's own. Neither has the values of fields, which may be secrets."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        entry = super().log_addition(request, obj, message)
        self._note(request, "create", obj, entry.get_change_message())
        return entry

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        entry = super().log_change(request, obj, message)
        self._note(request, "change", obj, entry.get_change_message())
        return entry

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for obj in queryset:
            self._note(request, "delete", obj, "")
        return super().log_deletions(request, queryset)

    def _note(self, request: HttpRequest, act: str, obj: Any, words: str) -> None:
        noun = "key" if isinstance(obj, ApiKey) else self.opts.model_name
        target = obj.public_id if isinstance(obj, PublicModel) else ""
        AuditEntry.note_by(request.user, _tenant_of(obj), f"{noun}.{act}", target, f"in the admin: {obj}. {words}".strip())


def _tenant_of(obj: Any) -> UUID | None:
    if isinstance(obj, Tenant):
        return obj.pk
    return obj.endpoint.tenant_id if isinstance(obj, Subscription) else getattr(obj, "tenant_id", None)


class NeverDeleted(Audited):
    """Deliveries and events refer to these rows for good."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class SearchById(Audited):
    """Finds a row by its id as well, with the prefix or without."""

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        found = from_public(search_term)
        if found:
            return queryset.filter(pk=found), False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="id")
    def public_id(self, row: Any) -> str:
        return str(row.public_id)


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Tenant)
class TenantAdmin(SearchById, NeverDeleted):
    inlines = (MembershipInline,)
    list_display = ("name", "slug", "public_id", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ("public_id", "created_at")


@admin.register(Membership)
class MembershipAdmin(Audited):
    list_display = ("user", "tenant", "role", "created_at")
    list_filter = ("role", "tenant")
    list_select_related = ("user", "tenant")
    search_fields = ("user__username", "tenant__name")
    autocomplete_fields = ("user", "tenant")


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "target", "detail", "tenant")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("=target", "=action")
    search_help_text = "A whole id, such as ep_…, or a whole action, such as endpoint.pause."


@admin.register(EndpointPastState)
class EndpointPastStateAdmin(ReadOnlyAdmin):
    list_display = ("endpoint", "state", "from_at", "to_at", "reason")
    list_select_related = ("endpoint",)


@admin.register(ApiKey)
class ApiKeyAdmin(SearchById, NeverDeleted):
    list_display = ("name", "visible_prefix", "tenant", "created_by", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("name", "visible_prefix")
    fields = ("tenant", "name", "visible_prefix", "scopes", "rate_limit_per_s", "created_at", "created_by", "expires_at", "last_used_at", "revoked_at")
    readonly_fields = ("tenant", "visible_prefix", "scopes", "created_at", "created_by", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A key is shown once, where it is made: by a command.
        return False

    @admin.action(description="Revoke selected keys, for good", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> None:
        revoked = 0
        with transaction.atomic():
            for key in queryset:
                if keys.revoke(key):
                    revoked += 1
                    AuditEntry.note_by(request.user, key.tenant_id, "key.revoke", key.public_id, f"{key}, in the admin")
        self.message_user(request, f"{revoked:,} revoked.", messages.SUCCESS if revoked else messages.WARNING)


@admin.register(Source)
class SourceAdmin(SearchById, NeverDeleted):
    list_display = ("name", "kind", "tenant", "keep_unmatched", "public_id")
    list_filter = ("kind",)
    list_select_related = ("tenant",)
    search_fields = ("name",)
    readonly_fields = ("public_id", "created_at")


class ChoosesTheOnlyOne:
    """Where there is but one tenant or source to choose, it is chosen."""

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        candidates = list(db_field.remote_field.model._default_manager.values_list("pk", flat=True)[:2])
        if len(candidates) == 1:
            kwargs.setdefault("initial", candidates[0])
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]


class AddedSubscriptionForm(SubscriptionForm):
    def has_changed(self) -> bool:
        """A subscription that somebody adds is meant, even if its boxes are left as they were filled in."""
        return bool(self.instance._state.adding) or super().has_changed()


class SubscriptionInline(ChoosesTheOnlyOne, admin.StackedInline):  # type: ignore[type-arg]
    model = Subscription
    form = AddedSubscriptionForm
    extra = 0
    formfield_overrides = _LISTS
    show_change_link = True


@admin.register(Subscription)
class SubscriptionAdmin(SearchById):
    form = SubscriptionForm
    list_display = ("summary", "endpoint", "source", "operations", "kinds", "active")
    list_filter = ("active", "source")
    list_select_related = ("endpoint", "source")
    search_fields = ("endpoint__name", "collections")
    autocomplete_fields = ("endpoint", "source")
    formfield_overrides = _LISTS

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Subscription]":
        return super().get_queryset(request).exclude(endpoint__state=Endpoint.State.DELETED)

    @admin.display(description="collections")
    def summary(self, subscription: Subscription) -> str:
        return ", ".join(subscription.collections)

    def delete_queryset(self, request: HttpRequest, queryset: "QuerySet[Subscription]") -> None:
        # One by one, because deleting a subscription is news to listeners and lanes.
        for subscription in queryset:
            subscription.delete()
