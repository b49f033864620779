"""What the processes share, to look at: leases, tallies, the health of endpoints."""

from typing import ClassVar

from django.contrib import admin
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest

from delivery.models import AttemptTally, AttemptTotal, EndpointHealth, EventTally, EventTotal, Lease, TotalMark
from delivery.models.tallies import HISTOGRAM
from subscriptions.models import Endpoint
from subscriptions.table_filters import PeriodFilter, chosen, words
from subscriptions.tables import BigTable, ReadOnlyAdmin

_KINDS = [(kind, kind, Q(kind=kind)) for kind in ("commit", "identity", "account", "sync", "api")]
# As lanes and replays count them.
_OUTCOMES = [(outcome, outcome, Q(outcome=outcome)) for outcome in ("delivered", "retry", "dead", "cancelled")]


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("name", "owner", "expires_at")
    fields = ("name", "owner", "expires_at")


@admin.register(EventTally)
class EventTallyAdmin(BigTable):
    list_display = ("minute", "source", "kind", "type", "received", "stored", "duplicate", "unmatched", "invalid")
    list_filter = (PeriodFilter, chosen("source"), words("kind", _KINDS))
    list_select_related = ("source",)
    search_fields = ("type",)
    search_help_text = "A whole collection or type, such as app.bsky.feed.post."
    period_column = "minute"
    window = 20_000
    # Along the index of its unique constraint.
    ordering = ("-minute", "-source_id", "-kind", "-type")

    def found(self, rows: "QuerySet[EventTally]", term: str, prefix: str) -> "QuerySet[EventTally]":
        return rows.filter(type=term)

    def bounded(self, shown, rows):  # type: ignore[no-untyped-def]
        return self.windowed(shown, rows) if shown.filtered or shown.query.strip() else rows


@admin.register(AttemptTally)
class AttemptTallyAdmin(BigTable):
    list_display = ("minute", "endpoint", "outcome", "attempts", "mean_ms")
    fields: ClassVar[tuple[str, ...]] = ("minute", "endpoint", "outcome", "attempts", "total_ms", *HISTOGRAM)
    list_filter = (PeriodFilter, words("outcome", _OUTCOMES), chosen("endpoint"))
    period_column = "minute"
    window = 20_000
    ordering = ("-minute", "-endpoint_id", "-outcome")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[AttemptTally]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))

    @admin.display(description="mean (ms)")
    def mean_ms(self, tally: AttemptTally) -> str:
        return f"{tally.total_ms / tally.attempts:.1f}" if tally.attempts else "–"


@admin.register(EventTotal)
class EventTotalAdmin(ReadOnlyAdmin):
    """Ids, and no links: what was counted outlives its source."""

    list_display = ("hour", "source_id", "received", "stored", "duplicate", "unmatched", "invalid")
    fields = ("hour", "source_id", "received", "stored", "duplicate", "unmatched", "invalid")
    readonly_fields = fields
    ordering = ("-hour", "-source_id")


@admin.register(AttemptTotal)
class AttemptTotalAdmin(ReadOnlyAdmin):
    list_display = ("hour", "endpoint_id", "outcome", "attempts", "total_us")
    fields: ClassVar[tuple[str, ...]] = ("hour", "endpoint_id", "outcome", "attempts", "total_us", *HISTOGRAM)
    readonly_fields = fields
    ordering = ("-hour", "-endpoint_id", "-outcome")


@admin.register(TotalMark)
class TotalMarkAdmin(ReadOnlyAdmin):
    list_display = ("tally", "until", "closed")
    fields = ("tally", "until", "closed")


@admin.register(EndpointHealth)
class EndpointHealthAdmin(ReadOnlyAdmin):
    """The columns as lanes read them. What they mean in words is on the endpoint's own page."""

    list_display = ("endpoint", "failures", "failing_since", "trips", "open_until", "ramp", "paused_until", "reason")
    search_fields = ("endpoint__name", "endpoint__url")
    search_help_text = "A part of an endpoint's name or URL."
    ordering = ("-endpoint",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[EndpointHealth]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))
