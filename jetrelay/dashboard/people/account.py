"""One's own account: for everybody who is signed in, in a tenant or not."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from jetrelay.dashboard.access import HtmxRequest, signed_in_page
from jetrelay.dashboard.people import brake
from subscriptions.models import AuditEntry, Membership


class Password(forms.Form):
    """The present one, to show that it is really them."""

    password = forms.CharField(
        label="Your password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        error_messages={"required": "Write your password, to show that it is you."},
    )

    def __init__(self, user: User, data: Any = None) -> None:
        super().__init__(data, auto_id="sessions-%s")
        self.user = user

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not self.user.check_password(password):
            raise forms.ValidationError("This is not your password: write it again.")
        return password


@require_safe
@signed_in_page
def account(request: HtmxRequest) -> HttpResponse:
    return _page(request)


@sensitive_post_parameters()
@require_POST
@signed_in_page
def account_password(request: HtmxRequest) -> HttpResponseBase:
    """Change it. This session goes on, all others end."""
    user = _user(request)
    if wait_s := brake.take(request, user.get_username()):
        return brake.too_many(request, wait_s)
    form = PasswordChangeForm(user, request.POST)
    if not form.is_valid():
        if "old_password" not in form.errors:
            brake.give_back(request, user.get_username())
        return _page(request, change=form)
    brake.give_back(request, user.get_username())
    with transaction.atomic():
        form.save()
        note_of_oneself(user, "account.password")
    update_session_auth_hash(request, user)
    messages.success(request, "Your password is changed. Wherever else you were signed in, you are not any more.")
    return redirect("account")


@sensitive_post_parameters()
@require_POST
@signed_in_page
def account_sessions(request: HtmxRequest) -> HttpResponseBase:
    """End all sessions but this one. They hang on the stored password: with another salt, the same password is another one to them."""
    user = _user(request)
    if wait_s := brake.take(request, user.get_username()):
        return brake.too_many(request, wait_s)
    form = Password(user, request.POST)
    if not form.is_valid():
        return _page(request, sessions=form)
    brake.give_back(request, user.get_username())
    user.set_password(form.cleaned_data["password"])
    with transaction.atomic():
        user.save(update_fields=["password"])
        note_of_oneself(user, "account.sign-out-elsewhere")
    update_session_auth_hash(request, user)
    messages.success(request, "You are signed in here alone now.")
    return redirect("account")


def note_of_oneself(user: User, action: str) -> None:
    """In the log of each tenant that they are in; where there is none, in the operator's."""
    tenants: list[UUID | None] = list(Membership.objects.filter(user=user).values_list("tenant", flat=True))
    for tenant in tenants or [None]:
        AuditEntry.note_by(user, tenant, action)


def _user(request: HtmxRequest) -> User:
    user = request.user
    assert isinstance(user, User)
    return user


def _page(request: HtmxRequest, *, change: PasswordChangeForm | None = None, sessions: Password | None = None) -> HttpResponse:
    user = _user(request)
    rows = list(Membership.objects.filter(user=user).select_related("tenant").order_by("tenant__name", "tenant"))
    change = change or PasswordChangeForm(user)
    # The page is about more than that.
    change.fields["old_password"].widget.attrs.pop("autofocus", None)
    return render(request, "dashboard/people/account.html", {"rows": rows, "change": change, "sessions": sessions or Password(user)})
