"""Which tenant somebody means, where there are several."""

from collections.abc import Sequence
from typing import Any

from django import forms

from subscriptions.models import Tenant, Tenants

# What a list to choose from can hold. A superuser of more than these has the admin and the commands.
SHOWN = 500


def choosable(tenants: Tenants) -> Sequence[Tenant]:
    return list(Tenant.objects.order_by("name", "pk")[:SHOWN]) if tenants is None else tenants


class OfATenant(forms.Form):
    """Asks for the tenant where there is a choice; where there is but one, it is that one, whatever the request says."""

    tenant = forms.ChoiceField(
        label="Tenant",
        error_messages={"required": "Choose a tenant.", "invalid_choice": "There is no such tenant, or it is not yours: choose one of the list."},
    )

    def __init__(self, tenants: Tenants, data: Any = None, **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        self.tenants = choosable(tenants)
        if len(self.tenants) == 1:
            del self.fields["tenant"]
        else:
            self.fields["tenant"].choices = [("", "Choose"), *((each.public_id, each.name) for each in self.tenants)]  # type: ignore[attr-defined]

    def chosen(self) -> Tenant:
        """That of the valid form."""
        if len(self.tenants) == 1:
            return self.tenants[0]
        return next(each for each in self.tenants if each.public_id == self.cleaned_data["tenant"])
