"""The stream in the admin: hosts, with what may be asked of them, gaps and rejected frames."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse

from delivery.admin import ReadOnlyAdmin
from delivery.models import RejectedFrame, StreamGap, StreamHost
from jetrelay.dashboard import audit, words
from jetrelay.dashboard.stream import steering
from jetrelay.dashboard.stream.hosts import Stream, streams
from jetrelay.usage import usage
from subscriptions.admin import Audited, TenantAdmin
from subscriptions.ids import from_public
from subscriptions.models import Tenant


def _all() -> list[Stream]:
    return streams(past_shown=None)


@admin.register(StreamHost)
class StreamHostAdmin(ReadOnlyAdmin):
    list_display = ("host", "connected_since", "problem", "last_event_at", "lag", "complete", "rejected")
    list_filter = ("source",)
    search_fields = ("host",)
    search_help_text = "A part of the host's URL."
    fields = (
        "host", "source", "wire", "connected_since", "problem", "compressed", "seen_at", "last_event_at", "lag", "events_per_s", "bytes_per_s",
        "cursor", "cursor_saved_at", "reached_at", "covered_from", "partial", "events", "bytes", "reconnects", "rejected", "counted_since",
        "reconnect_asked_at", "rewind_to",
    )  # fmt: skip
    readonly_fields = ("wire", "lag", "reconnects")
    actions = ("reconnect", "move_back", "reset_counters")

    def has_steer_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(steering.PERMISSION)

    def view_on_site(self, obj: StreamHost) -> str:
        return f"{reverse('stream')}#host-{obj.pk}"

    @admin.display(description="lag")
    def lag(self, host: StreamHost) -> str:
        return words.lag(host.lag_s)

    @admin.display(description="complete", boolean=True)
    def complete(self, host: StreamHost) -> bool:
        return not host.partial

    @admin.action(description="Reconnect selected hosts", permissions=["steer"])
    def reconnect(self, request: HttpRequest, queryset: "QuerySet[StreamHost]") -> None:
        self._ask(request, steering.Reconnect(_all(), {}), queryset)

    @admin.action(description="Reset the counters of selected hosts", permissions=["steer"])
    def reset_counters(self, request: HttpRequest, queryset: "QuerySet[StreamHost]") -> None:
        self._ask(request, steering.ResetCounters(_all(), {}), queryset)

    @admin.action(description="Replay selected hosts from a time (move the cursor back)", permissions=["steer"])
    def move_back(self, request: HttpRequest, queryset: "QuerySet[StreamHost]") -> HttpResponse | None:
        """Asks for the time on a page of its own, and again while it will not do."""
        form = steering.Rewind(_all(), request.POST if "apply" in request.POST else None)
        if form.is_bound and self._ask(request, form, queryset):
            return None
        context = {"title": form.title, "opts": self.opts, "form": form, "hosts": queryset, "action": "move_back"}
        return TemplateResponse(request, "admin/stream_rewind.html", self.admin_site.each_context(request) | context)

    def _ask(self, request: HttpRequest, form: steering.Wish, queryset: "QuerySet[StreamHost]") -> bool:
        ids = set(queryset.values_list("pk", flat=True))
        chosen = [each for each in form.streams if each.row.pk in ids]
        with transaction.atomic():
            told = form.carry_out(chosen) if form.is_valid() else ""
            if told:
                audit.note(request, form.action, detail=form.detail(chosen))
        if told:
            self.message_user(request, told, messages.SUCCESS)
        return bool(told)


class FilledFilter(admin.SimpleListFilter):
    title = "filled"
    parameter_name = "filled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Not filled"), ("yes", "Filled")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        if self.value() == "no":
            return queryset.filter(filled_by="")
        return queryset.exclude(filled_by="") if self.value() == "yes" else queryset


@admin.register(StreamGap)
class StreamGapAdmin(ReadOnlyAdmin):
    list_display = ("host", "from_at", "to_at", "length", "reason", "filled", "filled_by")
    list_filter = (FilledFilter, "source")
    date_hierarchy = "from_at"
    search_fields = ("host", "filled_by", "reason")
    search_help_text = "A gap's id (gap_…), or a part of a host's URL or of the reason."
    fields = (
        "public_id",
        "source",
        "host",
        "from_at",
        "to_at",
        "length",
        "reason",
        "noticed_at",
        "filled_by",
        "filled_at",
        "acknowledged_at",
        "acknowledged_by",
    )
    readonly_fields = ("public_id", "length")

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        found = from_public(search_term)
        return (queryset.filter(pk=found), False) if found else super().get_search_results(request, queryset, search_term)

    def view_on_site(self, obj: StreamGap) -> str:
        return f"{reverse('stream')}#gaps"

    @admin.display(description="id")
    def public_id(self, gap: StreamGap) -> str:
        return gap.public_id

    @admin.display(description="length")
    def length(self, gap: StreamGap) -> str:
        return words.duration(gap.to_at - gap.from_at)

    @admin.display(description="filled", boolean=True)
    def filled(self, gap: StreamGap) -> bool:
        return bool(gap.filled_by)


@admin.register(RejectedFrame)
class RejectedFrameAdmin(ReadOnlyAdmin):
    list_display = ("id", "received_at", "host", "reason", "size")
    list_filter = ("source",)
    date_hierarchy = "received_at"
    search_fields = ("host", "reason")
    search_help_text = "A part of a host's URL or of the reason."
    fields = ("source", "host", "received_at", "reason", "size", "head_text")
    readonly_fields = ("head_text",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[RejectedFrame]":
        rows = super().get_queryset(request)
        return rows if request.resolver_match and request.resolver_match.kwargs else rows.defer("head")

    def view_on_site(self, obj: RejectedFrame) -> str:
        return f"{reverse('stream')}#rejected"

    @admin.display(description="how it begins")
    def head_text(self, frame: RejectedFrame) -> str:
        return frame.text()


class _AuditedUsers(Audited, UserAdmin):  # type: ignore[type-arg]
    """Whoever makes a superuser, or sets somebody's password, is written down too."""


class _AuditedGroups(Audited, GroupAdmin):
    pass


class _TenantsWithQuotas(TenantAdmin):
    readonly_fields = (*TenantAdmin.readonly_fields, "used")  # type: ignore[assignment] # one more

    @admin.display(description="used of each quota")
    def used(self, tenant: Tenant) -> str:
        if tenant._state.adding:
            return "–"
        context = {"tenant": tenant, "quotas": usage([tenant])[tenant.pk]}
        return render_to_string("dashboard/people/_quotas.html", context)


for model, model_admin in ((User, _AuditedUsers), (Group, _AuditedGroups), (Tenant, _TenantsWithQuotas)):
    admin.site.unregister(model)
    admin.site.register(model, model_admin)
