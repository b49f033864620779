"""Requests that may come again, to look at. Their answers may hold secrets, and stay out of sight."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from jetrelay.api.models import IdempotentRequest
from subscriptions.models import Tenant
from subscriptions.table_filters import chosen
from subscriptions.tables import ReadOnlyAdmin


@admin.register(IdempotentRequest)
class IdempotentRequestAdmin(ReadOnlyAdmin):
    list_display = ("key", "tenant", "created_at", "status")
    list_filter = (chosen("tenant"),)
    list_select_related = ("tenant",)
    search_fields = ("key",)
    search_help_text = "A whole Idempotency-Key."
    fields = ("key", "tenant", "created_at", "taken_until", "status")
    ordering = ("-id",)
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> "QuerySet[IdempotentRequest]":
        return super().get_queryset(request).defer("answer", "fingerprint")

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        """By the index of tenants and their keys."""
        term = search_term.strip()
        return (queryset.filter(tenant__in=list(Tenant.objects.order_by()), key=term) if term else queryset), False
