"""Plain builders: a row with everything it needs, and what the test cares about given by name."""

import itertools
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.test import override_settings
from django.utils import timezone

from delivery.ingest import Posted
from delivery.models import Attempt, Delivery, EndpointHealth, Event, RejectedFrame, Replay, StreamGap, StreamHost
from delivery.sources import api
from delivery.sources.incoming import Incoming, dedup_key
from subscriptions import keys
from subscriptions.ids import first_id, new_id, to_public
from subscriptions.models import ApiKey, Endpoint, Membership, Source, Subscription, Tenant

_numbers = itertools.count(1)

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
POST = "app.bsky.feed.post"


def make_tenant(**over: Any) -> Tenant:
    return Tenant.objects.get_or_create(slug=over.pop("slug", "default"), defaults={"name": "Default"} | over)[0]


def make_member(tenant: Tenant | None = None, role: str = Membership.Role.MEMBER, **over: Any) -> User:
    """A user of the dashboard who is in one tenant, and is not staff."""
    user = User.objects.create_user(over.pop("username", f"user{next(_numbers)}"), **over)
    Membership.objects.create(tenant=tenant or make_tenant(), user=user, role=role)
    return user


def make_source(**over: Any) -> Source:
    return Source.objects.get_or_create(kind=Source.Kind.JETSTREAM, tenant=None, defaults={"name": "Jetstream"} | over)[0]


def make_api_source(**over: Any) -> Source:
    """Of events that the tenant posts, as the API makes it."""
    tenant = over.pop("tenant", None) or make_tenant()
    name = over.pop("name", "HTTP API")
    return Source.objects.get_or_create(tenant=tenant, name=name, defaults={"kind": Source.Kind.API, "keep_unmatched": True} | over)[0]


def make_api_key(**over: Any) -> tuple[ApiKey, str]:
    """A key and its text. Without scopes it may do everything."""
    tenant = over.pop("tenant", None) or make_tenant()
    row = {name: over.pop(name) for name in ("revoked_at", "last_used_at") if name in over}
    scopes = over.pop("scopes", None) or list(keys.SCOPES)
    # What a test has to begin with uses up no quota.
    with override_settings(JETRELAY_MAX_KEYS=1_000_000, JETRELAY_MAX_NEW_KEYS_PER_HOUR=1_000_000):
        key, text = keys.issue(tenant, over.pop("name", "a key"), scopes, **over)
    ApiKey.objects.filter(pk=key.pk).update(**row)
    return key, text


def make_endpoint(**over: Any) -> Endpoint:
    fields: dict[str, Any] = {"name": f"endpoint {next(_numbers)}", "url": "https://receiver.example/hook", "retry_jitter_percent": 0}
    return Endpoint.objects.create(**{"tenant": over.pop("tenant", None) or make_tenant()} | fields | over)


def make_health(**over: Any) -> EndpointHealth:
    """Of an endpoint whose breaker has opened for the second time."""
    now = timezone.now()
    fields: dict[str, Any] = {
        "failures": 7,
        "failing_since": now - timedelta(hours=1),
        "trips": 2,
        "open_until": now + timedelta(minutes=1),
        "reason": "503 Service Unavailable",
    }
    return EndpointHealth.objects.create(**{"endpoint": over.pop("endpoint", None) or make_endpoint()} | fields | over)


def make_subscription(**over: Any) -> Subscription:
    parents = {"endpoint": over.pop("endpoint", None) or make_endpoint(), "source": over.pop("source", None) or make_source()}
    return Subscription.objects.create(**parents | {"collections": ["*"]} | over)


def make_event(**over: Any) -> Event:
    number, now = next(_numbers), timezone.now()
    body = {"did": DID, "time_us": number, "kind": "commit", "commit": {"operation": "create", "collection": POST, "rkey": str(number)}}
    fields: dict[str, Any] = {
        "dedup_key": dedup_key([str(number)]),
        "kind": "commit",
        "type": POST,
        "operation": "create",
        "subject": DID,
        "occurred_at": now,
        "received_at": now,
        "body": json.dumps(body).encode(),
    }
    return Event.objects.create(**{"source": over.pop("source", None) or make_source()} | fields | over)


def make_api_event(**over: Any) -> Event:
    """One that was posted."""
    number = next(_numbers)
    fields: dict[str, Any] = {"kind": "api", "type": "order.paid", "operation": "", "subject": f"order-{number}"}
    fields["body"] = json.dumps({"id": f"o-{number}", "type": "order.paid", "timestamp": "2026-01-01T00:00:00Z", "data": number}).encode()
    return make_event(**{"source": over.pop("source", None) or make_api_source()} | fields | over)


def make_delivery(**over: Any) -> Delivery:
    parents = {"event": over.pop("event", None) or make_event(), "endpoint": over.pop("endpoint", None) or make_endpoint()}
    now = timezone.now()
    return Delivery.objects.create(**parents | {"due_at": now - timedelta(seconds=1), "created_at": now} | over)


def make_attempt(**over: Any) -> Attempt:
    fields: dict[str, Any] = {"number": 1, "started_at": timezone.now(), "status": 200, "total_ms": 12.5}
    return Attempt.objects.create(**{"delivery": over.pop("delivery", None) or make_delivery()} | fields | over)


def make_replay(**over: Any) -> Replay:
    return Replay.objects.create(**{"tenant": over.pop("tenant", None) or make_tenant(), "created_by": "ada"} | over)


def make_host(**over: Any) -> StreamHost:
    """A host that the listener is connected to."""
    now = timezone.now()
    fields: dict[str, Any] = {
        "host": f"wss://host{next(_numbers)}.example/subscribe",
        "connected_since": now - timedelta(minutes=5, seconds=1),
        "seen_at": now,
        "last_event_at": now,
        "reached_at": now,
        "lag_s": 0.2,
    }
    return StreamHost.objects.create(**{"source": over.pop("source", None) or make_source()} | fields | over)


def make_gap(**over: Any) -> StreamGap:
    number, now = next(_numbers), timezone.now()
    fields: dict[str, Any] = {"host": "wss://host.example/subscribe", "from_at": now - timedelta(hours=2, seconds=number), "to_at": now - timedelta(hours=1)}
    fields["reason"] = "the host no longer had what was asked for"
    return StreamGap.objects.create(**{"source": over.pop("source", None) or make_source()} | fields | over)


def make_rejected(**over: Any) -> RejectedFrame:
    fields: dict[str, Any] = {"host": "wss://host.example/subscribe", "received_at": timezone.now(), "reason": "not JSON", "size": 7, "head": b"garbage"}
    return RejectedFrame.objects.create(**{"source": over.pop("source", None) or make_source()} | fields | over)


def make_incoming(**over: Any) -> Incoming:
    """An event as the listener hands it to the outbox."""
    number = next(_numbers)
    fields: dict[str, Any] = {
        "dedup_key": dedup_key(["incoming", str(number)]),
        "kind": "commit",
        "type": POST,
        "operation": "create",
        "subject": DID,
        "time_us": 1_780_000_000_000_000 + number,
        "cursor": None,
        "body": b'{"n":%d}' % number,
    }
    return Incoming(**fields | over)


def make_posted(**over: Any) -> Posted:
    """An event as the API hands it to the publisher."""
    value = {"type": "order.paid", "data": {"n": next(_numbers)}} | over
    id, now = new_id(), timezone.now()
    return Posted(api.incoming(json.dumps(value).encode(), value, id, to_public(Event.prefix, id), now, "a key"), "timestamp" in value)


def frame(number: int, **over: Any) -> bytes:
    """A commit as it stands on the v1 wire, different for every number."""
    commit = {"rev": f"3l{number:011d}", "operation": "create", "collection": POST, "rkey": f"3k{number:011d}", "record": {"text": f"post {number}"}}
    whole = {"did": DID, "time_us": 1_780_000_000_000_000 + number, "kind": "commit", "commit": commit | over.pop("commit", {})}
    return json.dumps(whole | over, separators=(",", ":"), ensure_ascii=False).encode()


def some_id(number: int) -> UUID:
    return UUID(int=number)


def id_of(age: timedelta) -> UUID:
    """An id that was made so long ago."""
    return UUID(int=first_id(timezone.now() - age).int | new_id().int & (1 << 80) - 1)
