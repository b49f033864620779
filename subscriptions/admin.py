"""Tenants, keys, sources, endpoints and subscriptions, for the operator.

Nothing here shows a secret: a signing secret by its last characters, a token by whether there is one, a header by its name.
"""

from datetime import timedelta
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from subscriptions import validation
from subscriptions.fields import PatternListField
from subscriptions.ids import from_public
from subscriptions.models import ApiKey, Endpoint, EndpointQuerySet, Source, Subscription, Tenant, new_secret

# Stands for a value that is not shown.
MASK = "***"
_LISTS: dict[Any, Any] = {PatternListField: {"widget": forms.Textarea(attrs={"rows": 2, "cols": 60})}}


class NeverDeleted(admin.ModelAdmin):  # type: ignore[type-arg]
    """Deliveries and events refer to these rows for good."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class SearchById(admin.ModelAdmin):  # type: ignore[type-arg]
    """Finds a row by its id as well, with the prefix or without."""

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> "tuple[QuerySet[Any], bool]":
        found = from_public(search_term)
        if found:
            return queryset.filter(pk=found), False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="id")
    def public_id(self, row: Any) -> str:
        return str(row.public_id)


@admin.register(Tenant)
class TenantAdmin(SearchById, NeverDeleted):
    list_display = ("name", "slug", "public_id", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ["name"]}
    readonly_fields = ("public_id", "created_at")


@admin.register(ApiKey)
class ApiKeyAdmin(SearchById, NeverDeleted):
    list_display = ("name", "visible_prefix", "tenant", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("name", "visible_prefix")
    fields = ("tenant", "name", "visible_prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    readonly_fields = ("tenant", "visible_prefix", "scopes", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A key is shown once, where it is made: by a command.
        return False

    @admin.action(description="Revoke selected keys, for good", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> None:
        revoked = queryset.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, f"{revoked:,} revoked.", messages.SUCCESS if revoked else messages.WARNING)


@admin.register(Source)
class SourceAdmin(SearchById, NeverDeleted):
    list_display = ("name", "kind", "tenant", "keep_unmatched", "public_id")
    list_filter = ("kind",)
    list_select_related = ("tenant",)
    search_fields = ("name",)
    readonly_fields = ("public_id", "created_at")


class SubscriptionForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Subscription
        fields = ("endpoint", "source", "collections", "dids", "operations", "kinds", "active")

    # An empty box is an empty list.
    def clean_dids(self) -> list[str]:
        return self.cleaned_data["dids"] or []

    def clean_operations(self) -> list[str]:
        return self.cleaned_data["operations"] or []


class ChoosesTheOnlyOne:
    """Where there is but one tenant or source to choose, it is chosen."""

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        candidates = list(db_field.remote_field.model._default_manager.values_list("pk", flat=True)[:2])
        if len(candidates) == 1:
            kwargs.setdefault("initial", candidates[0])
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]


class SubscriptionInline(ChoosesTheOnlyOne, admin.StackedInline):  # type: ignore[type-arg]
    model = Subscription
    form = SubscriptionForm
    extra = 0
    formfield_overrides = _LISTS
    show_change_link = True


@admin.register(Subscription)
class SubscriptionAdmin(SearchById):
    form = SubscriptionForm
    list_display = ("summary", "endpoint", "source", "operations", "kinds", "active")
    list_filter = ("active", "source")
    list_select_related = ("endpoint", "source")
    search_fields = ("endpoint__name", "collections")
    autocomplete_fields = ("endpoint", "source")
    formfield_overrides = _LISTS

    @admin.display(description="collections")
    def summary(self, subscription: Subscription) -> str:
        return ", ".join(subscription.collections)

    def delete_queryset(self, request: HttpRequest, queryset: "QuerySet[Subscription]") -> None:
        # One by one, because deleting a subscription is news to listeners and lanes.
        for subscription in queryset:
            subscription.delete()


class SecretField(forms.CharField):
    """A secret to set: never shown, and left as it is when the box stays empty."""

    widget = forms.PasswordInput(attrs={"autocomplete": "new-password", "class": "vTextField"}, render_value=False)


class MaskedHeaders(forms.Textarea):
    """Shows the names of headers and `***` for their values, whether they are stored or were typed a moment ago."""

    def format_value(self, value: Any) -> str:
        return masked_headers(value or "")


class HeadersField(forms.CharField):
    widget = MaskedHeaders(attrs={"rows": 3, "cols": 60, "autocomplete": "off", "spellcheck": "false"})

    def to_python(self, value: Any) -> str:
        # Browsers end lines with both; only what a person changed is a change.
        return str(super().to_python(value) or "").replace("\r\n", "\n")


def masked_headers(lines: str) -> str:
    """Without what stands behind the colons; a line without one may be a value, and is hidden whole."""
    parts = [line.partition(":") for line in lines.splitlines() if line.strip()]
    return "\n".join(f"{name}: {MASK}" if colon else MASK for name, colon, _ in parts)


def unmasked_headers(lines: str, present: str) -> str:
    """The lines with each `***` replaced by what the header's value is at present. Raises ValidationError if it has none."""
    values = {name.strip().lower(): value for name, _, value in (line.partition(":") for line in present.splitlines())}
    unmasked = []
    for line in lines.splitlines():
        name, colon, value = line.partition(":")
        if value.strip() == MASK:
            if name.strip().lower() not in values:
                raise forms.ValidationError(f"{MASK} stands for the present value of a header, and {name.strip()!r} has none: write its value.")
            value = values[name.strip().lower()]
        unmasked.append(name + colon + value)
    return "\n".join(unmasked)


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg]
    secret = SecretField(
        label="set a signing secret",
        required=False,
        help_text="whsec_… The receiver needs the same. Leave it empty to keep the present one, or, for a new endpoint, to have one made and shown once."
        " A secret that is replaced stays valid for 24 hours.",
    )
    bearer_token = SecretField(
        label="set a bearer token", required=False, help_text="Sent as “Authorization: Bearer …”. Leave it empty to keep the present one."
    )
    no_bearer_token = forms.BooleanField(label="remove the bearer token", required=False)
    extra_headers = HeadersField(
        label="extra headers",
        required=False,
        help_text=f"Sent with every request: one “Name: value” in a line. {MASK} keeps the present value; a line that is deleted is no longer sent.",
    )

    class Meta:
        model = Endpoint
        fields = (
            *("tenant", "name", "url", "signature_scheme", "secret", "bearer_token", "extra_headers", "timeout_s", "max_in_flight"),
            *("retry_strategy", "retry_schedule_s", "retry_first_s", "retry_factor", "retry_step_s", "retry_longest_s", "retry_count"),
            *("retry_jitter_percent", "retry_on"),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Forms carry what they started from, in their HTML or in the log of changes: not these.
        self._secret = self.initial.pop("secret", "") or self.instance.secret
        self.initial.pop("bearer_token", None)
        self.initial["extra_headers"] = masked_headers(self.instance.extra_headers)

    def clean_secret(self) -> str:
        return validation.clean_secret(self.cleaned_data["secret"] or self.instance.secret)

    def clean_bearer_token(self) -> str:
        return str(self.cleaned_data["bearer_token"] or self.instance.bearer_token)

    def clean_extra_headers(self) -> str:
        return validation.clean_headers(unmasked_headers(self.cleaned_data["extra_headers"], self.instance.extra_headers))

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.cleaned_data.get("no_bearer_token"):
            if "bearer_token" in self.changed_data:
                self.add_error("no_bearer_token", "Either set a bearer token or remove it.")
            self.cleaned_data["bearer_token"] = ""
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if not self.instance._state.adding:
            # The form has put the new one in place already.
            secret, self.instance.secret = self.instance.secret, self._secret
            self.instance.replace_secret(secret)
        return super().save(commit)


# How long the old secret stays valid, in hours.
_OVERLAPS = {"24": "24 hours", "1": "1 hour", "168": "7 days", "0": "no longer (it has leaked)"}


class EndpointActionForm(ActionForm):
    overlap_h = forms.ChoiceField(label="When a secret is rotated, the old one stays valid for", choices=list(_OVERLAPS.items()), required=False)


def _why_no_rotation(endpoint: Endpoint, *, at_once: bool) -> str:
    """What stands against a new secret now; empty if nothing does."""
    if endpoint.origin == Endpoint.Origin.ENVIRONMENT and settings.WEBHOOK_SECRET:
        return f"The secret of {endpoint.name} is WEBHOOK_SECRET: change it in the environment and start again. The old one then stays valid for 24 hours."
    if len(endpoint.secrets_at(timezone.now())) > 1 and not at_once:
        until = f"{endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC"
        return f"A rotation of {endpoint.name} is under way until {until}, and a third secret would end the oldest at once: wait, or end both now."
    return ""


def _new_secret_message(endpoint: Endpoint) -> str:
    message = f"The new signing secret of {endpoint.name} is {endpoint.secret} (shown only now: give it to the receiver)."
    if not endpoint.previous_secret:
        return f"{message} The old one is no longer valid."
    until = f"{endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC"
    if endpoint.signature_scheme == Endpoint.SignatureScheme.HOOKSTREAM:
        return f"{message} This scheme has room for one signature: the old secret signs until {until}, the new one from then on."
    return f"{message} Both secrets sign until {until}."


@admin.register(Endpoint)
class EndpointAdmin(ChoosesTheOnlyOne, SearchById, NeverDeleted):
    form = EndpointForm
    list_display = ("name", "url", "state", "state_reason", "origin", "tenant", "lane", "public_id")
    list_filter = ("state", "origin", "tenant")
    list_select_related = ("tenant",)
    search_fields = ("name", "url")
    search_help_text = "A part of the name or the URL, or an id (ep_…)."
    readonly_fields = ("public_id", "origin", "state", "state_reason", "state_changed_at", "lane", "secret_hint", "bearer_hint", "created_at")
    inlines = (SubscriptionInline,)
    actions = ("pause", "resume", "rotate_secret")
    action_form = EndpointActionForm
    fieldsets = (
        (None, {"fields": ("tenant", "name", "url", "public_id", "origin")}),
        ("State", {"fields": ("state", "state_reason", "state_changed_at", "lane"), "description": "Pause and Resume are actions of the list of endpoints."}),
        ("Signature and headers", {"fields": ("signature_scheme", "secret_hint", "secret", "bearer_hint", "bearer_token", "no_bearer_token", "extra_headers")}),
        ("Limits", {"fields": ("timeout_s", "max_in_flight")}),
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
        rows = cast(EndpointQuerySet, super().get_queryset(request))
        return rows if request.resolver_match and request.resolver_match.kwargs else rows.without_secrets()

    def view_on_site(self, obj: Endpoint) -> str:
        return f"{reverse('deliveries')}?endpoint={obj.public_id}"

    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change and "secret" not in form.changed_data:
            self.message_user(request, f"The signing secret of {obj.name} is {obj.secret} (shown only now: give it to the receiver).", messages.WARNING)

    @admin.action(description="Pause selected endpoints (their deliveries wait)", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: "QuerySet[Endpoint]") -> None:
        self._set_state(request, queryset.exclude(state=Endpoint.State.DISABLED), Endpoint.State.PAUSED, "paused")

    @admin.action(description="Resume selected endpoints", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: "QuerySet[Endpoint]") -> None:
        self._set_state(request, queryset, Endpoint.State.ACTIVE, "resumed")

    @admin.action(description="Rotate the signing secret of the selected endpoint", permissions=["change"])
    def rotate_secret(self, request: HttpRequest, queryset: "QuerySet[Endpoint]") -> None:
        """Make a new secret and show it once: of one endpoint at a time, because it has to be carried to its receiver."""
        ids = list(queryset.values_list("pk", flat=True)[:2])
        if len(ids) != 1:
            self.message_user(request, "Select one endpoint: its new secret is shown once, to be given to its receiver.", messages.ERROR)
            return
        choice = request.POST.get("overlap_h") or "24"
        with transaction.atomic():
            endpoint = Endpoint.objects.select_for_update().get(pk=ids[0])
            refusal = _why_no_rotation(endpoint, at_once=choice == "0")
            if not refusal:
                endpoint.replace_secret(new_secret(), timedelta(hours=int(choice)))
                endpoint.save(update_fields=["secret", "previous_secret", "previous_secret_expires_at"])
                self.log_change(request, endpoint, f"Rotated the signing secret; the old one stays valid for {_OVERLAPS[choice]}.")
        if refusal:
            self.message_user(request, refusal, messages.ERROR)
        else:
            self.message_user(request, _new_secret_message(endpoint), messages.WARNING)

    def _set_state(self, request: HttpRequest, queryset: "QuerySet[Endpoint]", state: Endpoint.State, verb: str) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        reason = f"{verb} by {request.user} in the admin"
        changed = Endpoint.objects.filter(Q(pk__in=ids)).set_state(state, "" if state == Endpoint.State.ACTIVE else reason)
        self.message_user(request, f"{changed:,} {verb}.", messages.SUCCESS if changed else messages.WARNING)

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
