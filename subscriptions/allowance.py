"""What one tenant may have, by name: a setting for all of them, and for a tenant what the operator gave it.

Nothing here looks into the database: `quotas.py` counts, and holds the tenant while it does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError

CODE = "quota_exceeded"


class Quota(NamedTuple):
    """`of`: what is counted, in the plural. `advice`: what somebody does who has used it up."""

    setting: str
    of: str
    advice: str

    @property
    def default(self) -> int:
        return int(getattr(settings, self.setting))


_ENDED = "Wait for one to end, or cancel one"
QUOTAS: dict[str, Quota] = {
    "endpoints": Quota("JETRELAY_MAX_ENDPOINTS", "endpoints", "Delete one"),
    "subscriptions": Quota("JETRELAY_MAX_SUBSCRIPTIONS", "subscriptions", "Remove one"),
    "subscriptions_per_endpoint": Quota(
        "JETRELAY_MAX_SUBSCRIPTIONS_PER_ENDPOINT",
        "subscriptions of one endpoint",
        "Remove one, or name more collections in one that there is",
    ),
    "sources": Quota("JETRELAY_MAX_SOURCES", "sources of posted events", "Use one that there is"),
    "keys": Quota("JETRELAY_MAX_KEYS", "live keys", "Revoke one"),
    "new_keys_per_hour": Quota("JETRELAY_MAX_NEW_KEYS_PER_HOUR", "new keys in an hour", "Wait"),
    "members": Quota("JETRELAY_MAX_MEMBERS", "members", "Take somebody out"),
    "deliveries_per_event": Quota(
        "JETRELAY_MAX_DELIVERIES_PER_EVENT",
        "deliveries of one posted event",
        "Narrow some subscriptions",
    ),
    "pending_deliveries": Quota(
        "JETRELAY_MAX_PENDING_DELIVERIES",
        "pending deliveries",
        "Wait until some are delivered, or mend or delete the endpoints that hold them up",
    ),
    "replays": Quota("JETRELAY_MAX_REPLAYS", "replays under way", _ENDED),
    "audit_entries_per_day": Quota("JETRELAY_MAX_AUDIT_ENTRIES_PER_DAY", "entries in the audit log in 24 hours", "Wait"),
    "answers": Quota(
        "JETRELAY_MAX_ANSWERS",
        "answers kept for an Idempotency-Key",
        "Wait, or send the request without an Idempotency-Key",
    ),
    "answer_bytes": Quota(
        "JETRELAY_MAX_ANSWER_BYTES",
        "bytes of answers kept for an Idempotency-Key",
        "Wait, or send the request without an Idempotency-Key",
    ),
    "requests_per_s": Quota("JETRELAY_MAX_REQUESTS_PER_S", "requests to the API in a second", "Wait"),
}
# What an operator may give one tenant.
HIGHEST = 1_000_000_000


class Exceeded(ValidationError):
    """There is no room for it: the message says how much there is, what is used, and what to do.

    `wait_s`: after how many seconds it may be tried again; 0 where waiting alone does not help.
    """

    def __init__(self, name: str, most: int, used: int, wait_s: int = 0) -> None:
        self.quota, self.most, self.used, self.wait_s = name, most, used, wait_s
        super().__init__(words(name, most, used), code=CODE)


def words(name: str, most: int, used: int) -> str:
    quota = QUOTAS[name]
    # A count goes no further than it has to.
    have = f"{most:,}" if used == most else f"more than {most:,}" if used > most else f"{used:,}"
    return (
        f"Quota reached: a tenant may have {most:,} {quota.of}, and this one has {have}. {quota.advice},"
        f" or ask the operator for more ({quota.setting}, or the tenant's own quotas in the admin)."
    )


def most(name: str, own: Mapping[str, Any]) -> int:
    """How many a tenant may have whose own quotas these are."""
    given = own.get(name)
    return given if isinstance(given, int) else QUOTAS[name].default


def validate(own: Any) -> None:
    """A tenant's own quotas, as the operator writes them."""
    if not isinstance(own, dict):
        raise ValidationError('Write a JSON object, such as {"endpoints": 5000}.')
    for name, number in own.items():
        if name not in QUOTAS:
            raise ValidationError(f"{str(name)[:60]!r} is no quota: use {', '.join(QUOTAS)}.")
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole or not 0 <= number <= HIGHEST:
            raise ValidationError(f"{name}: write a whole number from 0 to {HIGHEST:,}.")
