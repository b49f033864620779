"""Replays in the admin: how they are getting on, calling them off, and asking for one of all that a changelist shows."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from delivery.models import Event, Replay
from delivery.replay import cancel
from delivery.replay.form import ReplayForm
from subscriptions.confirming import ask, confirmed, counted
from subscriptions.ids import from_public, to_public
from subscriptions.models import AuditEntry, Endpoint
from subscriptions.table_filters import PeriodFilter, chosen, words
from subscriptions.tables import BigTable, BoundedChangeList

# A search by URL takes so many endpoints, the newest.
URL_MATCHES = 20
_ACTIONS = [(str(value), str(label), Q(action=value)) for value, label in Replay.Action.choices]
_STATES = [(str(value), str(label), Q(state=value)) for value, label in Replay.State.choices]
PERMISSION = "delivery.change_delivery"


@admin.register(Replay)
class ReplayAdmin(BigTable):
    list_display = ("public_id", "action", "state", "endpoint", "progress", "rate_per_s", "created_by", "created_at", "ended_at")
    list_filter = (PeriodFilter, words("action", _ACTIONS), words("state", _STATES), chosen("endpoint"))
    search_fields = ("id",)
    search_help_text = "The id of a replay (rpl_…) or of an endpoint (ep_…)."
    fields = (
        "public_id", "action", "state", "tenant", "endpoint", "event_id", "delivery_state", "since", "until", "collections", "rate_per_s",
        "progress", "looked_at", "next_at", "created_at", "created_by", "ended_at", "ended_by",
    )  # fmt: skip
    readonly_fields = ("public_id", "event_id", "progress")
    actions = ("cancel_selected",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Replay]":
        endpoints = Prefetch("endpoint", Endpoint.objects.only("id", "name"))
        return super().get_queryset(request).prefetch_related(endpoints).select_related("tenant")

    def found(self, rows: "QuerySet[Any]", term: str, prefix: str) -> "QuerySet[Any]":
        id = from_public(term)
        return rows.filter(endpoint=id) if id and prefix == Endpoint.prefix else super().found(rows, term, prefix)

    def has_steer_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PERMISSION)

    def view_on_site(self, obj: Replay) -> str:
        return reverse("replays")

    @admin.action(description="Cancel selected replays…", permissions=["steer"])
    def cancel_selected(self, request: HttpRequest, queryset: "QuerySet[Replay]") -> HttpResponse | None:
        rows = list(queryset[: self.paginator.limit])
        if not confirmed(request):
            running = sum(replay.running for replay in rows)
            line = f"{counted(running, 'running replay')} of {len(rows):,} selected will be cancelled." if running else "None of these is running any more."
            return ask(self, request, "Cancel replays", [line], queryset, possible=bool(running), happens="What they have done so far stays done.")
        cancelled = 0
        with transaction.atomic():
            for replay in rows:
                if cancel(replay, by=request.user.get_username()):
                    cancelled += 1
                    AuditEntry.note_by(request.user, replay.tenant_id, "replay.cancel", replay.public_id, "in the admin")
        self.message_user(request, f"{cancelled:,} cancelled. What they have done so far stays done.", messages.SUCCESS if cancelled else messages.WARNING)
        return None

    @admin.display(description="id")
    def public_id(self, replay: Replay) -> str:
        return replay.public_id

    @admin.display(description="progress")
    def progress(self, replay: Replay) -> str:
        skipped = f", {replay.skipped:,} skipped" if replay.skipped else ""
        return f"{replay.done:,} of {replay.expected_text}{skipped}"


def endpoints_of(term: str) -> list[UUID] | None:
    """The endpoints that a search for deliveries is about, by id or by a part of the URL; None where it is about something else."""
    if term.startswith(f"{Endpoint.prefix}_"):
        id = from_public(term)
        return [id] if id else []
    if from_public(term) or not any(sign in term for sign in ".:/"):
        return None
    return list(Endpoint.objects.filter(url__icontains=term).order_by("-id").values_list("pk", flat=True)[:URL_MATCHES])


def asked_for(action: str, shown: BoundedChangeList) -> tuple[dict[str, str], list[str]]:
    """A deliveries changelist's filters as the form's data, and what of them a replay does not know."""
    data: dict[str, str] = {"action": action}
    unknown = list(shown.notes_on_url)
    if state := shown.chosen("state"):
        data["delivery_state"] = state
    if endpoint := shown.chosen("endpoint"):
        data["endpoint"] = to_public(Endpoint.prefix, endpoint)
    if shown.period.start:
        data["since"] = f"{shown.period.start:%Y-%m-%dT%H:%M:%S}"
    if shown.period.end:
        data["until"] = f"{shown.period.end:%Y-%m-%dT%H:%M:%S}"
    if term := shown.query.strip():
        endpoints, event = endpoints_of(term), from_public(term) if term.startswith(f"{Event.prefix}_") else None
        if event:
            data["event"] = to_public(Event.prefix, event)
        elif endpoints and len(endpoints) == 1 and data.get("endpoint") in (None, to_public(Endpoint.prefix, endpoints[0])):
            data["endpoint"] = to_public(Endpoint.prefix, endpoints[0])
        else:
            unknown.append(term)
    return data, unknown


def confirm(model_admin: "admin.ModelAdmin[Any]", request: HttpRequest, action: str, button: str) -> HttpResponse | None:
    """The page between a changelist and a replay of all that it shows; None once it is ordered."""
    shown = model_admin.get_changelist_instance(request)
    assert isinstance(shown, BoundedChangeList)
    data, unknown = asked_for("dismiss" if button.startswith("Dismiss") else "replay", shown)
    if unknown:
        model_admin.message_user(request, "This cannot be done for these filters: use time, state and endpoint, or look up an event's id.", messages.ERROR)
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
    listed = [(field.label, field.value()) for field in form.filters if field.value()]
    context = {"title": button, "opts": model_admin.opts, "form": form, "counted": form.preview(), "shown": listed, "action": action, "button": button}
    return TemplateResponse(request, "admin/replay.html", model_admin.admin_site.each_context(request) | context)
