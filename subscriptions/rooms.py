"""Quotas in the admin: whoever adds one too many reads so in the form.

Its views are transactions: the tenant that is held while a form is checked stays held until the row is saved.
"""

from typing import Any

from django import forms

from subscriptions import quotas
from subscriptions.allowance import Exceeded, most


class ChecksRoom:
    """For a ModelAdmin whose rows a tenant may have so many of. `find_room` raises Exceeded."""

    def find_room(self, form: Any) -> None:
        raise NotImplementedError

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        plain: Any = super().get_form(request, obj, change=change, **kwargs)  # type: ignore[misc]
        find_room = self.find_room

        class WithRoom(plain):  # type: ignore[misc] # made a moment ago
            def clean(self) -> Any:
                cleaned = super().clean()
                if not self.errors:
                    find_room(self)
                return cleaned

        return WithRoom


def comes_to(form: Any, field: str) -> Any:
    """Whom this field names, where the row is new there; None where it has been there before, or belongs to nobody."""
    new = form.instance._state.adding or field in form.changed_data
    return form.cleaned_data.get(field) if new else None


class RoomFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """Rows beside their parent. `find_room` is asked how many more there may be."""

    def find_room(self, more: int) -> None:
        raise NotImplementedError

    def clean(self) -> None:
        super().clean()
        kept = [form for form in self.forms if form not in self.deleted_forms]
        new = sum(form.instance._state.adding and form.has_changed() for form in kept)
        more = new - (len(self.forms) - len(kept))
        if more > 0:
            self.find_room(more)


class SubscriptionRoom(RoomFormSet):
    def find_room(self, more: int) -> None:
        endpoint = self.instance
        if endpoint.tenant_id:
            quotas.check_subscription(quotas.hold(endpoint.tenant_id), endpoint.pk, more)


class MembershipRoom(RoomFormSet):
    def find_room(self, more: int) -> None:
        tenant = self.instance
        if not tenant._state.adding:
            quotas.check_member(quotas.hold(tenant), more)
        elif isinstance(tenant.quotas, dict) and more > (limit := most("members", tenant.quotas)):
            raise Exceeded("members", limit, limit)
