"""Deliveries in the admin: to look at, to replay and to dismiss; which only `outbox`, `lanes` and `replay` write."""

import uuid
from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from delivery import replay
from delivery.admin import links
from delivery.admin.noting import note_moved
from delivery.admin.replays import PERMISSION, confirm, endpoints_of
from delivery.engines import engine
from delivery.models import Attempt, Delivery, Event
from delivery.models.flow import in_state
from delivery.replay.moves import among
from subscriptions.confirming import ask, confirmed, counted
from subscriptions.ids import from_public
from subscriptions.models import Endpoint
from subscriptions.table_filters import PeriodFilter, chosen, words
from subscriptions.tables import BigTable, BoundedChangeList

# How many deliveries one run of an action moves; the rest is a second run away, or a replay of all that match.
REPLAY_LIMIT = 10_000
# Of all endpoints, so many of the newest in a state are found by the index of each. As one page, and no more.
LISTED = 200
State = Delivery.State
_STATES = [(state.label, state.label.capitalize(), Q(state=state)) for state in State]
_BY_LABEL = {state.label: state for state in State}


@admin.register(Delivery)
class DeliveryAdmin(BigTable):
    list_display = ("public_id", "state", "endpoint", "attempt_count", "last_status", "last_error", "created_at", "due_at", "event_link")
    list_filter = (PeriodFilter, words("state", _STATES), chosen("endpoint"))
    search_fields = ("id",)
    search_help_text = "The id of a delivery (dlv_…), of an event (evt_…) or of an endpoint (ep_…), or a part of an endpoint's URL."
    fields = (
        "public_id", "related", "endpoint", "state", "due_at", "attempt_count", "tries",
        "last_status", "last_error", "created_at", "settled_at",
    )  # fmt: skip
    readonly_fields = ("public_id", "related")
    actions = ("replay_selected", "dismiss_selected", "replay_matching", "dismiss_matching")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Delivery]":
        return super().get_queryset(request).prefetch_related(Prefetch("endpoint", Endpoint.objects.only("id", "name")))

    def found(self, rows: "QuerySet[Any]", term: str, prefix: str) -> "QuerySet[Any]":
        endpoints = endpoints_of(term)
        if endpoints is not None:
            return rows.filter(endpoint__in=endpoints)
        id = from_public(term)
        return rows.filter(**{"event" if prefix == Event.prefix else "pk": id}) if id else rows.none()

    def bounded(self, shown: BoundedChangeList, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        term, endpoint = shown.query.strip(), shown.chosen("endpoint")
        searched = endpoints_of(term) if term else None
        if term and searched is None:
            # One delivery, or those of one event.
            return rows
        wanted = [endpoint] if endpoint else searched
        one = wanted is not None and len(wanted) == 1
        state = _BY_LABEL.get(shown.chosen("state") or "")
        if state is None:
            return rows if one or wanted is None else self._newest(shown, rows, wanted, None)
        if state in (State.DELIVERED, State.CANCELLED):
            return self.windowed(shown, rows, Delivery.objects.filter(endpoint=wanted[0]) if one and wanted else None)
        # Along the index of the endpoint's dead ones.
        return rows if one and state == State.DEAD else self._newest(shown, rows, wanted, state)

    def _newest(self, shown: BoundedChangeList, rows: "QuerySet[Any]", endpoints: list[uuid.UUID] | None, state: State | None) -> "QuerySet[Any]":
        """By the index of each endpoint. A planner would rather read everybody's, newest first, until a page of these is found."""
        period = shown.period
        if endpoints is None:
            endpoints = list(Endpoint.objects.order_by().values_list("pk", flat=True))
        found = engine().newest(endpoints, period.before, LISTED + 1, state, together=True) if endpoints else []
        ids = [id for _, id in found if not period.first or id >= period.first]
        if len(ids) > LISTED:
            shown.notes.append(f"There are more: the newest {LISTED} of these are listed. Choose an endpoint or an earlier time to see others.")
        return rows.filter(pk__in=ids[:LISTED])

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PERMISSION)

    def view_on_site(self, obj: Delivery) -> str:
        return reverse("delivery", args=[obj.pk])

    # --- actions -----------------------------------------------------------------------------------------------------

    @admin.action(description="Replay selected deliveries…", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: "QuerySet[Delivery]") -> HttpResponse | None:
        ids = _chosen(queryset)
        if not confirmed(request):
            states, gone = _counts(ids)
            lines = [f"{counted(len(ids) - gone, 'delivery', 'deliveries')} will be put back in the queue."]
            if states:
                lines.append(f"Selected: {_said(states)}.")
            if gone:
                lines.append(f"{counted(gone, 'delivery', 'deliveries')} cannot be replayed: the event has been pruned, so there is nothing to send.")
            happens = "They become due at once, with a fresh retry schedule. Those that wait for a retry are tried now."
            return ask(self, request, "Replay deliveries", lines, queryset, possible=gone < len(ids), happens=happens, button="Replay")
        with transaction.atomic():
            count = replay.replay(ids)
            if count:
                note_moved(request.user, "delivery.replay", ids, "in the admin")
        self.message_user(request, f"{count:,} put back in the queue.", messages.SUCCESS if count else messages.WARNING)
        self._say_limit(request, ids)
        return None

    @admin.action(description="Dismiss selected dead deliveries…", permissions=["replay"])
    def dismiss_selected(self, request: HttpRequest, queryset: "QuerySet[Delivery]") -> HttpResponse | None:
        ids = _chosen(queryset)
        if not confirmed(request):
            states, _ = _counts(ids)
            dead = states.get(State.DEAD, 0)
            lines = [f"{counted(dead, 'dead delivery', 'dead deliveries')} will be dismissed." if dead else "None of these is dead, so none can be dismissed."]
            if dead < len(ids):
                lines.append(f"Selected: {_said(states)}. Only dead ones are dismissed.")
            happens = "Dismissed deliveries are cancelled. They can still be replayed as long as they are kept."
            return ask(self, request, "Dismiss dead deliveries", lines, queryset, possible=bool(dead), happens=happens, button="Dismiss")
        with transaction.atomic():
            # Those of the tenants that lose one by it, as they are before.
            were_dead = list(among(Delivery.objects.filter(in_state(State.DEAD)).order_by(), ids).values_list("pk", flat=True))
            count = replay.dismiss(ids)
            if count:
                note_moved(request.user, "delivery.dismiss", were_dead, "in the admin")
        words = f"{count:,} dismissed: cancelled now, and still to be replayed as long as they are kept."
        self.message_user(request, words if count else "None of these is dead: nothing was dismissed.", messages.SUCCESS if count else messages.WARNING)
        self._say_limit(request, ids)
        return None

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

    def _say_limit(self, request: HttpRequest, ids: list[uuid.UUID]) -> None:
        if len(ids) == REPLAY_LIMIT:
            words = f"No more than the newest {REPLAY_LIMIT:,} were taken: for the rest, choose the action for all that match the filters."
            self.message_user(request, words, messages.WARNING)

    # --- columns -----------------------------------------------------------------------------------------------------

    @admin.display(description="id")
    def public_id(self, delivery: Delivery) -> str:
        return delivery.public_id

    @admin.display(description="event")
    def event_link(self, delivery: Delivery) -> SafeString:
        return links.to_row(Event, delivery.event_id)

    @admin.display(description="related")
    def related(self, delivery: Delivery) -> SafeString:
        return links.several(
            links.to_row(Event, delivery.event_id),
            links.to_list(Attempt, "Attempts of this delivery", {"q": delivery.public_id}),
            links.to_list(Delivery, "Other deliveries of its event", {"q": Event(pk=delivery.event_id).public_id}),
        )


def _chosen(rows: "QuerySet[Delivery]") -> list[uuid.UUID]:
    return list(rows.values_list("pk", flat=True)[:REPLAY_LIMIT])


def _counts(ids: list[uuid.UUID]) -> tuple[Counter[int], int]:
    """How many there are in each state, and of how many the event is gone."""
    rows = list(among(Delivery.objects.order_by(), ids).values_list("state", "event_id"))
    kept = set(among(Event.objects.order_by(), list({event for _, event in rows})).values_list("pk", flat=True))
    return Counter(state for state, _ in rows), sum(event not in kept for _, event in rows)


def _said(states: Counter[int]) -> str:
    return ", ".join(f"{states[state]:,} {state.label}" for state in State if states[state])
