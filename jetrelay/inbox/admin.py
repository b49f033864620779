"""Inboxes and what arrived in them, to look at."""

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from delivery.admin import ReadOnlyAdmin
from jetrelay.inbox.models import Inbox, InboxMessage
from subscriptions.models import Endpoint

# Without body and headers, which the list does not show.
_LISTED = ("webhook_id", "received_at", "verified", "verdict")


@admin.register(Inbox)
class InboxAdmin(ReadOnlyAdmin):
    list_display = ("endpoint", "received")
    search_fields = ("endpoint__name",)
    fields = ("endpoint", "received")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Inbox]":
        return super().get_queryset(request).defer("token").prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))

    def view_on_site(self, obj: Inbox) -> str:
        return reverse("inbox", args=[obj.token])


@admin.register(InboxMessage)
class InboxMessageAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "received_at", "verified", "verdict")
    list_filter = ("verified",)
    search_fields = ("=webhook_id",)
    search_help_text = "A whole webhook-id."
    fields = ("inbox", "webhook_id", "received_at", "verified", "verdict", "headers", "body_text")
    readonly_fields = ("body_text",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[InboxMessage]":
        return super().get_queryset(request).select_related("inbox__endpoint").only("inbox__endpoint__name", *_LISTED)

    def view_on_site(self, obj: InboxMessage) -> str:
        return reverse("inbox", args=[obj.inbox.token])

    @admin.display(description="body")
    def body_text(self, message: InboxMessage) -> str:
        return message.text()
