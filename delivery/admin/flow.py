"""What happened, to look at: events, deliveries and attempts, which only `outbox`, `lanes` and `replay` write."""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import transaction
from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from delivery import replay
from delivery.admin.replays import PERMISSION, confirm
from delivery.models import Attempt, Delivery, Event
from subscriptions.ids import from_public, to_public
from subscriptions.models import AuditEntry, Endpoint
from subscriptions.tables import ReadOnlyAdmin

# How many deliveries one run of the action puts back; the rest is a second run away.
REPLAY_LIMIT = 10_000


def _link(model: str, prefix: str, id: uuid.UUID) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse(f"admin:delivery_{model}_change", args=[id]), to_public(prefix, id))


def _note(request: HttpRequest, action: str, ids: Sequence[uuid.UUID], count: int) -> None:
    """In the audit log of each tenant whose deliveries these are: one entry, however many there are."""
    if not count:
        return
    of_tenants: dict[Any, list[uuid.UUID]] = defaultdict(list)
    for id, tenant in Delivery.objects.filter(pk__in=ids).order_by("id").values_list("pk", "endpoint__tenant"):
        of_tenants[tenant].append(id)
    for tenant, chosen in of_tenants.items():
        target = to_public(Delivery.prefix, chosen[0]) if len(chosen) == 1 else ""
        AuditEntry.note_by(request.user, tenant, action, target, f"{len(chosen):,} selected in the admin")


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "kind", "type", "operation", "subject", "source", "received_at")
    list_filter = ("source",)
    search_fields = ("id",)
    search_help_text = "An event's id (evt_…), or a whole subject (did:…)."
    fields = ("public_id", "source", "kind", "type", "operation", "subject", "origin", "origin_cursor", "occurred_at", "received_at", "owed", "body_text")
    readonly_fields = ("public_id", "owed", "body_text")
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Event]":
        return super().get_queryset(request).prefetch_related("source").defer("body")

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        term = search_term.strip()
        if not term:
            return queryset, False
        found = from_public(term)
        return queryset.filter(pk=found) if found else queryset.filter(subject=term), False

    @admin.display(description="id", ordering="id")
    def public_id(self, event: Event) -> str:
        return event.public_id

    @admin.display(description="body")
    def body_text(self, event: Event) -> str:
        return event.text()

    @admin.display(description="deliveries")
    def owed(self, event: Event) -> SafeString:
        return format_html('<a href="{}?q={}">Deliveries of this event</a>', reverse("admin:delivery_delivery_changelist"), event.public_id)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "state", "endpoint", "attempt_count", "last_status", "last_error", "created_at", "due_at", "event_link")
    list_filter = ("state", "endpoint")
    search_fields = ("id",)
    search_help_text = "The id of a delivery (dlv_…), of an event (evt_…) or of an endpoint (ep_…)."
    fields = (
        "public_id", "event_link", "endpoint", "state", "due_at", "attempt_count", "tries",
        "last_status", "last_error", "created_at", "settled_at", "attempts_link",
    )  # fmt: skip
    readonly_fields = ("public_id", "event_link", "attempts_link")
    actions = ("replay_selected", "dismiss_selected", "replay_matching", "dismiss_matching")
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Delivery]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        term = search_term.strip()
        if not term:
            return queryset, False
        column = {Event.prefix: "event", Endpoint.prefix: "endpoint"}.get(term.partition("_")[0], "pk")
        found = from_public(term)
        return queryset.filter(**{column: found}) if found else queryset.none(), False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PERMISSION)

    def view_on_site(self, obj: Delivery) -> str:
        return reverse("delivery", args=[obj.pk])

    @admin.action(description="Replay selected deliveries", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: "QuerySet[Delivery]") -> None:
        # Without its event a delivery has nothing to send.
        whole = queryset.filter(Exists(Event.objects.filter(pk=OuterRef("event_id"))))
        ids = list(whole.order_by("id").values_list("pk", flat=True)[: REPLAY_LIMIT + 1])
        with transaction.atomic():
            count = replay.replay(ids[:REPLAY_LIMIT])
            _note(request, "delivery.replay", ids[:REPLAY_LIMIT], count)
        self.message_user(request, f"{count:,} put back in the queue.", messages.SUCCESS if count else messages.WARNING)
        if len(ids) > REPLAY_LIMIT:
            words = f"Only the oldest {REPLAY_LIMIT:,} were taken: run the action again for the rest, or replay all that match the filters."
            self.message_user(request, words, messages.WARNING)

    @admin.action(description="Dismiss selected dead deliveries", permissions=["replay"])
    def dismiss_selected(self, request: HttpRequest, queryset: "QuerySet[Delivery]") -> None:
        ids = list(queryset.dead().order_by("id").values_list("pk", flat=True)[: REPLAY_LIMIT + 1])  # type: ignore[attr-defined]
        with transaction.atomic():
            count = replay.dismiss(ids[:REPLAY_LIMIT])
            _note(request, "delivery.dismiss", ids[:REPLAY_LIMIT], count)
        words = f"{count:,} dismissed: cancelled now, and still to be replayed as long as they are kept."
        self.message_user(request, words if count else "None of these is dead: nothing was dismissed.", messages.SUCCESS if count else messages.WARNING)
        if len(ids) > REPLAY_LIMIT:
            self.message_user(request, f"Only the oldest {REPLAY_LIMIT:,} were taken: dismiss all that match the filters instead.", messages.WARNING)

    @admin.action(description="Replay all that match the filters…", permissions=["replay"])
    def replay_matching(self, request: HttpRequest, queryset: "QuerySet[Delivery]") -> HttpResponse | None:
        return confirm(self, request, "replay_matching", "Replay all that match")

    @admin.action(description="Dismiss all dead ones that match the filters…", permissions=["replay"])
    def dismiss_matching(self, request: HttpRequest, queryset: "QuerySet[Delivery]") -> HttpResponse | None:
        return confirm(self, request, "dismiss_matching", "Dismiss all dead ones that match")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Actions on all that match need nothing selected, which the admin would ask for."""
        if request.POST.get("action") in ("replay_matching", "dismiss_matching"):
            post = request.POST.copy()
            post.setlist(ACTION_CHECKBOX_NAME, [str(uuid.UUID(int=0))])
            request.POST = post  # type: ignore[assignment]
        return super().changelist_view(request, extra_context)

    @admin.display(description="id", ordering="id")
    def public_id(self, delivery: Delivery) -> str:
        return delivery.public_id

    @admin.display(description="event")
    def event_link(self, delivery: Delivery) -> SafeString:
        return _link("event", Event.prefix, delivery.event_id)

    @admin.display(description="attempts")
    def attempts_link(self, delivery: Delivery) -> SafeString:
        return format_html('<a href="{}?q={}">Attempts of this delivery</a>', reverse("admin:delivery_attempt_changelist"), delivery.public_id)


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    list_display = ("public_id", "delivery_link", "number", "started_at", "status", "error", "total_ms")
    ordering = ("-id",)
    search_fields = ("id",)
    search_help_text = "The id of an attempt (att_…) or of a delivery (dlv_…)."
    fields = (
        "public_id", "delivery_link", "number", "started_at", "status", "error", "error_detail",
        "dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms", "response_headers", "response_text",
    )  # fmt: skip
    readonly_fields = ("public_id", "delivery_link", "response_text")
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Attempt]":
        return super().get_queryset(request).defer("response_headers", "response_body")

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        term = search_term.strip()
        if not term:
            return queryset, False
        found = from_public(term)
        column = "pk" if term.startswith(f"{Attempt.prefix}_") else "delivery"
        return queryset.filter(**{column: found}) if found else queryset.none(), False

    def view_on_site(self, obj: Attempt) -> str:
        return reverse("delivery", args=[obj.delivery_id])

    @admin.display(description="id", ordering="id")
    def public_id(self, attempt: Attempt) -> str:
        return attempt.public_id

    @admin.display(description="delivery")
    def delivery_link(self, attempt: Attempt) -> SafeString:
        return _link("delivery", Delivery.prefix, attempt.delivery_id)

    @admin.display(description="response body")
    def response_text(self, attempt: Attempt) -> str:
        return attempt.response_text()
