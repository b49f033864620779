"""A replay as people ask for it, on a page of ours or in the admin: a filter first, then how many there are, then the order."""

from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError

from delivery.models import Delivery, Event, Replay
from delivery.replay.orders import preview, start
from delivery.replay.walks import Count
from subscriptions.allowance import Exceeded
from subscriptions.ids import from_public, to_public
from subscriptions.models import Endpoint, Tenant, Tenants

# More than this nobody chooses from a list; others come by a link, with their id.
_ENDPOINTS = 200
_NO_TIME = "This is not a time: write a date and a time in UTC, such as 2026-11-22 10:00:00."
# As browsers send a time, and as people write one. In UTC.
TIME_FORMATS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
_STATES = {state.label: state for state in Delivery.State}


class ReplayForm(forms.Form):
    """Names its fields as Replay does. Lists and ids are as people write them.

    `tenants`: whose rows whoever asks may reach. What it orders stays within one of them, so that no filter leads out of it.
    """

    tenant = forms.ChoiceField(label="Tenant", required=False, error_messages={"invalid_choice": "This is no tenant of yours: choose one from the list."})
    action = forms.ChoiceField(label="What", choices=Replay.Action.choices)
    delivery_state = forms.ChoiceField(label="State", required=False, choices=[("", "All but pending"), *((label, label.capitalize()) for label in _STATES)])
    endpoint = forms.CharField(label="Endpoint", required=False, max_length=100, widget=forms.Select)
    event = forms.CharField(
        label="Event's id", required=False, max_length=100, widget=forms.TextInput(attrs={"placeholder": "evt_…", "size": 24, "spellcheck": "false"})
    )
    collections = forms.CharField(
        label="Collections or types",
        required=False,
        max_length=4000,
        widget=forms.TextInput(attrs={"placeholder": "app.bsky.feed.*, …", "size": 24, "spellcheck": "false"}),
    )
    since = forms.DateTimeField(label="From (UTC)", required=False, error_messages={"invalid": _NO_TIME})
    until = forms.DateTimeField(label="Before (UTC)", required=False, error_messages={"invalid": _NO_TIME})
    rate_per_s = forms.FloatField(
        label="Deliveries per second, at most",
        required=False,
        widget=forms.NumberInput(attrs={"min": "0.01", "step": "any", "placeholder": "no limit"}),
        error_messages={"invalid": "Write a number above 0, or leave it empty for no limit."},
    )

    filter_names = ("action", "tenant", "delivery_state", "endpoint", "event", "collections", "since", "until")

    def __init__(self, data: Any, tenants: Tenants) -> None:
        super().__init__(data)
        self.tenants = tenants
        if tenants is None or len(tenants) == 1:
            # There is nothing to choose.
            del self.fields["tenant"]
        else:
            self.fields["tenant"].choices = [("", "That of the endpoint"), *((each.public_id, each.name) for each in tenants)]  # type: ignore[attr-defined]
        for name in ("since", "until"):
            field = self.fields[name]
            assert isinstance(field, forms.DateTimeField)
            field.input_formats = TIME_FORMATS
            field.widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": 1}, format="%Y-%m-%dT%H:%M:%S")
        self.fields["endpoint"].widget.choices = self._endpoints()

    @property
    def filters(self) -> list[forms.BoundField]:
        """The fields of what it is about, without the pace."""
        return [self[name] for name in self.filter_names if name in self.fields]

    def preview(self) -> Count | None:
        """How many match; None when the filter has errors."""
        wish = self._wish() if self.is_valid() or not self._filter_errors() else None
        if wish is None:
            return None
        wish.rate_per_s = None
        try:
            return preview(wish)
        except ValidationError as error:
            self._take(error)
            return None

    def start(self, by: str) -> Replay | None:
        """Order it; None when the form has errors, now at the latest."""
        if not self.is_valid():
            return None
        try:
            return start(self._wish(), by)
        except Exceeded as refusal:
            self.add_error(None, refusal)
            return None
        except ValidationError as error:
            self._take(error)
            return None

    def clean_tenant(self) -> Tenant | None:
        return next((each for each in self.tenants or () if each.public_id == self.cleaned_data["tenant"]), None)

    def clean_delivery_state(self) -> Delivery.State | None:
        return _STATES.get(self.cleaned_data["delivery_state"])

    def clean_endpoint(self) -> Endpoint | None:
        found: Endpoint | None = self._row(Endpoint.objects.for_tenants(self.tenants).without_secrets(), "endpoint")
        return found

    def clean_event(self) -> Event | None:
        found: Event | None = self._row(Event.objects.for_tenants(self.tenants).defer("body"), "event")
        return found

    def clean_collections(self) -> list[str]:
        text: str = self.cleaned_data["collections"]
        return text.replace(",", " ").split()

    def clean(self) -> None:
        """Settle the tenant: the only one, the one that was chosen, or that of the endpoint."""
        wanted, tenants = self.cleaned_data, self.tenants
        if tenants is None or self._filter_errors():
            return
        if "tenant" not in self.fields:
            wanted["tenant"] = tenants[0]
        elif not wanted["tenant"] and wanted["endpoint"]:
            wanted["tenant"] = wanted["endpoint"].tenant
        elif not wanted["tenant"]:
            self.add_error("tenant", "Choose a tenant, or an endpoint: what is asked for here stays within one tenant.")

    def _row(self, rows: Any, name: str) -> Any:
        text = self.cleaned_data[name]
        if not text:
            return None
        id = from_public(text)
        found = rows.filter(pk=id).first() if id else None
        if found is None:
            gone = ": it may have been pruned" if name == "event" else ""
            raise ValidationError(f"No {name} has the id {text[:40]!r}{gone}. Copy it from its page, such as {rows.model.prefix}_0197….")
        return found

    def _wish(self) -> Replay:
        return Replay(**{name: value for name, value in self.cleaned_data.items() if name in {*self.filter_names, "rate_per_s"}})

    def _filter_errors(self) -> bool:
        return any(name in self.errors for name in self.filter_names)

    def _take(self, error: ValidationError) -> None:
        for name, words in error.message_dict.items():
            self.add_error(name if name in self.fields else None, words)

    def _endpoints(self) -> list[tuple[str, str]]:
        """The first by name, and the one that was asked for."""
        reachable = Endpoint.objects.for_tenants(self.tenants)
        rows: dict[UUID, str] = dict(reachable.present().order_by("name", "id").values_list("pk", "name")[:_ENDPOINTS])
        asked = from_public(str(self.data.get("endpoint") or ""))
        if asked and asked not in rows:
            rows |= dict(reachable.filter(pk=asked).values_list("pk", "name"))
        return [("", "All"), *((to_public(Endpoint.prefix, id), name) for id, name in rows.items())]
