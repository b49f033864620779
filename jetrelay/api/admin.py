"""Requests that may come again, to look at. Their answers may hold secrets, and stay out of sight."""

from django.contrib import admin

from jetrelay.api.models import IdempotentRequest
from subscriptions.tables import ReadOnlyAdmin


@admin.register(IdempotentRequest)
class IdempotentRequestAdmin(ReadOnlyAdmin):
    list_display = ("key", "tenant", "created_at", "status")
    list_select_related = ("tenant",)
    search_fields = ("=key",)
    fields = ("key", "tenant", "created_at", "taken_until", "status")

    def get_queryset(self, request):  # type: ignore[no-untyped-def]
        return super().get_queryset(request).defer("answer")
