"""The forms of endpoints on the pages: the checks are those of `subscriptions/forms.py` and of the models."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from django import forms
from django.core import signing
from django.forms import BoundField

from subscriptions.forms import EndpointForm
from subscriptions.ids import new_id
from subscriptions.models import Endpoint, Tenant, Tenants

_SALT = "a new endpoint"
_GROUPS = (
    ("Signature and headers", ("signature_scheme", "bearer_token", "no_bearer_token", "extra_headers")),
    ("Limits", ("timeout_s", "max_in_flight", "rate_limit_per_s", "priority")),
    ("Order and batches", ("ordered", "batch_size", "batch_wait_ms")),
    (
        "Retries",
        (
            *("retry_strategy", "retry_schedule_s", "retry_first_s", "retry_factor", "retry_step_s", "retry_longest_s", "retry_count"),
            *("retry_jitter_percent", "retry_on"),
        ),
    ),
)


class Group(NamedTuple):
    """Fields that belong together. `wrong`: one of them has an error, so that they must not be folded away."""

    title: str
    fields: list[BoundField]
    wrong: bool


class SettingsForm(EndpointForm):
    """All of an endpoint's terms, but for its tenant, its secret and its state, which have ways of their own."""

    secret = None  # type: ignore[assignment]

    class Meta(EndpointForm.Meta):
        fields = tuple(name for name in EndpointForm.Meta.fields if name not in ("tenant", "secret"))  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["retry_schedule_s"].widget.attrs["rows"] = 2
        for name in self.Meta.fields:
            # What a field was when the form was opened comes back with it: whoever left it alone does not undo what somebody else did meanwhile.
            self.fields[name].show_hidden_initial = name != "bearer_token"

    @property
    def first(self) -> list[BoundField]:
        return [self["name"], self["url"]]

    @property
    def groups(self) -> Iterator[Group]:
        for title, names in _GROUPS:
            yield Group(title, [self[name] for name in names], any(name in self.errors for name in names))

    @property
    def changed_columns(self) -> list[str]:
        """What to save: nothing that was left as it stood in the form."""
        return sorted({"bearer_token" if name == "no_bearer_token" else name for name in self.changed_data})


class NewEndpointForm(forms.ModelForm):  # type: ignore[type-arg]
    """The least that an endpoint needs. `once` makes one endpoint of a form, however often it is sent."""

    tenant = forms.ChoiceField(label="Tenant", error_messages={"invalid_choice": "This is no tenant of yours: choose one from the list."})
    once = forms.CharField(required=False, max_length=200, widget=forms.HiddenInput)

    class Meta:
        model = Endpoint
        fields = ("url", "name")
        labels = {"url": "URL"}
        help_texts = {"url": "http or https, without user name, password or fragment.", "name": "Left empty: the URL's host."}
        widgets = {
            "url": forms.TextInput(attrs={"placeholder": "https://example.com/hook", "spellcheck": "false", "autocomplete": "off", "inputmode": "url"}),
            "name": forms.TextInput(attrs={"autocomplete": "off", "dir": "auto"}),
        }

    def __init__(self, data: Any, tenants: Tenants, initial: dict[str, Any] | None = None) -> None:
        super().__init__(data, initial=initial)
        self._tenants = list(Tenant.objects.order_by("name") if tenants is None else tenants)
        if len(self._tenants) == 1:
            del self.fields["tenant"]
        else:
            self.fields["tenant"].choices = [("", "Choose one"), *((each.public_id, each.name) for each in self._tenants)]  # type: ignore[attr-defined]
        self.fields["name"].required = False
        self.initial.setdefault("once", signing.dumps(new_id().hex, salt=_SALT))

    @property
    def homeless(self) -> bool:
        """Whether there is no tenant at all."""
        return not self._tenants

    @property
    def shown(self) -> list[BoundField]:
        return [self[name] for name in ("tenant", "url", "name") if name in self.fields]

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if cleaned is not None and not cleaned.get("name") and cleaned.get("url"):
            try:
                cleaned["name"] = (urlsplit(cleaned["url"]).hostname or "")[:100]
            except ValueError:
                # Not a URL, which is said at its own field.
                cleaned["name"] = "?"
        return cleaned

    def endpoint(self, state: str) -> Endpoint:
        """What the valid form wants, not saved. Its id is the same for the same form."""
        made: Endpoint = self.instance
        made.tenant = next(each for each in self._tenants if "tenant" not in self.fields or each.public_id == self.cleaned_data["tenant"])
        made.state = state
        try:
            made.pk = UUID(signing.loads(self.cleaned_data["once"], salt=_SALT))
        except signing.BadSignature:
            pass
        return made
