"""What happened, to look at: events and attempts, which only `outbox` and `lanes` write. Deliveries are in `deliveries.py`."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from delivery.admin import links
from delivery.models import Attempt, Delivery, Event
from subscriptions.ids import from_public
from subscriptions.table_filters import PeriodFilter, chosen, words
from subscriptions.tables import BigTable, BoundedChangeList

_KINDS = [(kind, kind, Q(kind=kind)) for kind in ("commit", "identity", "account", "sync", "api")]
_OPERATIONS = [(operation, operation, Q(operation=operation)) for operation in ("create", "update", "delete")]
_SUCCEEDED = Q(status__gte=200, status__lt=300)
_OUTCOMES = [
    ("succeeded", "Succeeded (2xx)", _SUCCEEDED),
    ("refused", "Another status", Q(status__isnull=False) & ~_SUCCEEDED),
    ("unanswered", "No answer", Q(status__isnull=True)),
]


@admin.register(Event)
class EventAdmin(BigTable):
    list_display = ("public_id", "kind", "type", "operation", "subject", "source", "received_at")
    list_filter = (PeriodFilter, chosen("source"), words("kind", _KINDS), words("operation", _OPERATIONS))
    search_fields = ("id",)
    search_help_text = "An event's id (evt_…), or a whole subject (did:…)."
    fields = ("public_id", "source", "kind", "type", "operation", "subject", "origin", "origin_cursor", "occurred_at", "received_at", "related", "body_text")
    readonly_fields = ("public_id", "related", "body_text")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Event]":
        return super().get_queryset(request).prefetch_related("source").defer("body")

    def found(self, rows: "QuerySet[Any]", term: str, prefix: str) -> "QuerySet[Any]":
        return super().found(rows, term, prefix) if from_public(term) else rows.filter(subject=term)

    def bounded(self, shown: BoundedChangeList, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        term = shown.query.strip()
        if term and shown.filtered and not from_public(term):
            return self.windowed(shown, rows, Event.objects.filter(subject=term))
        return super().bounded(shown, rows)

    def view_on_site(self, obj: Event) -> str:
        return reverse("event", args=[obj.pk])

    @admin.display(description="id")
    def public_id(self, event: Event) -> str:
        return event.public_id

    @admin.display(description="body")
    def body_text(self, event: Event) -> str:
        return event.text()

    @admin.display(description="related")
    def related(self, event: Event) -> SafeString:
        found = [links.to_list(Delivery, "Deliveries of this event", {"q": event.public_id})]
        if event.subject:
            found.append(links.to_list(Event, "Events of this subject", {"q": event.subject}))
        return links.several(*found)


@admin.register(Attempt)
class AttemptAdmin(BigTable):
    list_display = ("public_id", "delivery_link", "number", "started_at", "status", "error", "total_ms")
    list_filter = (PeriodFilter, words("outcome", _OUTCOMES))
    search_fields = ("id",)
    search_help_text = "The id of an attempt (att_…) or of a delivery (dlv_…)."
    fields = (
        "public_id", "delivery_link", "number", "started_at", "status", "error", "error_detail",
        "dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms", "response_headers", "response_text", "batch_id",
    )  # fmt: skip
    readonly_fields = ("public_id", "delivery_link", "response_text", "batch_id")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Attempt]":
        return super().get_queryset(request).defer("response_headers", "response_body")

    def found(self, rows: "QuerySet[Any]", term: str, prefix: str) -> "QuerySet[Any]":
        if prefix == Attempt.prefix:
            return super().found(rows, term, prefix)
        id = from_public(term)
        return rows.filter(delivery=id) if id else rows.none()

    def bounded(self, shown: BoundedChangeList, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        # A delivery has few.
        return rows if shown.query else super().bounded(shown, rows)

    def view_on_site(self, obj: Attempt) -> str:
        return reverse("delivery", args=[obj.delivery_id])

    @admin.display(description="id")
    def public_id(self, attempt: Attempt) -> str:
        return attempt.public_id

    @admin.display(description="delivery")
    def delivery_link(self, attempt: Attempt) -> SafeString:
        return links.to_row(Delivery, attempt.delivery_id)

    @admin.display(description="response body")
    def response_text(self, attempt: Attempt) -> str:
        return attempt.response_text()
