"""Who wants what: tenants, their keys, sources, endpoints and subscriptions.

Whatever changes what matches, or where it goes, bumps `ConfigVersion` in the same transaction, so that
listeners and lanes notice without polling the tables.
"""

from subscriptions.models.config import ConfigModel, ConfigVersion
from subscriptions.models.endpoints import (
    DEFAULT_RETRY_SCHEDULE_S,
    MAX_REASON,
    MAX_SECRET_OVERLAP,
    SECRET_OVERLAP,
    SHARDS,
    Endpoint,
    EndpointQuerySet,
    _default_retry_schedule_s,
    _new_shard,
    new_secret,
)
from subscriptions.models.history import AuditEntry, EndpointPastState, actor_of
from subscriptions.models.sources import Source, SourceQuerySet
from subscriptions.models.subscriptions import Subscription, SubscriptionQuerySet, _commits, _everything
from subscriptions.models.tenants import ApiKey, ApiKeyQuerySet, Membership, Tenant, Tenants

__all__ = [
    "DEFAULT_RETRY_SCHEDULE_S",
    "MAX_REASON",
    "MAX_SECRET_OVERLAP",
    "SECRET_OVERLAP",
    "SHARDS",
    "ApiKey",
    "ApiKeyQuerySet",
    "AuditEntry",
    "ConfigModel",
    "ConfigVersion",
    "Endpoint",
    "EndpointPastState",
    "EndpointQuerySet",
    "Membership",
    "Source",
    "SourceQuerySet",
    "Subscription",
    "SubscriptionQuerySet",
    "Tenant",
    "Tenants",
    # Migrations name these.
    "_commits",
    "_default_retry_schedule_s",
    "_everything",
    "_new_shard",
    "actor_of",
    "new_secret",
]
