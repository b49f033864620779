"""The forms of subscriptions and endpoints.

Nothing here shows a secret: a box for one stays empty, and a header's value is `***`.
"""

from typing import Any

from django import forms
from django.contrib.admin.helpers import ActionForm

from subscriptions import validation
from subscriptions.form_fields import JsonBox
from subscriptions.models import Endpoint, Subscription

# Characters of a list of waits as it is typed.
MAX_SCHEDULE_TEXT = 40 * validation.MAX_RETRIES
# Stands for a value that is not shown.
MASK = "***"


class SubscriptionForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Subscription
        fields = ("endpoint", "source", "collections", "dids", "operations", "kinds", "active")

    # An empty box is an empty list.
    def clean_dids(self) -> list[str]:
        return self.cleaned_data["dids"] or []

    def clean_operations(self) -> list[str]:
        return self.cleaned_data["operations"] or []


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
    # Counted first: each `***` may become a value of thousands of characters.
    for _, line in validation.header_lines(lines):
        name, colon, value = line.partition(":")
        if value.strip() == MASK:
            if name.strip().lower() not in values:
                raise forms.ValidationError(f"{MASK} stands for the present value of a header, and {name.strip()!r} has none: write its value.")
            value = values[name.strip().lower()]
        unmasked.append(name + colon + value)
    return "\n".join(unmasked)


class RetryScheduleBox(JsonBox):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(longest=MAX_SCHEDULE_TEXT, **kwargs)


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg]
    secret = SecretField(
        label="set a signing secret",
        required=False,
        max_length=validation.MAX_SECRET,
        help_text="whsec_… The receiver needs the same. Leave it empty to keep the present one, or, for a new endpoint, to have one made and shown once."
        " A secret that is replaced stays valid for 24 hours.",
    )
    bearer_token = SecretField(
        label="set a bearer token",
        required=False,
        max_length=validation.MAX_BEARER_TOKEN,
        help_text="Sent as “Authorization: Bearer …”. Leave it empty to keep the present one.",
    )
    no_bearer_token = forms.BooleanField(label="remove the bearer token", required=False)
    extra_headers = HeadersField(
        label="extra headers",
        required=False,
        max_length=validation.MAX_HEADERS_TEXT,
        help_text=f"Sent with every request: one “Name: value” in a line. {MASK} keeps the present value; a line that is deleted is no longer sent.",
    )

    class Meta:
        model = Endpoint
        fields = (
            *("tenant", "name", "url", "signature_scheme", "secret", "bearer_token", "extra_headers"),
            *("timeout_s", "max_in_flight", "rate_limit_per_s", "priority", "ordered", "batch_size", "batch_wait_ms"),
            *("retry_strategy", "retry_schedule_s", "retry_first_s", "retry_factor", "retry_step_s", "retry_longest_s", "retry_count"),
            *("retry_jitter_percent", "retry_on"),
        )
        field_classes = {"retry_schedule_s": RetryScheduleBox}

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
OVERLAPS = {"24": "24 hours", "1": "1 hour", "168": "7 days", "0": "no longer (it has leaked)"}


class EndpointActionForm(ActionForm):
    overlap_h = forms.ChoiceField(label="When a secret is rotated, the old one stays valid for", choices=list(OVERLAPS.items()), required=False)
