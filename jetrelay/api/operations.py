"""What the OpenAPI document says of each view's methods, beyond what the views say themselves. See `schema.py`."""

from collections.abc import Mapping
from http import HTTPMethod, HTTPStatus
from typing import NamedTuple

from delivery.models import Event
from delivery.sources.api import MAX_ID, MAX_ITEMS, MAX_SUBJECT, MAX_TYPE, TYPE_PATTERN
from jetrelay.api import deliveries, endpoint_acts, endpoints, events, keys, quotas, replays, sources, stats, stream, subscriptions
from jetrelay.api.fields import Nothing, Strict
from jetrelay.api.pages import DEFAULT_LIMIT, MAX_LIMIT
from jetrelay.api.shapes import CURSOR, MOMENT, Schema, one_of, public_id, ref, words
from jetrelay.api.views import ApiView
from subscriptions import validation
from subscriptions.models import Endpoint, Source

GET, POST, PATCH, DELETE = HTTPMethod.GET, HTTPMethod.POST, HTTPMethod.PATCH, HTTPMethod.DELETE
OK, CREATED, ACCEPTED = HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED
NOT_FOUND, CONFLICT = HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT


class Operation(NamedTuple):
    """One method of one view. What can be read off the view, `schema.py` adds: scope, query, id, limits and the errors that follow from them."""

    name: str
    summary: str
    # By status: the component that is answered, "" for any JSON, None for no body.
    answers: Mapping[HTTPStatus, str | None]
    words: str = ""
    body: type[Strict] | str | None = None
    # Errors of its own, and what they mean.
    errors: Mapping[HTTPStatus, str] = {}
    # Whether its answer has an ETag, and whether it looks at If-Match.
    tagged: bool = False
    matched: bool = False
    # Query parameters that mean something else here than elsewhere.
    query: Mapping[str, Schema] = {}
    required: tuple[str, ...] = ()


_WRONG_STATE = "It is in a state in which this is not possible."
_POSTED_TO = {"source": words(public_id(Source.prefix), "The source to post to. Without it: the tenant's first one.")}

OPERATIONS: dict[tuple[type[ApiView], HTTPMethod], Operation] = {
    # --- sources
    (sources.SourceList, GET): Operation("list_sources", "List sources", {OK: "SourcePage"}, "The tenant's own, and those that all share."),
    (sources.SourceList, POST): Operation(
        "create_source",
        "Make a source of posted events",
        {CREATED: "Source"},
        "Events are posted to the tenant's first one unless they name another.",
        sources.SourceBody,
        tagged=True,
    ),
    (sources.SourceDetail, GET): Operation("get_source", "Get a source", {OK: "Source"}, tagged=True),
    (sources.SourceDetail, PATCH): Operation("change_source", "Change a source", {OK: "Source"}, "", sources.SourceBody, tagged=True, matched=True),
    # --- endpoints
    (endpoints.EndpointList, GET): Operation("list_endpoints", "List endpoints", {OK: "EndpointPage"}, query={"state": one_of(endpoints.STATES)}),
    (endpoints.EndpointList, POST): Operation(
        "create_endpoint",
        "Make an endpoint, with its subscriptions",
        {CREATED: "MadeEndpoint"},
        "The signing secret is in this answer. The URL is challenged at once, unless the operator has switched that off: an endpoint that does not answer the"
        " challenge is unverified, and is owed nothing until it does.",
        endpoints.NewEndpoint,
        tagged=True,
    ),
    (endpoints.EndpointDetail, GET): Operation("get_endpoint", "Get an endpoint", {OK: "Endpoint"}, "The ETag is that of its settings.", tagged=True),
    (endpoints.EndpointDetail, PATCH): Operation(
        "change_endpoint",
        "Change an endpoint's settings",
        {OK: "Endpoint"},
        "What is left out stays. A new URL of an endpoint that receives is challenged first, and taken over if it answers.",
        endpoints.EndpointBody,
        {CONFLICT: "The URL comes from the operator's environment."},
        tagged=True,
        matched=True,
    ),
    (endpoints.EndpointDetail, DELETE): Operation(
        "delete_endpoint",
        "Delete an endpoint, for good",
        {OK: "DeletedEndpoint"},
        "Its secrets are wiped, and what is pending is cancelled. A request that is under way may still arrive.",
        errors={CONFLICT: "The endpoint is the operator's own."},
        matched=True,
    ),
    (endpoint_acts.Pause, POST): Operation(
        "pause_endpoint", "Pause an endpoint", {OK: "Endpoint"}, "Its deliveries wait.", endpoint_acts.Reason, {CONFLICT: _WRONG_STATE}, tagged=True
    ),
    (endpoint_acts.Resume, POST): Operation(
        "resume_endpoint", "Resume a paused endpoint", {OK: "Endpoint"}, "", Nothing, {CONFLICT: _WRONG_STATE}, tagged=True
    ),
    (endpoint_acts.Enable, POST): Operation(
        "enable_endpoint", "Enable a disabled endpoint", {OK: "Endpoint"}, "", Nothing, {CONFLICT: _WRONG_STATE}, tagged=True
    ),
    (endpoint_acts.Disable, POST): Operation(
        "disable_endpoint",
        "Disable an endpoint",
        {OK: "Endpoint"},
        "Its deliveries wait until somebody enables it.",
        endpoint_acts.Reason,
        {CONFLICT: _WRONG_STATE},
        tagged=True,
    ),
    (endpoint_acts.ResetBreaker, POST): Operation(
        "reset_breaker",
        "Reset an endpoint's circuit breaker",
        {OK: "Endpoint"},
        "What waits for the receiver to come back is sent at once.",
        Nothing,
        tagged=True,
    ),
    (endpoint_acts.Verify, POST): Operation(
        "verify_endpoint",
        "Challenge an endpoint",
        {OK: "Tried"},
        'The receiver has to answer 2xx with the challenge as its body, or as {"challenge": …} in JSON. An unverified endpoint that does is active then.',
        Nothing,
    ),
    (endpoint_acts.Test, POST): Operation(
        "test_endpoint", "Send a test event to an endpoint", {OK: "Tried"}, "It is no delivery: nothing is stored or retried.", Nothing
    ),
    (endpoint_acts.RotateSecret, POST): Operation(
        "rotate_secret",
        "Replace an endpoint's signing secret",
        {OK: "RotatedSecret"},
        "The old one stays valid for the overlap.",
        endpoint_acts.Overlap,
        {CONFLICT: "The secret comes from the operator's environment."},
    ),
    (endpoint_acts.RevealSecret, POST): Operation(
        "reveal_secret", "Show an endpoint's signing secrets", {OK: "Secrets"}, "Written down in the audit log.", Nothing
    ),
    (replays.Recover, POST): Operation(
        "recover_endpoint",
        "Make the deliveries that an endpoint missed",
        {ACCEPTED: "Replay"},
        "Those of stored events that its present subscriptions match and that it is not owed yet. It goes on in the background.",
        replays.Recovery,
    ),
    # --- subscriptions
    (subscriptions.SubscriptionList, GET): Operation("list_subscriptions", "List subscriptions", {OK: "SubscriptionPage"}),
    (subscriptions.SubscriptionList, POST): Operation(
        "create_subscription",
        "Subscribe an endpoint to events",
        {CREATED: "Subscription"},
        "It takes effect within a second or two.",
        subscriptions.NewSubscription,
        tagged=True,
    ),
    (subscriptions.SubscriptionPreview, POST): Operation(
        "preview_subscription",
        "Try a subscription on stored events",
        {OK: "PreviewedSubscription"},
        "Nothing is saved. Only what is stored can be looked at: of a Jetstream that is what some subscription wanted.",
        subscriptions.PreviewRequest,
    ),
    (subscriptions.SubscriptionDetail, GET): Operation("get_subscription", "Get a subscription", {OK: "Subscription"}, tagged=True),
    (subscriptions.SubscriptionDetail, PATCH): Operation(
        "change_subscription", "Change a subscription", {OK: "Subscription"}, "It stays with its source.", subscriptions.Wish, tagged=True, matched=True
    ),
    (subscriptions.SubscriptionDetail, DELETE): Operation("delete_subscription", "Delete a subscription", {HTTPStatus.NO_CONTENT: None}, matched=True),
    # --- events
    (events.EventList, GET): Operation("list_events", "List events", {OK: "EventPage"}, errors={NOT_FOUND: "There is no such source."}),
    (events.EventList, POST): Operation(
        "post_event",
        "Post an event",
        {ACCEPTED: "AcceptedEvent"},
        "202 once the event and its deliveries are committed. An event that comes again with its id is stored once.",
        "NewEvent",
        {
            NOT_FOUND: "There is no such source.",
            CONFLICT: "It would owe more deliveries than one event may (quota_exceeded).",
        },
        query=_POSTED_TO,
    ),
    (events.EventBatch, POST): Operation(
        "post_events",
        "Post up to 1,000 events",
        {ACCEPTED: "AcceptedBatch", HTTPStatus.MULTI_STATUS: "AcceptedBatch"},
        "202 if all of them are stored. 207 if some are not, each with what to change: the others are stored.",
        "NewEvents",
        {NOT_FOUND: "There is no such source."},
        query=_POSTED_TO,
    ),
    (events.EventDetail, GET): Operation("get_event", "Get an event, with its body and its deliveries", {OK: "EventDetail"}, "Its 200 newest deliveries."),
    (events.EventBody, GET): Operation("get_event_body", "Get an event's body, byte for byte", {OK: ""}),
    (events.EventExplain, GET): Operation(
        "explain_event",
        "Explain why an endpoint did, or didn't, get an event",
        {OK: "ExplainedEvent"},
        "Subscriptions are judged as they are now. What of them was changed after the event came is said.",
        query={"endpoint": words(public_id(Endpoint.prefix), "The endpoint that you ask about.")},
        required=("endpoint",),
    ),
    (events.EventReplay, POST): Operation(
        "replay_event",
        "Deliver an event again",
        {ACCEPTED: "ReplayedEvent"},
        "To all endpoints that it was owed to, or to one of them.",
        events.ReplayRequest,
        {CONFLICT: "Nothing of this event can be replayed."},
    ),
    # --- deliveries
    (deliveries.DeliveryList, GET): Operation("list_deliveries", "List deliveries", {OK: "DeliveryPage"}),
    (deliveries.DeadLetterList, GET): Operation(
        "list_dead_letters", "List dead deliveries", {OK: "DeliveryPage"}, "Those that were given up after their last attempt."
    ),
    (deliveries.DeliveryDetail, GET): Operation("get_delivery", "Get a delivery, with its attempts", {OK: "DeliveryDetail"}, "Its 200 newest attempts."),
    (deliveries.DeliveryReplay, POST): Operation(
        "replay_delivery",
        "Deliver again",
        {ACCEPTED: "Delivery"},
        "It starts its retries afresh.",
        Nothing,
        {CONFLICT: "The event has been pruned, or the endpoint is deleted or unverified."},
    ),
    (deliveries.DeliveryDismiss, POST): Operation(
        "dismiss_delivery", "Dismiss a dead delivery", {OK: "Delivery"}, "It is cancelled. A replay brings it back.", Nothing, {CONFLICT: _WRONG_STATE}
    ),
    # --- replays
    (replays.ReplayList, GET): Operation("list_replays", "List replays", {OK: "ReplayPage"}),
    (replays.ReplayList, POST): Operation(
        "start_replay",
        "Replay, recover or dismiss many deliveries",
        {ACCEPTED: "Replay"},
        "All that match the filter. It goes on in the background: its state says how far it is.",
        replays.ReplayBody,
    ),
    (replays.ReplayPreview, POST): Operation(
        "preview_replay", "Count what a replay would be about", {OK: "PreviewedReplay"}, "Nothing is changed.", replays.ReplayBody
    ),
    (replays.ReplayDetail, GET): Operation("get_replay", "Get a replay", {OK: "Replay"}),
    (replays.ReplayCancel, POST): Operation(
        "cancel_replay", "Call a replay off", {OK: "Replay"}, "What it has done stays done.", Nothing, {CONFLICT: "It has finished."}
    ),
    # --- statistics, stream, keys
    (stats.Stats, GET): Operation("get_stats", "Count the last minutes", {OK: "Stats"}, "What went out, from the tallies, and what is waiting now."),
    (quotas.Quotas, GET): Operation(
        "get_quotas",
        "See what of each quota is used",
        {OK: "Quotas"},
        "What would go beyond one is answered 409, or 429 where it is enough to wait, with the code quota_exceeded.",
    ),
    (stream.StreamStatus, GET): Operation("get_stream", "See how the stream is doing", {OK: "Stream"}, "Its hosts, and up to 100 gaps that are open."),
    (stream.StreamReconnect, POST): Operation(
        "reconnect_stream", "Connect to the stream's hosts again", {ACCEPTED: "AskedHosts"}, "The listener does it within a second or so.", stream.HostChoice
    ),
    (stream.StreamCursor, POST): Operation(
        "rewind_stream", "Read the stream again from a time on", {ACCEPTED: "AskedHosts"}, "What is stored already is not stored twice.", stream.Rewind
    ),
    (keys.KeyList, GET): Operation("list_keys", "List keys", {OK: "KeyPage"}),
    (keys.KeyList, POST): Operation("create_key", "Make a key", {CREATED: "MadeKey"}, "A key gives away no more than it has.", keys.NewKey),
    (keys.KeyDetail, GET): Operation("get_key", "Get a key", {OK: "Key"}),
    (keys.KeyDetail, DELETE): Operation("revoke_key", "Revoke a key, for good", {OK: "Key"}, "It stays in the list. It opens nothing within a second."),
    (keys.KeyRotate, POST): Operation(
        "rotate_key",
        "Replace a key",
        {CREATED: "MadeKey"},
        "The old one stays valid for the overlap.",
        keys.KeyOverlap,
        {CONFLICT: "It has expired, was revoked, or was rotated already."},
    ),
}

TAGS = {
    "sources": "Where events come from.",
    "endpoints": "Where deliveries go, on what terms, and what may be asked of them.",
    "subscriptions": "Which events of a source an endpoint wants.",
    "events": "Posting events, reading them, and why an endpoint did or didn't get one.",
    "deliveries": "What is owed, what became of it, and trying again.",
    "replays": "Many deliveries at once.",
    "stats": "What went out in the last minutes.",
    "quotas": "What a tenant may have, and has used.",
    "stream": "How the Jetstream's hosts are doing, for the operator.",
    "keys": "Keys to this API.",
}

# Compared as it is. NUL is taken nowhere.
_LITERAL: Schema = {"type": "string", "pattern": r"^[^\x00]*$"}

# What every list means by the name of a query parameter.
QUERY: dict[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT, "description": "How many a page holds, at most."},
    "cursor": words(CURSOR, "The next_cursor of the page before. Without it: the newest."),
    "state": one_of(deliveries.STATES),
    "endpoint": public_id(Endpoint.prefix),
    "event": public_id(Event.prefix),
    "source": public_id(Source.prefix),
    "status": {"type": "string", "pattern": "^[0-9]{3}$", "description": "The HTTP status of the last attempt."},
    "collection": words(
        {"type": "string", "pattern": subscriptions.PATTERN, "maxLength": validation.MAX_NSID},
        "A collection or type, as in subscriptions: a full name, a prefix that ends in .*, or *.",
    ),
    "subject": _LITERAL | {"description": "What the event is about: of a Jetstream the DID."},
    "since": words(MOMENT, "From then on."),
    "until": words(MOMENT, "Before this."),
    "kind": _LITERAL,
    "operation": _LITERAL,
    "minutes": {"type": "integer", "minimum": 1, "maximum": stats.MAX_MINUTES, "default": 60},
}
QUERY["type"] = QUERY["collection"]

# Bodies that no serializer reads: the view keeps their data byte for byte.
BODIES: dict[str, Schema] = {
    "NewEvent": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "pattern": f"^{TYPE_PATTERN}$", "maxLength": MAX_TYPE, "description": "A dotted name."},
            "data": words({}, "What happened, as any JSON value. Receivers get it byte for byte."),
            "id": {
                "type": "string",
                "pattern": f"^[!-~]{{1,{MAX_ID}}}$",
                "description": "Your own id: an event that comes again with it is stored once. Without it, one is made. The Idempotency-Key stands for it.",
            },
            "subject": {
                "type": "string",
                "pattern": r"^[^\x00-\x1f\x7f]+$",
                "maxLength": MAX_SUBJECT,
                "description": "What the event is about: an ordered endpoint gets each subject's events one after the other.",
            },
            "timestamp": words(MOMENT, "When it happened. Without it: now."),
        },
        "required": ["type", "data"],
        "additionalProperties": False,
    },
    "NewEvents": {
        "type": "object",
        "properties": {"events": {"type": "array", "items": ref("NewEvent"), "minItems": 1, "maxItems": MAX_ITEMS}},
        "required": ["events"],
        "additionalProperties": False,
    },
}
