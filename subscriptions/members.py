"""Who is in a tenant, and as what: let in, given another role, taken out.

A tenant keeps an owner who can sign in, because nobody else of it could let one in. Each act locks the tenant's row, so
that two owners cannot remove each other at the same moment.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

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
    _lock(tenant)
    if Membership.objects.filter(tenant=tenant, user=user).exists():
        raise Refused(f"{user.get_username()} is in {tenant} already: change their role instead.")
    return Membership.objects.create(tenant=tenant, user=user, role=role)


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
    _lock(membership.tenant)
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
def remove(membership: Membership) -> None:
    """Their account stays, and what they made. Raises Refused where the tenant would be without an owner."""
    _lock(membership.tenant)
    _refresh(membership)
    _keep_an_owner(membership)
    membership.delete()


def theirs_alone(user: Any, tenants: Tenants) -> bool:
    """Whether an account that has never been used is in no other tenants than these: then their owners may hand it out.

    Whoever holds its link becomes that user, everywhere. So never one that has a password, or that may be in the admin.
    """
    if user.has_usable_password() or user.is_staff or user.is_superuser or not user.is_active:
        return False
    elsewhere = Membership.objects.filter(user=user)
    return tenants is None or not elsewhere.exclude(tenant__in=tenants).exists()


def _lock(tenant: Tenant) -> None:
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)


def _refresh(membership: Membership) -> None:
    try:
        membership.refresh_from_db(fields=["role"])
    except Membership.DoesNotExist:
        raise Refused(f"{membership.user.get_username()} is not in {membership.tenant} any more.") from None


def _keep_an_owner(membership: Membership) -> None:
    owners = Membership.objects.filter(tenant=membership.tenant).owners()
    if membership.role == Role.OWNER and not owners.exclude(pk=membership.pk).exists():
        raise Refused(LAST_OWNER.format(user=membership.user.get_username(), tenant=membership.tenant))
