"""What the processes share, to look at: leases, tallies, the health of endpoints."""

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest

from delivery.models import AttemptTally, EndpointHealth, EventTally, Lease
from subscriptions.models import Endpoint
from subscriptions.tables import ReadOnlyAdmin


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("name", "owner", "expires_at")
    fields = ("name", "owner", "expires_at")


@admin.register(EventTally)
class EventTallyAdmin(ReadOnlyAdmin):
    list_display = ("minute", "source", "kind", "type", "received", "stored", "duplicate", "unmatched", "invalid")
    list_filter = ("source",)
    list_select_related = ("source",)
    # Along the index of its unique constraint.
    ordering = ("-minute", "-source_id", "-kind", "-type")


@admin.register(AttemptTally)
class AttemptTallyAdmin(ReadOnlyAdmin):
    list_display = ("minute", "endpoint", "outcome", "attempts", "mean_ms")
    list_filter = ("outcome",)
    ordering = ("-minute", "-endpoint_id", "-outcome")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[AttemptTally]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))

    @admin.display(description="mean (ms)")
    def mean_ms(self, tally: AttemptTally) -> str:
        return f"{tally.total_ms / tally.attempts:.1f}" if tally.attempts else "–"


@admin.register(EndpointHealth)
class EndpointHealthAdmin(ReadOnlyAdmin):
    """The columns as lanes read them. What they mean in words is on the endpoint's own page."""

    list_display = ("endpoint", "failures", "failing_since", "trips", "open_until", "ramp", "paused_until", "reason")
    ordering = ("-endpoint",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[EndpointHealth]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))
