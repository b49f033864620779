"""What an endpoint wants, as people write it: a form that makes a subscription."""

import re
from typing import Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError

from subscriptions import quotas, validation
from subscriptions.models import Endpoint, Source, Subscription, Tenants

# Stands for the tenant's source of posted events while it has none.
POSTED = "api"
_KINDS = {
    "commit": "Commits: records that are created, updated and deleted",
    "identity": "Identity: handles and keys that change",
    "account": "Account: accounts that come, go and are suspended",
    "sync": "Sync: repositories that start afresh (v2 hosts alone)",
}
_MORE = 5


class NamesField(forms.CharField):
    """A list of names: one in a line, or with spaces or commas between them."""

    widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off", "autocapitalize": "none"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return _names(super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return list(initial or []) != _names(data or "")


def _names(text: str) -> list[str]:
    return [name for name in dict.fromkeys(re.split(r"[\s,]+", text)) if name]


class WishForm(forms.Form):
    """Which events of one source. Where it is of a subscription that is there, the source is settled.

    `tenants`: whose sources may be chosen, beside those that all share.
    """

    source = forms.ChoiceField(label="Events from", error_messages={"invalid_choice": "There is no such source: choose one from the list."})
    collections = NamesField(
        label="Collections, or types of posted events",
        required=False,
        max_length=validation.MAX_WANTED_COLLECTIONS * (validation.MAX_NSID + 2),
        help_text=(
            "One in a line, or with a space or a comma between: a full name (app.bsky.feed.post), a prefix that ends in .* (app.bsky.feed.*),"
            " or * for everything."
        ),
    )
    operations = forms.MultipleChoiceField(
        label="Operations",
        required=False,
        choices=[(name, name.capitalize()) for name in validation.OPERATIONS],
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: all.",
    )
    kinds = forms.MultipleChoiceField(label="Kinds", required=False, choices=list(_KINDS.items()), widget=forms.CheckboxSelectMultiple)
    dids = NamesField(
        label="Accounts",
        required=False,
        max_length=validation.MAX_WANTED_DIDS * (validation.MAX_DID + 2),
        help_text="DIDs, one in a line. Empty: all accounts.",
    )

    def __init__(self, data: Any, tenants: Tenants, subscription: Subscription | None = None) -> None:
        super().__init__(data)
        self.present = subscription
        self.fields["kinds"].initial = ["commit"]
        if subscription:
            del self.fields["source"]
            for name in ("collections", "operations", "kinds", "dids"):
                self.fields[name].initial = getattr(subscription, name)
        else:
            self._sources = list(Source.objects.for_tenants(tenants).select_related("tenant").order_by("kind", "name"))
            # The stream first, as most mean it.
            self._sources.sort(key=lambda source: source.kind != Source.Kind.JETSTREAM)
            self.fields["source"].choices = self._choices(tenants)  # type: ignore[attr-defined]
        if self.posted_for_good:
            for name in ("operations", "kinds", "dids"):
                del self.fields[name]
            self.fields["collections"].label = "Types"

    @property
    def posted_for_good(self) -> bool:
        return self.present is not None and self.present.source.kind == Source.Kind.API

    def subscription(self, endpoint: Endpoint | None = None) -> Subscription | None:
        """As it is wanted, not saved; None where something is wrong, which then stands at its field.

        For this endpoint; for a look at what it would bring, for one that does not exist.
        """
        if not self.is_valid():
            return None
        wanted = self._put(self.present or self._new(endpoint))
        if not self.errors:
            try:
                wanted.full_clean(exclude=["endpoint", "source"])
            except ValidationError as error:
                self._take(error)
        return None if self.errors else wanted

    def _put(self, wanted: Subscription) -> Subscription:
        given, posted = self.cleaned_data, wanted.source.kind == Source.Kind.API
        wanted.collections = given["collections"]
        if posted:
            wanted.kinds, wanted.dids, wanted.operations = ["api"], [], []
            for name in ("dids", "operations"):
                if given.get(name):
                    self.add_error(name, "Posted events have types alone: leave this empty, or choose the stream.")
        else:
            wanted.kinds, wanted.dids, wanted.operations = given["kinds"], given["dids"], given["operations"]
            if not wanted.kinds:
                self.add_error("kinds", "Choose at least one kind.")
        if not wanted.collections:
            if not posted and ("commit" not in wanted.kinds or wanted.dids):
                wanted.collections = ["*"]
            else:
                self.add_error("collections", f"Say which: {'order.paid, or * for all types' if posted else 'app.bsky.feed.post, or * for the whole network'}.")
        for name, most in (("collections", validation.MAX_WANTED_COLLECTIONS), ("dids", validation.MAX_WANTED_DIDS)):
            if len(getattr(wanted, name)) > most:
                self.add_error(name, f"At most {most:,} can be named here.")
        return wanted

    def _new(self, endpoint: Endpoint | None) -> Subscription:
        source = next((each for each in self._sources if each.public_id == self.cleaned_data["source"]), None)
        if source is None:
            # Their source of posted events. Where there is none it is made by `save`, for the first that needs it.
            tenant = endpoint.tenant_id if endpoint else None
            found = Source.objects.filter(tenant=tenant, kind=Source.Kind.API).order_by("id").first()
            source = found or Source(tenant_id=tenant, kind=Source.Kind.API)
        return Subscription(endpoint=endpoint or Endpoint(tenant=source.tenant), source=source)

    def _choices(self, tenants: Tenants) -> list[tuple[str, str]]:
        several = tenants is None or len(tenants) > 1
        found = [(each.public_id, f"{each.name} of {each.tenant.name}" if several and each.tenant else each.name) for each in self._sources]
        posted = any(each.kind == Source.Kind.API for each in self._sources)
        return found if posted and not several else [*found, (POSTED, "Events that your programs post to the API")]

    def _take(self, error: ValidationError) -> None:
        for name, messages in error.message_dict.items():
            words = [*messages[:_MORE], f"And {len(messages) - _MORE} more."] if len(messages) > _MORE else messages
            for each in words:
                self.add_error(name if name in self.fields else None, each if name in self.fields or name == NON_FIELD_ERRORS else f"{name}: {each}")


def save(subscription: Subscription) -> None:
    """Save what a form has made, and the source of posted events where it is the first to need one.

    In a transaction. Raises Exceeded where the tenant has as many as it may.
    """
    quotas.check_subscription(quotas.hold(subscription.endpoint.tenant_id), subscription.endpoint_id)
    if subscription.source._state.adding:
        subscription.source = Source.of_posts(subscription.endpoint.tenant)
    subscription.save()
