"""Endpoints, for the operator: what they are, how they stand, and what may be asked of them.

Nothing here shows a secret, but for the pages that `rotating` answers with: a signing secret shows its last characters, a token
whether there is one, a header its name.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from delivery import endpoints, verification
from delivery.admin import acts, links, rotating, signing_secrets
from delivery.models import Delivery, EndpointHealth, Replay
from delivery.standing import Standing, has_trouble, standing
from subscriptions import quotas
from subscriptions.admin import ChoosesTheOnlyOne, NeverDeleted, SearchById, SubscriptionInline
from subscriptions.confirming import ask, confirmed, counted
from subscriptions.forms import EndpointForm
from subscriptions.models import AuditEntry, Endpoint, EndpointPastState, EndpointQuerySet, Subscription
from subscriptions.rooms import ChecksRoom, comes_to
from subscriptions.table_filters import chosen
from subscriptions.tables import PicksRows

# What would be cancelled is counted no further than this.
PENDING_LIMIT = 100_000
State = Endpoint.State
_SECRETS = ("previous_secret", "previous_secret_expires_at")


class Effect(NamedTuple):
    """What an act means for endpoints, said before it is done."""

    concerns: Callable[[Endpoint], bool]
    what: str
    happens: str


_GENTLY = "What waits for them is sent, gently: one request at first."
EFFECTS = {
    "pause": Effect(lambda each: each.state == State.ACTIVE, "active, to be paused.", "Their deliveries wait until they are resumed."),
    "resume": Effect(lambda each: each.state == State.PAUSED, "paused, to be resumed.", _GENTLY),
    "disable": Effect(lambda each: each.state in (State.ACTIVE, State.PAUSED), "to be disabled.", "Their deliveries wait until they are enabled."),
    "enable": Effect(lambda each: each.state == State.DISABLED, "disabled, to be enabled.", _GENTLY),
    "reset_breaker": Effect(
        lambda each: hasattr(each, "health") and has_trouble(each.health), "in trouble, to be forgotten.", f"Failures and Retry-After are forgotten. {_GENTLY}"
    ),
}


@admin.register(Endpoint)
class EndpointAdmin(ChecksRoom, ChoosesTheOnlyOne, SearchById, NeverDeleted, PicksRows):
    form = EndpointForm
    list_display = ("name", "state", "state_reason", "breaker", "failing_since", "last_failure", "url", "origin", "tenant", "lane", "public_id")
    list_filter = ("state", "origin", chosen("tenant"))
    list_per_page = 50
    list_max_show_all = 200
    list_select_related = ("tenant", "health")
    search_fields = ("name", "url")
    search_help_text = "A part of the name or the URL, or an id (ep_…)."
    autocomplete_fields = ("tenant",)
    readonly_fields = (
        *("public_id", "related", "origin", "state", "state_reason", "state_changed_at", "lane", "created_at"),
        *("breaker", "failing_since", "last_failure", "secret_hint", "bearer_hint"),
    )
    inlines = (SubscriptionInline,)
    actions = (
        *("pause", "resume", "disable", "enable", "reset_breaker", "verify", "send_test"),
        *("rotate_secrets", "reveal_secret", "delete_endpoints"),
    )
    fieldsets = (
        (None, {"fields": ("tenant", "name", "url", "public_id", "origin", "related")}),
        (
            "State",
            {
                "fields": ("state", "state_reason", "state_changed_at", "breaker", "failing_since", "last_failure", "lane"),
                "description": "Pause, resume, delete and the like are actions of the list of endpoints.",
            },
        ),
        ("Signature and headers", {"fields": ("signature_scheme", "secret_hint", "secret", "bearer_hint", "bearer_token", "no_bearer_token", "extra_headers")}),
        ("Limits", {"fields": ("timeout_s", "max_in_flight", "rate_limit_per_s", "priority")}),
        ("Order and batches", {"fields": ("ordered", "batch_size", "batch_wait_ms")}),
        (
            "Retries",
            {
                "fields": (
                    *("retry_strategy", "retry_schedule_s", "retry_first_s", "retry_factor", "retry_step_s", "retry_longest_s", "retry_count"),
                    *("retry_jitter_percent", "retry_on"),
                ),
                "description": "The strategy says which of the numbers count; the others are kept for when it changes.",
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Endpoint]":
        rows = cast(EndpointQuerySet, super().get_queryset(request)).present()
        return rows if request.resolver_match and request.resolver_match.kwargs else rows.without_secrets()

    def find_room(self, form: Any) -> None:
        if tenant := comes_to(form, "tenant"):
            quotas.check_endpoint(quotas.hold(tenant))

    def view_on_site(self, obj: Endpoint) -> str:
        return reverse("endpoint", args=[obj.pk])

    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: bool) -> None:
        if change:
            # Its form's columns alone: what a lane does to the state at the same moment stays.
            obj.save(update_fields=[*EndpointForm.Meta.fields, *_SECRETS])
            if "url" in form.changed_data:
                # What its old URL did says nothing of the new one.
                endpoints.reset_breaker(Endpoint.objects.filter(pk=obj.pk))
            return
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Endpoint, post_url_continue: str | None = None) -> HttpResponse:
        """A secret that was made here is shown on the page that answers: a message would be stored, and shown to whoever comes next."""
        response = super().response_add(request, obj, post_url_continue)
        # As `EndpointForm` has it: an empty box is no secret of somebody's own.
        if request.POST.get("secret") or "_popup" in request.POST:
            return response
        words = f"The signing secret of {obj.name} is {obj.secret} (shown only now: give it to the receiver)."
        return rotating.shown(self, request, "New signing secret", [acts.Told(messages.WARNING, words)], obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        endpoint: Endpoint = form.instance
        if not endpoint.subscriptions.active().exists():
            self.message_user(request, f"{endpoint.name} has no active subscription yet: nothing will be sent to it. Add one below.", messages.WARNING)
        if refusal := verification.refused_address(endpoint):
            self.message_user(request, f"Nothing can be sent to {endpoint.url}: {refusal}. JETRELAY_ALLOWED_NETWORKS may open its network.", messages.WARNING)

    # --- actions -----------------------------------------------------------------------------------------------------

    @admin.action(description="Pause selected endpoints…", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        return self._act(request, "pause", queryset)

    @admin.action(description="Resume selected endpoints…", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        return self._act(request, "resume", queryset)

    @admin.action(description="Disable selected endpoints…", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        return self._act(request, "disable", queryset)

    @admin.action(description="Enable selected endpoints…", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        return self._act(request, "enable", queryset)

    @admin.action(description="Reset the breaker of selected endpoints…", permissions=["change"])
    def reset_breaker(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        return self._act(request, "reset_breaker", queryset)

    @admin.action(description="Verify the selected endpoint by a challenge", permissions=["change"])
    def verify(self, request: HttpRequest, queryset: EndpointQuerySet) -> None:
        self._with_one(request, queryset, acts.verify, "Its answer is waited for.")

    @admin.action(description="Send a test event to the selected endpoint", permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: EndpointQuerySet) -> None:
        self._with_one(request, queryset, acts.send_test, "Its answer is waited for.")

    @admin.action(description="Rotate the signing secrets of selected endpoints…", permissions=["change"])
    def rotate_secrets(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse:
        """Asks for the overlap, then shows each new secret once, on the page that answers: a message would be stored."""
        return rotating.answer(self, request, queryset)

    @admin.action(description="Reveal the signing secret of the selected endpoint (this is logged)", permissions=["change"])
    def reveal_secret(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        ids = list(queryset.values_list("pk", flat=True)[:2])
        if len(ids) == 1:
            return rotating.shown(self, request, "Signing secret", [signing_secrets.reveal(request.user, ids[0])])
        self._tell(request, acts.Told(messages.ERROR, "Select one endpoint. Its secret is shown once."))
        return None

    def has_remove_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(acts.DELETE_PERMISSION)

    @admin.action(description="Delete selected endpoints, for good", permissions=["remove"])
    def delete_endpoints(self, request: HttpRequest, queryset: EndpointQuerySet) -> HttpResponse | None:
        """Says what it will cost, and does it once that is confirmed."""
        if "apply" not in request.POST:
            rows = [(endpoint, endpoints.why_not_deletable(endpoint), _pending(endpoint)) for endpoint in queryset]
            context = {"title": "Delete endpoints", "opts": self.opts, "rows": rows, "possible": any(not why for _, why, _ in rows)}
            return TemplateResponse(request, "admin/endpoint_delete.html", self.admin_site.each_context(request) | context)
        for endpoint in queryset:
            self._tell(request, acts.delete(request.user, endpoint))
        return None

    def _act(self, request: HttpRequest, name: str, chosen: EndpointQuerySet) -> HttpResponse | None:
        if confirmed(request):
            self._tell(request, acts.ACTS[name].carry_out(request.user, chosen, "in the admin"))
            return None
        effect = EFFECTS[name]
        rows = list(chosen)
        concerned = sum(effect.concerns(endpoint) for endpoint in rows)
        lines = [f"{concerned:,} of {counted(len(rows), 'endpoint')} selected: {effect.what}" if concerned else acts.ACTS[name].nothing]
        states = Counter(endpoint.get_state_display().lower() for endpoint in rows)
        lines.append(f"Selected: {', '.join(f'{count:,} {state}' for state, count in states.items())}.")
        label = acts.ACTS[name].label
        return ask(self, request, f"{label}: endpoints", lines, chosen, possible=bool(concerned), happens=effect.happens, button=label)

    def _with_one(self, request: HttpRequest, chosen: EndpointQuerySet, do: Callable[[Any, UUID], acts.Told], why: str) -> None:
        ids = list(chosen.values_list("pk", flat=True)[:2])
        self._tell(request, do(request.user, ids[0]) if len(ids) == 1 else acts.Told(messages.ERROR, f"Select one endpoint. {why}"))

    def _tell(self, request: HttpRequest, told: acts.Told) -> None:
        self.message_user(request, told.words, told.level)

    # --- columns -----------------------------------------------------------------------------------------------------

    @admin.display(description="related")
    def related(self, endpoint: Endpoint) -> SafeString | str:
        if endpoint._state.adding:
            return "–"
        mine, id = {"endpoint": endpoint.public_id}, {"q": endpoint.public_id}
        return links.several(
            links.to_list(Delivery, "Deliveries", mine),
            links.to_list(Delivery, "Dead letters", mine | {"state": "dead"}),
            links.to_list(Subscription, "Subscriptions", mine),
            links.to_list(Replay, "Replays", mine),
            links.to_list(EndpointPastState, "Past states", mine),
            links.to_list(EndpointHealth, "Health", id),
            links.to_list(AuditEntry, "Audit entries", id),
        )

    @admin.display(description="breaker")
    def breaker(self, endpoint: Endpoint) -> str:
        return _standing(endpoint).words or "–"

    @admin.display(description="failing since", ordering="health__failing_since")
    def failing_since(self, endpoint: Endpoint) -> str:
        since = _standing(endpoint).failing_since
        return f"{since:%Y-%m-%d %H:%M:%S} UTC" if since else "–"

    @admin.display(description="last failure")
    def last_failure(self, endpoint: Endpoint) -> str:
        return _standing(endpoint).last_failure or "–"

    @admin.display(description="lane")
    def lane(self, endpoint: Endpoint) -> int:
        return endpoint.lane

    @admin.display(description="signing secret")
    def secret_hint(self, endpoint: Endpoint) -> str:
        if endpoint._state.adding:
            return "–"
        hint = f"ends in …{endpoint.secret[-4:]}"
        expires = endpoint.previous_secret_expires_at
        if endpoint.previous_secret and expires and expires > timezone.now():
            hint += f"; the one before, …{endpoint.previous_secret[-4:]}, is valid until {expires:%Y-%m-%d %H:%M} UTC"
        return hint

    @admin.display(description="bearer token")
    def bearer_hint(self, endpoint: Endpoint) -> str:
        return "set" if endpoint.bearer_token and not endpoint._state.adding else "none"


def _standing(endpoint: Endpoint) -> Standing:
    return standing(endpoint, timezone.now())


def _pending(endpoint: Endpoint) -> str:
    count = Delivery.objects.pending().filter(endpoint=endpoint).order_by()[: PENDING_LIMIT + 1].count()
    return f"{count:,}" if count <= PENDING_LIMIT else f"more than {PENDING_LIMIT:,}"
