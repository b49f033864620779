"""Replays in the admin: how they are getting on, calling them off, and asking for one of all that a changelist shows."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse
from django.urls import reverse

from delivery.models import Delivery, Event, Replay
from delivery.replay import cancel
from delivery.replay.form import ReplayForm
from subscriptions.ids import from_public, to_public
from subscriptions.models import AuditEntry, Endpoint
from subscriptions.tables import ReadOnlyAdmin

_LABELS = {str(state.value): state.label for state in Delivery.State}
PERMISSION = "delivery.change_delivery"


@admin.register(Replay)
class ReplayAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "action", "state", "endpoint", "progress", "rate_per_s", "created_by", "created_at", "ended_at")
    list_filter = ("action", "state")
    list_select_related = ("endpoint",)
    search_fields = ("id",)
    search_help_text = "The id of a replay (rpl_…) or of an endpoint (ep_…)."
    fields = (
        "public_id", "action", "state", "tenant", "endpoint", "event_id", "delivery_state", "since", "until", "collections", "rate_per_s",
        "progress", "looked_at", "next_at", "created_at", "created_by", "ended_at", "ended_by",
    )  # fmt: skip
    readonly_fields = ("public_id", "event_id", "progress")
    actions = ("cancel_selected",)
    list_per_page = 50

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        found = from_public(search_term)
        if not search_term.strip():
            return queryset, False
        column = "endpoint" if search_term.strip().startswith(f"{Endpoint.prefix}_") else "pk"
        return queryset.filter(**{column: found}) if found else queryset.none(), False

    def has_steer_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PERMISSION)

    def view_on_site(self, obj: Replay) -> str:
        return reverse("replays")

    @admin.action(description="Cancel selected replays", permissions=["steer"])
    def cancel_selected(self, request: HttpRequest, queryset: "QuerySet[Replay]") -> None:
        cancelled = 0
        with transaction.atomic():
            for replay in queryset:
                if cancel(replay, by=request.user.get_username()):
                    cancelled += 1
                    AuditEntry.note_by(request.user, replay.tenant_id, "replay.cancel", replay.public_id, "in the admin")
        self.message_user(request, f"{cancelled:,} cancelled. What they have done so far stays done.", messages.SUCCESS if cancelled else messages.WARNING)

    @admin.display(description="id", ordering="id")
    def public_id(self, replay: Replay) -> str:
        return replay.public_id

    @admin.display(description="progress")
    def progress(self, replay: Replay) -> str:
        skipped = f", {replay.skipped:,} skipped" if replay.skipped else ""
        return f"{replay.done:,} of {replay.expected_text}{skipped}"


def asked_for(action: str, query: QueryDict) -> tuple[dict[str, str], list[str]]:
    """A deliveries changelist's filters as the form's data, and those that a replay does not know."""
    data: dict[str, str] = {"action": action}
    unknown: list[str] = []
    for name, value in query.dict().items():
        value = str(value)
        match name:
            case "state__exact":
                data["delivery_state"] = str(_LABELS.get(value, value))
            case "endpoint__id__exact":
                data["endpoint"] = value
            case "q" if value.strip():
                found, prefix = from_public(value), value.strip().partition("_")[0]
                if found and prefix in (Event.prefix, Endpoint.prefix):
                    data["event" if prefix == Event.prefix else "endpoint"] = to_public(prefix, found)
                else:
                    unknown.append(name)
            case "q" | "p" | "o" | "_changelist_filters" | "_facets":
                pass
            case _:
                unknown.append(name)
    return data, unknown


def confirm(model_admin: "admin.ModelAdmin[Any]", request: HttpRequest, action: str, button: str) -> HttpResponse | None:
    """The page between a changelist and a replay of all that it shows; None once it is ordered."""
    data, unknown = asked_for("dismiss" if button.startswith("Dismiss") else "replay", request.GET)
    if unknown:
        model_admin.message_user(request, "This cannot be done for these filters: use those for state and endpoint, or look up an event's id.", messages.ERROR)
        return None
    if "apply" in request.POST:
        data["rate_per_s"] = request.POST.get("rate_per_s", "")
    # The admin is everybody's who may be in it: Django's permissions say what for.
    form = ReplayForm(data, tenants=None)
    with transaction.atomic():
        replay = form.start(by=request.user.get_username()) if "apply" in request.POST else None
        if replay:
            detail = f"about {replay.expected_text} deliveries, in the admin"
            AuditEntry.note_by(request.user, replay.tenant_id, f"replay.{replay.action}", replay.public_id, detail)
    if replay:
        model_admin.message_user(request, f"{replay.public_id} has been asked for: {replay.expected_text} deliveries.", messages.SUCCESS)
        return None
    shown = [(field.label, field.value()) for field in form.filters if field.value()]
    context = {"title": button, "opts": model_admin.opts, "form": form, "counted": form.preview(), "shown": shown, "action": action, "button": button}
    return TemplateResponse(request, "admin/replay.html", model_admin.admin_site.each_context(request) | context)
