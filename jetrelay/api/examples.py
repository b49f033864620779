"""What requests and answers look like. By the name of the operation; the tests hold them against its shapes."""

from typing import Any, NamedTuple


class Example(NamedTuple):
    request: Any
    answer: Any = None


_ENDPOINT = "ep_01a2043032cf7738966bf3d2088e7d01"
_SOURCE = "src_01a2043032cf7738966bf3d2088e7d02"
_SUBSCRIPTION = "sub_01a2043032cf7738966bf3d2088e7d03"
_EVENT = "evt_01a2043032cf7738966bf3d2088e7d04"
_KEY = "key_01a2043032cf7738966bf3d2088e7d05"
_REPLAY = "rpl_01a2043032cf7738966bf3d2088e7d06"
_NOW = "2026-11-28T12:00:00.123456Z"

_SUBSCRIBED = {
    "id": _SUBSCRIPTION,
    "endpoint": _ENDPOINT,
    "source": _SOURCE,
    "source_kind": "jetstream",
    "collections": ["app.bsky.feed.post"],
    "types": None,
    "dids": [],
    "operations": ["create"],
    "kinds": ["commit"],
    "active": True,
    "created_at": _NOW,
    "updated_at": _NOW,
}

EXAMPLES: dict[str, Example] = {
    "create_source": Example({"name": "Billing"}),
    "create_endpoint": Example(
        {
            "url": "https://example.com/hook",
            "name": "My receiver",
            "subscriptions": [{"collections": ["app.bsky.feed.post"], "operations": ["create"]}, {"types": ["order.*"]}],
        },
        {
            "id": _ENDPOINT,
            "name": "My receiver",
            "url": "https://example.com/hook",
            "signature_scheme": "standard",
            "has_bearer_token": False,
            "header_names": [],
            "timeout_s": 30.0,
            "max_in_flight": 32,
            "rate_limit_per_s": None,
            "priority": "normal",
            "ordered": False,
            "batch_size": 1,
            "batch_wait_ms": 1000,
            "retry": {
                "strategy": "schedule",
                "schedule_s": [30, 300, 1800, 7200],
                "first_s": 30.0,
                "factor": 4.0,
                "step_s": 300.0,
                "longest_s": 7200.0,
                "count": 5,
                "jitter_percent": 10,
                "on": "any",
            },
            "subscriptions": [_SUBSCRIBED],
            "state": "active",
            "state_reason": "",
            "state_changed_at": _NOW,
            "health": {"status": "well", "words": "closed", "failing_since": None, "last_failure": ""},
            "created_at": _NOW,
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYq=",
            "verification": {
                "passed": True,
                "words": "The challenge was answered. The endpoint is active now.",
                "status": 200,
                "error": None,
                "timings_ms": {"dns": 2.1, "connect": 11.8, "tls": 25.0, "first_byte": 40.2, "total": 40.3},
                "answer": "…",
            },
        },
    ),
    "change_endpoint": Example({"rate_limit_per_s": 50, "retry": {"strategy": "exponential", "first_s": 10, "factor": 2, "longest_s": 3600, "count": 8}}),
    "pause_endpoint": Example({"reason": "maintenance until noon"}),
    "rotate_secret": Example({"overlap_s": 3600}),
    "recover_endpoint": Example({"since": "2026-11-28T08:00:00Z", "collections": ["app.bsky.feed.*"], "rate_per_s": 100}),
    "create_subscription": Example(
        {"endpoint": _ENDPOINT, "collections": ["app.bsky.feed.post"], "operations": ["create"]},
        _SUBSCRIBED,
    ),
    "preview_subscription": Example(
        {"types": ["order.*"], "last": 1000},
        {
            "source": _SOURCE,
            "looked_at": 1000,
            "matched": 1,
            "oldest_at": _NOW,
            "per_type": [{"kind": "api", "type": "order.paid", "matched": 1}],
            "samples": [{"id": _EVENT, "kind": "api", "type": "order.paid", "operation": "", "subject": "order 4711", "received_at": _NOW}],
        },
    ),
    "post_event": Example(
        {"type": "order.paid", "data": {"order": 4711, "total": "12.50"}, "id": "order-4711-paid", "subject": "order 4711"},
        {"id": _EVENT, "status": "stored", "deliveries": 2},
    ),
    "post_events": Example(
        {"events": [{"type": "order.paid", "data": {"order": 4712}}, {"type": "order.shipped", "data": {"order": 4711}}]},
        {
            "data": [
                {"index": 0, "id": _EVENT, "status": "stored", "deliveries": 2},
                {"index": 1, "id": "evt_01a2043032cf7738966bf3d2088e7d07", "status": "stored", "deliveries": 0},
            ]
        },
    ),
    "start_replay": Example(
        {"endpoint": _ENDPOINT, "state": "dead", "since": "2026-11-28T08:00:00Z", "rate_per_s": 50},
        {
            "id": _REPLAY,
            "action": "replay",
            "endpoint": _ENDPOINT,
            "event": None,
            "state_of_deliveries": "dead",
            "since": "2026-11-28T08:00:00Z",
            "until": None,
            "collections": [],
            "rate_per_s": 50.0,
            "state": "running",
            "expected": 1200,
            "expected_more": False,
            "looked_at": 0,
            "done": 0,
            "skipped": 0,
            "created_at": _NOW,
            "created_by": "key billing (jr_Zq3x81a…)",
            "ended_at": None,
            "ended_by": None,
        },
    ),
    "preview_replay": Example({"state": "dead", "collections": ["order.*"]}, {"matched": 1200, "more": False}),
    "reconnect_stream": Example({"host": "wss://jetstream.us-east.bsky.network/xrpc/network.bsky.jetstream.subscribeEvents"}),
    "rewind_stream": Example({"to": "2026-11-28T08:00:00Z"}, {"hosts": 2}),
    "create_key": Example(
        {"name": "billing", "scopes": ["events:write"], "rate_limit_per_s": 50},
        {
            "id": _KEY,
            "name": "billing",
            "visible_prefix": "jr_Zq3x81a",
            "state": "live",
            "scopes": ["events:write"],
            "rate_limit_per_s": 50,
            "created_at": _NOW,
            "created_by": "key operator (jr_u71kR0w…)",
            "expires_at": None,
            "last_used_at": None,
            "revoked_at": None,
            "key": "jr_Zq3x81aV0mEw5nT2yLh4sKc9dRf6gUj7bXp1oQi8uA0",
        },
    ),
    "rotate_key": Example({"overlap_s": 3600}),
}
