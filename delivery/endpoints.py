"""What people do to endpoints: pause and resume, disable and enable, put a breaker back, delete.

Each is one transaction of three parts, in this order: the endpoint's state; its health, whose version moves, so that what
a running lane still writes from before is dropped; and `ConfigVersion`, by which lanes notice within half a second.

| act | from | to | its deliveries | may be taken back |
|---|---|---|---|---|
| pause | active | paused | wait | by resume |
| disable | active, paused | disabled | wait | by enable |
| delete | any | deleted | pending ones are cancelled | no |

An endpoint that has not answered its challenge leaves that state by `verification` alone, or deleted.
"""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F

from delivery import cancelling
from delivery.models import EndpointHealth
from delivery.standing import has_trouble
from delivery.wakes import waker
from subscriptions.models import MAX_REASON, ConfigVersion, Endpoint, EndpointQuerySet, Subscription

State = Endpoint.State
# What `delete` itself cancels before it returns. The rest is for the task.
DELETE_BUDGET_S = 1.0

_RESET: dict[str, object] = {"failures": 0, "trips": 0, "failing_since": None, "open_until": None, "paused_until": None, "reason": "", "ramp": 1}


class NotDeletable(Exception):
    """The endpoint has to stay; the message says why and what to change."""


class Deleted(NamedTuple):
    """How many deliveries were cancelled at once, and whether that was all; otherwise a task goes on."""

    cancelled: int
    finished: bool


def pause(endpoints: EndpointQuerySet, reason: str) -> list[Endpoint]:
    """Hold the active ones of these endpoints: their deliveries wait. Returns those that changed, without their secrets."""
    return _move(endpoints, {State.ACTIVE}, State.PAUSED, reason)


def resume(endpoints: EndpointQuerySet) -> list[Endpoint]:
    """Let the paused ones go on, their backlog gently: one request at first. Returns those that changed, without their secrets."""
    return _woken(_move(endpoints, {State.PAUSED}, State.ACTIVE, "", reset=True))


def disable(endpoints: EndpointQuerySet, reason: str) -> list[Endpoint]:
    """Hold the active and the paused ones, until somebody enables them. Returns those that changed, without their secrets."""
    return _move(endpoints, {State.ACTIVE, State.PAUSED}, State.DISABLED, reason)


def enable(endpoints: EndpointQuerySet) -> list[Endpoint]:
    """Let the disabled ones go on, their backlog gently: one request at first. Returns those that changed, without their secrets."""
    return _woken(_move(endpoints, {State.DISABLED}, State.ACTIVE, "", reset=True))


def activate_verified(endpoint: Endpoint) -> bool:
    """Let an endpoint receive that has answered its challenge, if its URL is still the one that did. Returns whether it is so."""
    chosen = Endpoint.objects.filter(pk=endpoint.pk)
    with transaction.atomic():
        unchanged = [locked.url for locked in _locked(chosen)] == [endpoint.url]
        return unchanged and bool(_woken(_move(chosen, {State.UNVERIFIED}, State.ACTIVE, "")))


def reset_breaker(endpoints: EndpointQuerySet) -> list[Endpoint]:
    """Forget failures, an open breaker and a Retry-After, whatever the state is. Returns those that had any, without their secrets."""
    with transaction.atomic():
        found = _locked(endpoints.exclude(state=State.DELETED))
        health = EndpointHealth.objects.in_bulk([endpoint.pk for endpoint in found])
        changed = [endpoint for endpoint in found if endpoint.pk in health and has_trouble(health[endpoint.pk])]
        _write_health([endpoint.pk for endpoint in changed], _RESET)
        if changed:
            ConfigVersion.bump()
    return _woken(changed)


def why_not_deletable(endpoint: Endpoint) -> str:
    """What stands against deleting this endpoint now; empty if nothing does."""
    if endpoint.origin == Endpoint.Origin.ENVIRONMENT and settings.WEBHOOK_URL:
        return f"{endpoint.name} is the endpoint of WEBHOOK_URL, and the next start would make it again: unset WEBHOOK_URL and start again, or disable it."
    if endpoint.origin == Endpoint.Origin.INBOX and not settings.WEBHOOK_URL:
        return f"{endpoint.name} is made at every start while WEBHOOK_URL is not set: set WEBHOOK_URL and start again, or disable it."
    return ""


def delete(endpoint: Endpoint, reason: str = "") -> Deleted:
    """Delete the endpoint, for good: wipe its secrets, end its subscriptions, cancel what is pending for it.

    The row stays, because its deliveries keep showing its name. Many deliveries are cancelled by a task, over the next
    minutes. A request that is in flight now may still arrive. Raises NotDeletable while the environment asks for it.
    """
    with transaction.atomic():
        locked = Endpoint.objects.select_for_update(no_key=True).without_secrets().get(pk=endpoint.pk)
        if refusal := why_not_deletable(locked):
            raise NotDeletable(refusal)
        Endpoint.objects.filter(pk=locked.pk).mark(State.DELETED, reason)
        Endpoint.objects.filter(pk=locked.pk).update(
            # Should the environment ask for one again, it is another one.
            origin=Endpoint.Origin.PERSON,
            secret="",
            previous_secret="",
            previous_secret_expires_at=None,
            bearer_token="",
            extra_headers="",
        )
        Subscription.objects.filter(endpoint=locked.pk).update(active=False)
        _write_health([locked.pk], {})
        ConfigVersion.bump()
    done = cancelling.cancel(locked.pk, _never, DELETE_BUDGET_S)
    if not done.finished:
        cancelling.ask()
    return Deleted(*done)


@transaction.atomic
def _move(endpoints: EndpointQuerySet, origins: Collection[State], to: State, reason: str, *, reset: bool = False) -> list[Endpoint]:
    changed = [endpoint for endpoint in _locked(endpoints) if endpoint.state in origins]
    ids = [endpoint.pk for endpoint in changed]
    Endpoint.objects.filter(pk__in=ids).mark(to, reason)
    _write_health(ids, _RESET if reset else {})
    if changed:
        ConfigVersion.bump()
    for endpoint in changed:
        endpoint.state, endpoint.state_reason = to, reason[:MAX_REASON]
    return changed


def _locked(endpoints: EndpointQuerySet) -> list[Endpoint]:
    """These, locked in the order of their ids, however they were chosen."""
    ids = list(endpoints.order_by().values_list("pk", flat=True))
    return list(Endpoint.objects.filter(pk__in=ids).without_secrets().order_by("pk").select_for_update(no_key=True))


def _write_health(ids: Collection[UUID], news: dict[str, object]) -> None:
    """Move the versions and write the news. Those without a row get one: a lane may be about to write their first."""
    EndpointHealth.objects.bulk_create([EndpointHealth(endpoint_id=id) for id in ids], ignore_conflicts=True)
    rows = EndpointHealth.objects.filter(pk__in=ids)
    # A lane writes several of them at once: in the order of their ids, as here.
    list(rows.order_by("pk").select_for_update().values_list("pk"))
    rows.update(version=F("version") + 1, **news)


def _woken(changed: list[Endpoint]) -> list[Endpoint]:
    transaction.on_commit(lambda: waker.wake({endpoint.lane for endpoint in changed}))
    return changed


def _never(_seconds: float) -> bool:
    return False
