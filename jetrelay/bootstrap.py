"""What an installation starts with: a tenant, the stream, an administrator, and the endpoint the environment asks for.

Runs at every start and changes only what differs from the environment, so a restart is never a reconfiguration.
Endpoints made here are the operator's own: they need no verification, and their URL may be a private address.
"""

import secrets
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.urls import reverse

from jetrelay.inbox.models import Inbox
from subscriptions import ourselves
from subscriptions.models import Endpoint, Source, Subscription, Tenant

# Few enough that a person can watch them arrive.
QUIET_COLLECTION = "app.bsky.actor.profile"
ADMIN = "admin"


@transaction.atomic
def bootstrap() -> Iterator[str]:
    """Bring the database in line with the environment. Yields what a person needs to be told."""
    tenant, _ = Tenant.objects.get_or_create(slug="default", defaults={"name": "Default"})
    source, _ = Source.objects.get_or_create(kind=Source.Kind.JETSTREAM, tenant=None, defaults={"name": "Jetstream"})
    messages = [*_administrator()]
    if settings.WEBHOOK_URL:
        messages += _webhook(tenant, source)
        _rest(Endpoint.Origin.INBOX, "WEBHOOK_URL is set")
    else:
        _rest(Endpoint.Origin.ENVIRONMENT, "WEBHOOK_URL is no longer set")
        messages += _inbox(tenant, source)
    return iter(messages)


def _administrator() -> Iterator[str]:
    users = get_user_model().objects
    if not users.filter(is_superuser=True).exists():
        password = secrets.token_urlsafe(12)
        users.create_superuser(ADMIN, password=password)
        yield f"Sign in as {ADMIN} with the password {password} (shown only now; this sets another: {_command(f'changepassword {ADMIN}')})."


def _command(words: str) -> str:
    """A management command as it must be typed to reach this installation's data."""
    return f"JETRELAY_DATA_DIR={shlex.quote(str(settings.DATA_DIR))} {shlex.quote(sys.executable)} {shlex.quote(str(settings.BASE_DIR / 'manage.py'))} {words}"


def _webhook(tenant: Tenant, source: Source) -> Iterator[str]:
    endpoint = Endpoint.objects.filter(origin=Endpoint.Origin.ENVIRONMENT).first()
    if endpoint is None:
        endpoint = Endpoint(tenant=tenant, name="WEBHOOK_URL", origin=Endpoint.Origin.ENVIRONMENT)
        if not settings.WEBHOOK_SECRET:
            yield f"Deliveries are signed with the secret {endpoint.secret} (shown only now; set WEBHOOK_SECRET to use your own)."
    if settings.WEBHOOK_SECRET and endpoint.secret != settings.WEBHOOK_SECRET:
        if endpoint._state.adding:
            endpoint.secret = settings.WEBHOOK_SECRET
        else:
            endpoint.replace_secret(settings.WEBHOOK_SECRET)
            endpoint.save()
    _save(endpoint, url=settings.WEBHOOK_URL, bearer_token=settings.WEBHOOK_BEARER_TOKEN)
    _subscribe(endpoint, source, settings.JETSTREAM_COLLECTIONS or ["*"])
    yield f"Events go to {endpoint.url}"


def _inbox(tenant: Tenant, source: Source) -> Iterator[str]:
    inbox = Inbox.objects.present().first()
    if inbox is None:
        endpoint = Endpoint(tenant=tenant, name="Built-in inbox", origin=Endpoint.Origin.INBOX)
        inbox = Inbox(endpoint=endpoint)
        _save(endpoint, url=_local_url("inbox_of", endpoint.pk))
        inbox.save()
    # The address or the port may be another one than last time.
    _save(inbox.endpoint, url=_local_url("inbox_of", inbox.endpoint.pk))
    chosen = settings.JETSTREAM_COLLECTIONS or (["*"] if settings.JETSTREAM_DIDS else [QUIET_COLLECTION])
    _subscribe(inbox.endpoint, source, chosen)
    kinds = [kind for kind in settings.JETSTREAM_KINDS if kind != "commit"]
    what = [*(chosen if "commit" in settings.JETSTREAM_KINDS else []), *kinds]
    yield f"WEBHOOK_URL is not set: events ({', '.join(what)}) go to the built-in inbox. Watch them arrive: {_local_url('inbox', inbox.token)}"


def _local_url(page: str, argument: object) -> str:
    return f"{ourselves.url(settings.HOST, settings.PORT)}{reverse(page, args=[argument])}"


def _subscribe(endpoint: Endpoint, source: Source, collections: list[str]) -> None:
    subscription = endpoint.subscriptions.order_by("id").first() or Subscription(endpoint=endpoint, source=source)
    _save(subscription, collections=collections, dids=settings.JETSTREAM_DIDS, kinds=settings.JETSTREAM_KINDS, active=True)
    if endpoint.state_reason and endpoint.state == Endpoint.State.PAUSED and endpoint.state_reason.startswith("WEBHOOK_URL"):
        Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.ACTIVE, "")


def _rest(origin: str, reason: str) -> None:
    """Pause the endpoint that the environment no longer asks for. What it is owed stays."""
    for endpoint in Endpoint.objects.active().filter(origin=origin):
        for subscription in endpoint.subscriptions.filter(active=True):
            _save(subscription, active=False)
        Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.PAUSED, reason)


def _save(row: Endpoint | Subscription, **values: Any) -> None:
    """Save the row if it is new or any of the values differ: every save makes all listeners and lanes reload."""
    if row._state.adding or any(getattr(row, name) != value for name, value in values.items()):
        for name, value in values.items():
            setattr(row, name, value)
        row.full_clean()
        row.save()
