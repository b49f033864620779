"""Inboxes and what arrived in them, to look at."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from delivery.admin import ReadOnlyAdmin
from jetrelay.inbox.models import Inbox, InboxMessage


@admin.register(Inbox)
class InboxAdmin(ReadOnlyAdmin):
    list_display = ("endpoint", "received")
    list_select_related = ("endpoint",)
    fields = ("endpoint", "received")

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
        return super().get_queryset(request).select_related("inbox__endpoint").defer("body", "headers")

    @admin.display(description="body")
    def body_text(self, message: InboxMessage) -> str:
        return message.text()
