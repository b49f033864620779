"""Who is in a tenant, and as what: let in, given another role, taken out.

A tenant keeps an owner who can sign in, because nobody else of it could let one in. Each act locks the tenant's row, so
that two owners cannot remove each other at the same moment. One who has no password yet gets it by a link, whose holder
becomes that user: links end with whatever changes who may hand them out.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

from subscriptions import quotas
from subscriptions.allowance import Exceeded
from subscriptions.models import Membership, Tenant, Tenants

Role = Membership.Role
# From the least to the most.
_RANKS = (Role.VIEWER, Role.MEMBER, Role.OWNER)
LAST_OWNER = "{user} is the last owner of {tenant}: without one, nobody could see to its members and keys. Make somebody else an owner first."


class Refused(Exception):
    """This cannot be; the message says why, and what to do."""


@transaction.atomic
def add(tenant: Tenant, user: Any, role: str) -> Membership:
    """Let somebody in who has an account. Raises Refused if they are in already."""
    held = hold(tenant, user)
    try:
        quotas.check_member(quotas.hold(tenant))
    except Exceeded as refusal:
        raise Refused(" ".join(refusal.messages)) from None
    if held is None:
        raise Refused(f"{user.get_username()} has no account any more: add them as somebody new.")
    if Membership.objects.filter(tenant=tenant, user=held).exists():
        raise Refused(f"{held.get_username()} is in {tenant} already: change their role instead.")
    # Whoever holds a link from before, such as an owner of their other tenant, was not let in here.
    end_links(held)
    return Membership.objects.create(tenant=tenant, user=held, role=role)


@transaction.atomic
def add_new(tenant: Tenant, username: str, role: str) -> Membership:
    """Let somebody in, and make them an account; they cannot sign in before they have set a password. Raises Refused for a name that is taken."""
    users = get_user_model()._default_manager
    taken = Refused(f"The name {username} is taken: choose another one. If it is theirs, add them as somebody who has an account.")
    # Names that differ in their case alone would be taken for each other by people.
    if users.filter(username__iexact=username).exists():
        raise taken
    try:
        with transaction.atomic():
            user = users.create_user(username)
    except IntegrityError:
        raise taken from None
    return add(tenant, user, role)


@transaction.atomic
def change_role(membership: Membership, role: str, by: Any) -> str:
    """Returns the role before. Raises Refused where the tenant would be without an owner, and where somebody raises themselves."""
    quotas.hold(membership.tenant_id)
    _refresh(membership)
    before = membership.role
    if membership.user_id == by.pk and _RANKS.index(Role(role)) > _RANKS.index(Role(before)):
        raise Refused("Nobody raises their own role: ask another owner.")
    if role != Role.OWNER:
        _keep_an_owner(membership)
    membership.role = role
    membership.save(update_fields=["role"])
    return str(before)


@transaction.atomic
def remove(membership: Membership) -> bool:
    """What they made stays. Returns whether their account does. Raises Refused where the tenant would be without an owner."""
    user = hold(membership.tenant, membership.user)
    _refresh(membership)
    _keep_an_owner(membership)
    membership.delete()
    if user is None:
        return False
    end_links(user)
    # One that nobody has used, and that no tenant has any more, would keep its name from the person whose it is.
    unused = not user.has_usable_password() and user.last_login is None
    if unused and user.is_active and not _in_the_admins_hands(user) and not Membership.objects.filter(user=user).exists():
        user.delete()
        return False
    return True


def hold(tenant: Tenant, user: Any) -> Any:
    """The user as they are now, until the transaction ends; None if they are gone. The tenant first, always: else two acts wait for each other."""
    quotas.hold(tenant.pk)
    return get_user_model()._default_manager.select_for_update().filter(pk=user.pk).first()


def end_links(held: Any) -> None:
    """No link to a first password that was made before works any more."""
    if held.has_usable_password() or _in_the_admins_hands(held):
        return
    # A link is signed with the password's hash, and what stands for none is random, another one each time.
    held.set_unusable_password()
    held.save(update_fields=["password"])


def theirs_alone(user: Any, tenants: Tenants) -> bool:
    """Whether an account that has never been used is in these tenants and in no others: then their owners may hand it out.

    Whoever holds its link becomes that user, everywhere. So never one that has a password, or that may be in the admin;
    nor one that is in no tenant, because nobody knows who was given a link to it.
    """
    if user.has_usable_password() or _in_the_admins_hands(user) or not user.is_active:
        return False
    if tenants is None:
        return True
    places = Membership.objects.filter(user=user)
    return places.filter(tenant__in=tenants).exists() and not places.exclude(tenant__in=tenants).exists()


def _in_the_admins_hands(user: Any) -> bool:
    return bool(user.is_staff or user.is_superuser)


def _refresh(membership: Membership) -> None:
    try:
        membership.refresh_from_db(fields=["role"])
    except Membership.DoesNotExist:
        raise Refused(f"{membership.user.get_username()} is not in {membership.tenant} any more.") from None


def _keep_an_owner(membership: Membership) -> None:
    owners = Membership.objects.filter(tenant=membership.tenant).owners()
    if membership.role == Role.OWNER and not owners.exclude(pk=membership.pk).exists():
        raise Refused(LAST_OWNER.format(user=membership.user.get_username(), tenant=membership.tenant))
