"""Keys to the API: made here, shown once, and found again by their SHA-256.

    key, text = issue(tenant, "billing service", SCOPES)   # `text` is jr_…, and nobody can ask for it again
    found = find(text)                                     # None, or who it is

A key is looked up at most once a second in each process: revoking one takes effect within that second.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from subscriptions import quotas
from subscriptions.models import ApiKey, Tenant
from subscriptions.remembering import Remembered

PREFIX = "jr_"
VISIBLE = 10
MAX_NAME = 100
# What a scope lets a key do, in words for people who make one.
SCOPES: dict[str, str] = {
    "events:read": "read events and explain them",
    "events:write": "post events",
    "endpoints:read": "read endpoints, subscriptions and sources",
    "endpoints:write": "make, change, pause, test and delete them, and rotate secrets",
    "secrets:read": "reveal signing secrets",
    "deliveries:read": "read deliveries, attempts, replays and statistics",
    "deliveries:write": "replay, recover and dismiss",
    "keys:read": "list keys",
    "keys:write": "make, rotate and revoke keys with no more scopes than one's own",
    "stream:read": "see how the stream is doing",
    "stream:write": "reconnect the stream and move its cursor, for all tenants",
}
# The stream is everybody's: only the operator gives this away, by command.
OPERATORS_SCOPES = frozenset({"stream:write"})
TENANTS_SCOPES = tuple(scope for scope in SCOPES if scope not in OPERATORS_SCOPES)
# How long a key that was rotated stays valid, unless somebody says otherwise; and the most.
OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=30)

_REMEMBERED_S = 1.0
_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whoever holds a key: what a request needs to know of it."""

    key_id: UUID
    tenant_id: UUID
    actor: str
    scopes: frozenset[str]
    rate_limit_per_s: int | None
    expires_at: datetime | None
    # The key whose place this one took.
    replaced: UUID | None = None
    # The tenant's own: see `allowance.py`.
    quotas: Mapping[str, Any] = field(default_factory=dict)


def clean_scopes(scopes: Iterable[str]) -> list[str]:
    """In the order of `SCOPES`, each once. Raises ValidationError for one that there is not, or for none."""
    chosen = set(scopes)
    if unknown := chosen - SCOPES.keys():
        raise ValidationError(f"{min(unknown)!r} is not a scope: use {', '.join(SCOPES)}.")
    if not chosen:
        raise ValidationError(f"A key without scopes can do nothing: give it some of {', '.join(SCOPES)}.")
    return [scope for scope in SCOPES if scope in chosen]


@transaction.atomic
def issue(
    tenant: Tenant,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    rate_limit_per_s: int | None = None,
    by: str = "",
    replaced: ApiKey | None = None,
) -> tuple[ApiKey, str]:
    """Make a key. Returns its row and its text, which is kept nowhere. Raises ValidationError for scopes or a name that cannot be,
    and Exceeded where the tenant has as many as it may. `replaced`: the key that ends for it.
    """
    quotas.check_key(quotas.hold(tenant), instead=replaced is not None)
    text = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        tenant=tenant,
        name=name.strip(),
        visible_prefix=text[:VISIBLE],
        digest=_digest(text),
        scopes=clean_scopes(scopes),
        expires_at=expires_at,
        rate_limit_per_s=rate_limit_per_s,
        created_by=by[:200],
        replaced=replaced.pk if replaced else None,
    )
    key.full_clean()
    key.save(force_insert=True)
    return key, text


@transaction.atomic
def rotate(key: ApiKey, overlap: timedelta = OVERLAP, by: str = "") -> tuple[ApiKey, str]:
    """Make a key like this one, which itself ends after the overlap. Raises ValidationError if it has ended, or was rotated, already."""
    quotas.hold(key.tenant_id)
    locked = ApiKey.objects.select_for_update().get(pk=key.pk)
    now = timezone.now()
    if locked.state(now) != ApiKey.State.LIVE:
        raise ValidationError(f"This key is {locked.state(now)} already: make a new one.")
    if locked.rotated_at:
        # It ends soon, and so would a key like it. Two requests at once, as of a double click, come here too.
        at = f"{locked.rotated_at:%Y-%m-%d %H:%M:%S} UTC"
        raise ValidationError(f"This key was rotated at {at}: rotate the key that replaced it, or revoke this one and make a new one.")
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise ValidationError(f"An overlap is 0 to {MAX_OVERLAP.days} days.")
    made = issue(
        locked.tenant,
        locked.name,
        locked.scopes,
        expires_at=locked.expires_at,
        rate_limit_per_s=locked.rate_limit_per_s,
        by=by,
        replaced=locked,
    )
    locked.expires_at = min(filter(None, (locked.expires_at, now + overlap)))
    locked.rotated_at = now
    locked.save(update_fields=["expires_at", "rotated_at"])
    forget()
    return made


def revoke(key: ApiKey) -> bool:
    """End the key, for good. Returns whether it was not revoked before."""
    forget()
    return bool(ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()))


def find(text: str) -> Bearer | None:
    """Who holds this key, if it is live."""
    if not text.startswith(PREFIX):
        return None
    digest = _digest(text)
    return _unexpired(_remembered.fresh(digest) or _look(digest))


def remembered(text: str) -> Bearer | None:
    """`find`, if the answer is known without a look into the database."""
    return _unexpired(_remembered.known(_digest(text)))


def _unexpired(bearer: Bearer | None) -> Bearer | None:
    return bearer if bearer and (bearer.expires_at is None or bearer.expires_at > timezone.now()) else None


def forget() -> None:
    """Look again at every key; other processes do within a second."""
    _remembered.clear()


_remembered: Remembered[bytes, Bearer] = Remembered(_REMEMBERED_S)


def _look(digest: bytes) -> Bearer | None:
    now = timezone.now()
    key = ApiKey.objects.live(now).filter(digest=digest).select_related("tenant").first()
    if key is None:
        return None
    if key.last_used_at is None or now - key.last_used_at > _USED_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
    bearer = Bearer(key.pk, key.tenant_id, f"key {key}", frozenset(key.scopes), key.rate_limit_per_s, key.expires_at, key.replaced, key.tenant.quotas)
    _remembered.keep(digest, bearer)
    return bearer


def _digest(text: str) -> bytes:
    # The key has 256 random bits: nothing slower is needed to keep it from being guessed.
    return hashlib.sha256(text.encode()).digest()
