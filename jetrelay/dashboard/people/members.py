"""Members: who is in a tenant, as what; and for owners: letting somebody in, another role, taking somebody out.

Owners name a person by their username. Whether a name is taken cannot be hidden from whoever may make accounts, since no two
are alike; anything else, above all which tenants somebody is in, is never said, and names cannot be tried one after another.
Which of the two is meant is asked for and not guessed: else a new colleague's tenant would open to a stranger of that name.
"""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.db import transaction
from django.db.models import Case, Q, QuerySet, Value, When
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from jetrelay.dashboard import audit
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.people import brake
from jetrelay.dashboard.people.tenants import OfATenant
from jetrelay.usage import usage
from subscriptions import members as people
from subscriptions.ids import from_public, to_public
from subscriptions.models import Membership, Tenant

TENANTS_SHOWN = 20
# Of all the tenants that a page shows.
MEMBERS_SHOWN = 1000
Role = Membership.Role
_BY_RANK = Case(When(role=Role.OWNER, then=Value(0)), When(role=Role.MEMBER, then=Value(1)), default=Value(2))
_USERNAME = User._meta.get_field("username")


class Added(OfATenant):
    EXISTING, NEW = "existing", "new"
    field_order = ("tenant", "account", "username", "role")

    account = forms.ChoiceField(
        label="Who",
        choices=[(NEW, "Somebody new: an account is made for them"), (EXISTING, "Somebody who has an account here")],
        widget=forms.RadioSelect,
        error_messages={"required": "Say whether they have an account here."},
    )
    username = forms.CharField(
        label="Username",
        max_length=_USERNAME.max_length,
        validators=list(_USERNAME.validators),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
        error_messages={"required": "Write the name that they sign in with."},
    )
    role = forms.ChoiceField(label="Role", choices=Role.choices, initial=Role.MEMBER)

    def clean_username(self) -> str:
        username: str = User.normalize_username(self.cleaned_data["username"])
        return username


class Roles(forms.Form):
    role = forms.ChoiceField(label="Role", choices=Role.choices)


class Removal(forms.Form):
    sure = forms.BooleanField(label="Take them out of the tenant", error_messages={"required": "Tick the box to confirm."})


@require_safe
@members_page
def members(request: HtmxRequest) -> HttpResponse:
    """Tenant by tenant, the newest tenant first."""
    sees = request.access.sees
    search, before = request.GET.get("q", "").strip()[:150].replace("\0", ""), request.GET.get("before", "")
    tenants = Tenant.objects.order_by("-pk") if sees is None else Tenant.objects.filter(pk__in=[each.pk for each in sees]).order_by("-pk")
    place = from_public(before)
    if search:
        named = Membership.objects.filter(user__username=search).values("tenant")
        tenants = tenants.filter(Q(name__icontains=search) | Q(slug=search) | Q(pk__in=named))
    found = list((tenants.filter(pk__lt=place) if place else tenants)[: TENANTS_SHOWN + 1])
    shown = found[:TENANTS_SHOWN]
    rows = list(_members().filter(tenant__in=shown).order_by("-tenant", _BY_RANK, "user__username")[: MEMBERS_SHOWN + 1])
    used = usage(shown)
    context = {
        "tenants": [(tenant, [row for row in rows[:MEMBERS_SHOWN] if row.tenant_id == tenant.pk], used[tenant.pk]) for tenant in shown],
        "more_members": len(rows) > MEMBERS_SHOWN,
        "search": search,
        "older": to_public(Tenant.prefix, shown[-1].pk) if len(found) > TENANTS_SHOWN else "",
        "before": place,
        "problem": f"“{before[:40]}” is not a tenant's id: the newest are shown." if before and not place else "",
        "several": sees is None or len(sees) > 1,
    }
    return render(request, "dashboard/people/members.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@members_page
def member_new(request: HtmxRequest) -> HttpResponseBase:
    access = request.access
    access.require(access.owns)
    posted = request.method == "POST"
    form = Added(access.owns_in, request.POST if posted else None, initial={"tenant": request.GET.get("tenant", "")})
    if posted and form.is_valid():
        # Every answer says whether a name is taken. So all are counted, and none is given back: else one that goes well would
        # pay for the guesses before it.
        if wait_s := brake.take(request, f"names of {request.user.pk}"):
            return brake.too_many(request, wait_s, "usernames")
        try:
            added = _add(request, form)
        except people.Refused as refusal:
            form.add_error("username", str(refusal))
        else:
            if not added.user.has_usable_password():
                return _link_once(request, added)
            messages.success(request, f"{added.user} is in {added.tenant} now, as {added.role}.")
            return redirect("members")
    return render(request, "dashboard/people/member_new.html", {"form": form, "roles": Role})


@transaction.atomic
def _add(request: HtmxRequest, form: Added) -> Membership:
    tenant, username, role = form.chosen(), form.cleaned_data["username"], form.cleaned_data["role"]
    if form.cleaned_data["account"] == Added.NEW:
        added = people.add_new(tenant, username, role)
    else:
        named = get_user_model()._default_manager.filter(username=username).first()
        user = named and people.hold(tenant, named)
        # One that was never used belongs to whoever holds its link: nobody lets in what another tenant has handed out.
        if user is None or not (user.has_usable_password() or people.theirs_alone(user, request.access.owns_in)):
            raise people.Refused(f"Nobody who signs in here is called {username}: look at how it is written, upper and lower case included.")
        added = people.add(tenant, user, role)
    audit.note(request, "member.add", tenant.public_id, tenant, f"{username} as {role}, {form.cleaned_data['account']} account")
    return added


@require_safe
@members_page
def member(request: HtmxRequest, id: int) -> HttpResponse:
    return _page(request, _owned(request, id))


@require_POST
@members_page
def member_role(request: HtmxRequest, id: int) -> HttpResponseBase:
    found, form = _owned(request, id), Roles(request.POST)
    if not form.is_valid():
        return _page(request, found, roles=form)
    role = form.cleaned_data["role"]
    try:
        with transaction.atomic():
            before = people.change_role(found, role, request.user)
            if before != role:
                audit.note(request, "member.role", found.tenant.public_id, found.tenant, f"{found.user}: {before} to {role}")
    except people.Refused as refusal:
        form.add_error("role", str(refusal))
        return _page(request, found, roles=form)
    messages.success(request, f"{found.user} is {role} of {found.tenant} now.")
    return redirect("members")


@require_POST
@members_page
def member_remove(request: HtmxRequest, id: int) -> HttpResponseBase:
    found, form = _owned(request, id), Removal(request.POST)
    if form.is_valid():
        try:
            with transaction.atomic():
                stays = people.remove(found)
                audit.note(request, "member.remove", found.tenant.public_id, found.tenant, f"{found.user}, who was {found.role}")
        except people.Refused as refusal:
            form.add_error(None, str(refusal))
        else:
            gone = "" if stays else " Their account was never used and is gone too: the name is free again."
            messages.success(request, f"{found.user} is not in {found.tenant} any more.{gone}")
            return redirect("members")
    return _page(request, found, removal=form)


@require_POST
@members_page
def member_link(request: HtmxRequest, id: int) -> HttpResponseBase:
    """Another link to a first password, for somebody who let the last one run out. It ends those before it."""
    found = _owned(request, id)
    with transaction.atomic():
        # As they are now: they may be choosing their password at this moment.
        user = people.hold(found.tenant, found.user)
        request.access.require(user is not None and people.theirs_alone(user, request.access.owns_in))
        people.end_links(user)
        audit.note(request, "member.link", found.tenant.public_id, found.tenant, f"for {user}")
    found.user = user
    return _link_once(request, found)


def _members() -> "QuerySet[Membership]":
    return Membership.objects.select_related("user", "tenant")


def _owned(request: HtmxRequest, id: int) -> Membership:
    """That of a tenant which they see (else it is not there) and own (else they may not)."""
    found = _members().for_tenants(request.access.sees).filter(pk=id).first()  # type: ignore[attr-defined]
    if found is None:
        raise Http404("Nobody here has this number: they may have been taken out.")
    request.access.require(request.access.may_own(found.tenant_id))
    membership: Membership = found
    return membership


def _page(request: HtmxRequest, found: Membership, *, roles: Roles | None = None, removal: Removal | None = None) -> HttpResponse:
    context: dict[str, Any] = {
        "member": found,
        "roles": roles or Roles(initial={"role": found.role}),
        "removal": removal or Removal(),
        "may_link": people.theirs_alone(found.user, request.access.owns_in),
    }
    return render(request, "dashboard/people/member.html", context)


def _link_once(request: HtmxRequest, found: Membership) -> HttpResponse:
    """The link is in this answer alone. It is signed by Django, and dies with the first password, with `end_links`, or after PASSWORD_RESET_TIMEOUT."""
    uid = urlsafe_base64_encode(force_bytes(found.user.pk))
    # Behind a proxy that is not believed, the request does not know its own scheme.
    site = settings.PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    link = site + reverse("welcome", args=[uid, default_token_generator.make_token(found.user)])
    until = timezone.now() + timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT)
    return render(request, "dashboard/people/member_link.html", {"member": found, "link": link, "until": until})
