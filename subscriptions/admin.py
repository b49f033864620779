"""Tenants, keys, sources and subscriptions, for the operator. Endpoints are in `delivery/admin/endpoints.py`."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, Prefetch, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from subscriptions import keys, quotas
from subscriptions.confirming import ask, confirmed, counted
from subscriptions.fields import PatternListField
from subscriptions.forms import SubscriptionForm
from subscriptions.ids import PublicModel, from_public
from subscriptions.models import ApiKey, AuditEntry, Endpoint, EndpointPastState, Membership, Source, Subscription, Tenant
from subscriptions.rooms import ChecksRoom, MembershipRoom, SubscriptionRoom, comes_to
from subscriptions.table_filters import PeriodFilter, chosen, words
from subscriptions.tables import BigTable, BoundedChangeList, PicksRows, ReadOnlyAdmin

# By the server's clock, which is at hand where a filter is written down.
_EXPIRED = Q(revoked_at=None, expires_at__lte=Now())
_KEY_STATES = [
    ("live", "Live", Q(revoked_at=None) & ~_EXPIRED),
    ("expired", "Expired", _EXPIRED),
    ("revoked", "Revoked", Q(revoked_at__isnull=False)),
]
_LISTS: dict[Any, Any] = {PatternListField: {"widget": forms.Textarea(attrs={"rows": 2, "cols": 60})}}


class Audited(PicksRows):
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
    formset = MembershipRoom
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
class MembershipAdmin(ChecksRoom, Audited):
    list_display = ("user", "tenant", "role", "created_at")
    list_filter = ("role", chosen("tenant"))
    list_select_related = ("user", "tenant")
    search_fields = ("user__username", "tenant__name")
    autocomplete_fields = ("user", "tenant")

    def find_room(self, form: Any) -> None:
        if tenant := comes_to(form, "tenant"):
            quotas.check_member(quotas.hold(tenant))

    def view_on_site(self, obj: Membership) -> str:
        return reverse("members")


@admin.register(AuditEntry)
class AuditEntryAdmin(BigTable):
    list_display = ("at", "actor", "action", "target", "detail", "tenant")
    list_filter = (PeriodFilter, chosen("tenant"))
    list_select_related = ("tenant",)
    search_fields = ("target",)
    search_help_text = "A whole id, such as ep_…, a whole action, such as endpoint.pause, or a part of who did it."
    window = 20_000

    def found(self, rows: "QuerySet[Any]", term: str, prefix: str) -> "QuerySet[Any]":
        if prefix == AuditEntry.prefix and from_public(term):
            return super().found(rows, term, prefix)
        return rows.filter(Q(target=term) | Q(action=term) | Q(actor__icontains=term))

    def bounded(self, shown: BoundedChangeList, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        # A tenant's entries have an index; what is searched for has none.
        tenant = shown.chosen("tenant")
        if not shown.query or shown.query.startswith(f"{AuditEntry.prefix}_"):
            return rows
        return self.windowed(shown, rows, AuditEntry.objects.filter(tenant=tenant) if tenant else None)

    def view_on_site(self, obj: AuditEntry) -> str:
        return reverse("audit")


@admin.register(EndpointPastState)
class EndpointPastStateAdmin(ReadOnlyAdmin):
    list_display = ("endpoint", "state", "from_at", "to_at", "reason")
    list_filter = (chosen("endpoint"),)
    ordering = ("-id",)
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> "QuerySet[EndpointPastState]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))


@admin.register(ApiKey)
class ApiKeyAdmin(SearchById, NeverDeleted, PicksRows):
    list_display = ("name", "visible_prefix", "tenant", "created_by", "expires_at", "last_used_at", "revoked_at")
    list_filter = (words("state", _KEY_STATES), chosen("tenant"))
    list_select_related = ("tenant",)
    search_fields = ("name", "visible_prefix")
    search_help_text = "A part of the name or of the visible beginning (jr_…), or an id (key_…)."
    fields = (
        *("tenant", "name", "visible_prefix", "scopes", "rate_limit_per_s"),
        *("created_at", "created_by", "expires_at", "last_used_at", "rotated_at", "revoked_at"),
    )
    readonly_fields = ("tenant", "visible_prefix", "scopes", "created_at", "created_by", "last_used_at", "rotated_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A key is shown once, where it is made: by a command.
        return False

    def view_on_site(self, obj: ApiKey) -> str:
        return reverse("keys")

    @admin.action(description="Revoke selected keys…", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> HttpResponse | None:
        live = [key for key in queryset if not key.revoked_at]
        if not confirmed(request):
            line = f"{counted(len(live), 'key')} of {queryset.count():,} selected will be revoked." if live else "All of these have been revoked already."
            happens = "Whatever uses them is refused within a second. This cannot be taken back: a new key has to be made."
            return ask(self, request, "Revoke keys", [line], queryset, possible=bool(live), happens=happens, button="Revoke, for good")
        with transaction.atomic():
            revoked = [key for key in live if keys.revoke(key)]
            for key in revoked:
                # An act of its own, and no change by a form.
                PicksRows.log_change(self, request, key, "Revoked.")
                AuditEntry.note_by(request.user, key.tenant_id, "key.revoke", key.public_id, f"in the admin: {key}")
        self.message_user(request, f"{len(revoked):,} revoked.", messages.SUCCESS if revoked else messages.WARNING)
        return None


@admin.register(Source)
class SourceAdmin(ChecksRoom, SearchById, NeverDeleted, PicksRows):
    list_display = ("name", "kind", "tenant", "keep_unmatched", "public_id")
    list_filter = ("kind", chosen("tenant"))
    autocomplete_fields = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("name",)
    readonly_fields = ("public_id", "created_at")

    def find_room(self, form: Any) -> None:
        if tenant := comes_to(form, "tenant"):
            quotas.check_source(quotas.hold(tenant))


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
    formset = SubscriptionRoom
    extra = 0
    autocomplete_fields = ("source",)
    formfield_overrides = _LISTS
    show_change_link = True


@admin.register(Subscription)
class SubscriptionAdmin(ChecksRoom, SearchById, PicksRows):
    form = SubscriptionForm
    list_display = ("summary", "endpoint", "source", "operations", "kinds", "active")
    list_filter = ("active", chosen("source"), chosen("endpoint"))
    search_fields = ("endpoint__name", "endpoint__url", "collections", "dids")
    search_help_text = "A part of an endpoint's name or URL, of a collection or of a DID, or an id (sub_…)."
    autocomplete_fields = ("endpoint", "source")
    formfield_overrides = _LISTS

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Subscription]":
        endpoints = Prefetch("endpoint", Endpoint.objects.only("id", "name"))
        return super().get_queryset(request).exclude(endpoint__state=Endpoint.State.DELETED).prefetch_related(endpoints, "source")

    def find_room(self, form: Any) -> None:
        if endpoint := comes_to(form, "endpoint"):
            quotas.check_subscription(quotas.hold(endpoint.tenant_id), endpoint.pk)

    def view_on_site(self, obj: Subscription) -> str:
        return reverse("endpoint", args=[obj.endpoint_id])

    @admin.display(description="collections")
    def summary(self, subscription: Subscription) -> str:
        return ", ".join(subscription.collections)

    def delete_queryset(self, request: HttpRequest, queryset: "QuerySet[Subscription]") -> None:
        # One by one, because deleting a subscription is news to listeners and lanes.
        for subscription in queryset:
            subscription.delete()
