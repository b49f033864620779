"""What the API answers, as JSON Schema (2020-12): every `show()` of this package has its shape here, exact to the name.

An object has all of its properties and no other. What may be missing from an answer is null instead.
"""

from collections.abc import Iterable
from typing import Any

from delivery.destinations.exchange import Error
from delivery.models import BATCH_PREFIX, Attempt, Delivery, Event, Replay, StreamGap
from delivery.outcomes import MISSING_EVENT
from delivery.standing import Kind
from delivery.why import Verdict
from subscriptions import allowance, keys, validation
from subscriptions.models import ApiKey, Endpoint, Source, Subscription

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
MOMENT: Schema = {"type": "string", "format": "date-time"}
STATUS: Schema = {"type": "integer", "minimum": 100, "maximum": 999, "description": "An HTTP status."}
CURSOR: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"}


def public_id(prefix: str) -> Schema:
    return {"type": "string", "pattern": f"^{prefix}_[0-9a-f]{{32}}$"}


# Ours, or the one that the request came with: `jetrelay/logs/requests.py`.
REQUEST_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}


def one_of(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(values)}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    if "type" not in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    return schema | {"type": [schema["type"], "null"]} | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})


def words(schema: Schema, description: str) -> Schema:
    return schema | {"description": description}


def exactly(description: str = "", /, **properties: Schema) -> Schema:
    """An object with these properties and no other."""
    shape: Schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return words(shape, description) if description else shape


def extended(shape: Schema, description: str = "", /, **properties: Schema) -> Schema:
    return exactly(description or shape.get("description", ""), **shape["properties"], **properties)


def page_of(name: str) -> Schema:
    return exactly(
        "A page, newest first.",
        data=array(ref(name)),
        next_cursor=words(nullable(CURSOR), "What to send as cursor for the next page. null on the last one."),
        has_more=words(FLAG, "Whether there is another page. Where a filter is slow, a page may be short, or empty, and still have a next one."),
    )


PATTERNS = array(TEXT)
_MS = words(NUMBER, "Milliseconds from the start of the request to the end of this phase. 0: not needed.")
_TIMINGS = exactly(dns=_MS, connect=_MS, tls=_MS, first_byte=_MS, total=_MS)
_ERRORS = [*(error.value for error in Error), MISSING_EVENT]
_FAULT = exactly(pointer=words(TEXT, "Where in the body: a JSON pointer (RFC 6901). Empty: the body as a whole."), detail=TEXT)

PROBLEM = exactly(
    "An error (RFC 9457): what is wrong, where, and what to change.",
    type=words(TEXT, "about:blank: the title is that of the status."),
    title=TEXT,
    status=words(STATUS, "The HTTP status."),
    code=words(TEXT, "What went wrong, for programs: it does not change."),
    detail=words(TEXT, "What went wrong, for people."),
    errors=array(_FAULT),
    request_id=words(REQUEST_ID, "Under this id the log has the reason. Also in X-Request-Id."),
)

# --- sources, endpoints, subscriptions ------------------------------------------------------------------------------

SOURCE = exactly(
    "Where events come from.",
    id=public_id(Source.prefix),
    kind=one_of(Source.Kind.values),
    name=TEXT,
    shared=words(FLAG, "Whether it is everybody's. Only the operator changes such a source."),
    keep_unmatched=words(FLAG, "Whether events that nobody wants are stored, so that a later endpoint can recover them."),
    created_at=MOMENT,
)

SUBSCRIPTION = exactly(
    "Which events of one source an endpoint wants.",
    id=public_id(Subscription.prefix),
    endpoint=public_id(Endpoint.prefix),
    source=public_id(Source.prefix),
    source_kind=one_of(Source.Kind.values),
    collections=words(nullable(PATTERNS), "Of a Jetstream. null where the source takes posted events."),
    types=words(nullable(PATTERNS), "Of posted events. null where the source is a Jetstream."),
    dids=words(array(TEXT), "Only these accounts. Empty: all."),
    operations=words(array(one_of(validation.OPERATIONS)), "Only these operations. Empty: all."),
    kinds=array(one_of(validation.KINDS)),
    active=FLAG,
    created_at=MOMENT,
    updated_at=MOMENT,
)

_RETRY = exactly(
    strategy=one_of(Endpoint.RetryStrategy.values),
    schedule_s=array(NUMBER),
    first_s=NUMBER,
    factor=NUMBER,
    step_s=NUMBER,
    longest_s=NUMBER,
    count=COUNT,
    jitter_percent=COUNT,
    on=one_of(Endpoint.RetryOn.values),
)

ENDPOINT = exactly(
    "Where deliveries go, and on what terms.",
    id=public_id(Endpoint.prefix),
    name=TEXT,
    url=TEXT,
    signature_scheme=one_of(Endpoint.SignatureScheme.values),
    has_bearer_token=FLAG,
    header_names=words(array(TEXT), "The names of the headers that are sent along. Their values are never shown."),
    timeout_s=NUMBER,
    max_in_flight=COUNT,
    rate_limit_per_s=nullable(NUMBER),
    priority=one_of(priority.label.lower() for priority in Endpoint.Priority),
    ordered=FLAG,
    batch_size=COUNT,
    batch_wait_ms=COUNT,
    retry=_RETRY,
    subscriptions=array(ref("Subscription")),
    state=one_of(state.value for state in Endpoint.State if state is not Endpoint.State.DELETED),
    state_reason=TEXT,
    state_changed_at=MOMENT,
    health=exactly(
        status=one_of(kind.value.replace(" ", "_") for kind in Kind),
        words=TEXT,
        failing_since=nullable(MOMENT),
        last_failure=TEXT,
    ),
    created_at=MOMENT,
)

TRIED = exactly(
    "What came of a challenge or a test event.",
    passed=FLAG,
    words=TEXT,
    status=nullable(STATUS),
    error=nullable(one_of(error.value for error in Error)),
    timings_ms=nullable(ref("Timings")),
    answer=words(TEXT, "The beginning of the receiver's answer."),
)

_SECRET = words(TEXT, "The secret that signs deliveries.")

# --- events and deliveries ------------------------------------------------------------------------------------------

EVENT = exactly(
    "One thing that happened, stored once.",
    id=public_id(Event.prefix),
    source=public_id(Source.prefix),
    kind=words(TEXT, "commit, identity, account, sync, api, or what else a Jetstream sends."),
    type=words(TEXT, "The collection of a commit; the type of a posted event; else the kind."),
    operation=words(TEXT, "Of a commit: create, update or delete. Else empty."),
    subject=words(TEXT, "What the event is about: of a Jetstream the DID. May be empty."),
    origin=words(TEXT, "The host that brought it first, or the key that posted it."),
    origin_cursor=nullable({"type": "integer"}),
    occurred_at=MOMENT,
    received_at=MOMENT,
)

_EVENT_IN_SHORT = exactly(
    "The event. Only its id is left once it has been pruned.",
    id=public_id(Event.prefix),
    kind=nullable(TEXT),
    type=nullable(TEXT),
    operation=nullable(TEXT),
    subject=nullable(TEXT),
)

DELIVERY = exactly(
    "One event owed to one endpoint.",
    id=public_id(Delivery.prefix),
    event=_EVENT_IN_SHORT,
    endpoint=public_id(Endpoint.prefix),
    state=one_of(state.label for state in Delivery.State),
    next_attempt_at=words(nullable(MOMENT), "When it is due, while it is pending."),
    attempt_count=COUNT,
    last_status=nullable(STATUS),
    last_error=nullable(one_of(_ERRORS)),
    settled_at=nullable(MOMENT),
    created_at=MOMENT,
)

ATTEMPT = exactly(
    "One request made for a delivery.",
    id=public_id(Attempt.prefix),
    number=COUNT,
    started_at=MOMENT,
    status=nullable(STATUS),
    error=nullable(one_of(_ERRORS)),
    error_detail=nullable(TEXT),
    words=TEXT,
    advice=nullable(TEXT),
    timings_ms=ref("Timings"),
    response_headers=TEXT,
    response_body=words(TEXT, "Its beginning. Bytes that are not UTF-8 are shown as replacement characters."),
    batch_id=words(nullable(public_id(BATCH_PREFIX)), "Of the request's batch, which is then its webhook-id. null: the event travelled as itself."),
)

_INDEX = words(COUNT, "Its place in the batch, from 0.")
_OWED = words(COUNT, "How many deliveries it owes.")
_TAKEN = words(
    one_of(["stored", "duplicate", "unmatched"]),
    "duplicate: it was there before, and is the same. unmatched: nobody wants it, and its source keeps no such events.",
)

BATCH = exactly(
    "What became of each event, in their order.",
    data=array(
        {
            "oneOf": [
                exactly(index=_INDEX, id=public_id(Event.prefix), status=_TAKEN, deliveries=_OWED),
                exactly(index=_INDEX, status=one_of(["invalid"]), errors=array(_FAULT)),
                exactly(index=_INDEX, id=public_id(Event.prefix), status=one_of(["conflict"]), errors=array(_FAULT)),
                exactly(index=_INDEX, status=one_of(["refused"]), errors=array(_FAULT)),
            ]
        }
    ),
)

_STATE = exactly(state=one_of(Endpoint.State.values), reason=TEXT)

_SCOPED = "null: the key does not have the scope deliveries:read."
EXPLAINED = exactly(
    "Why an endpoint did, or didn't, get an event.",
    event=public_id(Event.prefix),
    endpoint=public_id(Endpoint.prefix),
    verdict=one_of(verdict.value for verdict in Verdict),
    words=TEXT,
    state_then=words(nullable(_STATE), "The endpoint's state when the event came. null: it was not there yet."),
    state_now=_STATE,
    subscriptions=array(
        exactly(
            id=public_id(Subscription.prefix),
            matched=FLAG,
            changed_since=words(nullable(MOMENT), "When it was changed after the event came."),
            conditions=array(exactly(name=TEXT, met=FLAG, words=TEXT)),
        )
    ),
    delivery=words(nullable(ref("DeliveryDetail")), f"null: there is none. Or {_SCOPED}"),
)

PREVIEWED = exactly(
    "What a subscription would have brought.",
    source=public_id(Source.prefix),
    looked_at=words(COUNT, "Events that were looked at."),
    matched=COUNT,
    oldest_at=words(nullable(MOMENT), "When the oldest of them came."),
    per_type=words(array(exactly(kind=TEXT, type=TEXT, matched=COUNT)), "The most frequent first."),
    samples=array(
        exactly(id=public_id(Event.prefix), kind=TEXT, type=TEXT, operation=TEXT, subject=TEXT, received_at=MOMENT),
    ),
)

# --- replays, statistics, stream, keys ------------------------------------------------------------------------------

REPLAY = exactly(
    "Many deliveries at once: a filter, a pace, and how far it has come.",
    id=public_id(Replay.prefix),
    action=one_of(Replay.Action.values),
    endpoint=nullable(public_id(Endpoint.prefix)),
    event=nullable(public_id(Event.prefix)),
    state_of_deliveries=nullable(one_of(state.label for state in Delivery.State)),
    since=nullable(MOMENT),
    until=nullable(MOMENT),
    collections=PATTERNS,
    rate_per_s=nullable(NUMBER),
    state=one_of(Replay.State.values),
    expected=words(COUNT, "How many deliveries the preview counted."),
    expected_more=words(FLAG, "Whether there are more than that."),
    looked_at=COUNT,
    done=COUNT,
    skipped=words(COUNT, "Matched, but could not be done: the event or the endpoint is gone."),
    created_at=MOMENT,
    created_by=TEXT,
    ended_at=nullable(MOMENT),
    ended_by=words(nullable(TEXT), "Who cancelled it."),
)

_COUNTED = exactly(number=COUNT, more=words(FLAG, "Whether the counting stopped there."))
_AT_MOST = words(nullable(COUNT), "The upper bound of the histogram's bucket that holds this percentile. null: nothing was counted, or slower than all bounds.")
_SUMMARY = exactly(
    attempts=COUNT,
    delivered=COUNT,
    failed=COUNT,
    success_rate=nullable({"type": "number", "minimum": 0, "maximum": 1}),
    mean_ms=nullable(NUMBER),
    p50_ms_at_most=_AT_MOST,
    p95_ms_at_most=_AT_MOST,
)

STATS = exactly(
    "What went out in the last minutes, and what is waiting now.",
    since=MOMENT,
    until=MOMENT,
    posted_events=exactly(received=COUNT, stored=COUNT, duplicate=COUNT, unmatched=COUNT, invalid=COUNT),
    attempts=_SUMMARY,
    pending=_COUNTED,
    dead=_COUNTED,
    oldest_due_at=nullable(MOMENT),
    endpoints=words(array(exactly(id=public_id(Endpoint.prefix), name=TEXT, **_SUMMARY["properties"])), "The busiest first."),
)

_USED = words(nullable(COUNT), "null where each is bounded by itself.")
QUOTAS = exactly(
    "What the tenant may have, and has used.",
    data=array(
        exactly(
            name=one_of(allowance.QUOTAS),
            words=words(TEXT, "What is counted."),
            used=_USED,
            more=words(FLAG, "Whether it is more: it was counted no further."),
            most=words(COUNT, "How many there may be."),
        )
    ),
)

STREAM = exactly(
    "How the Jetstream's hosts are doing.",
    hosts=array(
        exactly(
            host=TEXT,
            wire=one_of(["v1", "v2"]),
            listening=FLAG,
            connected_since=nullable(MOMENT),
            problem=nullable(TEXT),
            cursor=nullable({"type": "integer"}),
            reached_at=nullable(MOMENT),
            last_event_at=nullable(MOMENT),
            lag_s=nullable(NUMBER),
            events_per_s=NUMBER,
            bytes_per_s=NUMBER,
            compressed=FLAG,
            events=COUNT,
            bytes=COUNT,
            reconnects=COUNT,
            rejected=COUNT,
            counted_since=MOMENT,
            missing_collections=words(
                array(exactly(collection=TEXT, brought_by=TEXT, since=MOMENT, missed=COUNT)), "Collections that another host brings and this one does not."
            ),
        )
    ),
    open_gaps=array(exactly(id=public_id(StreamGap.prefix), host=TEXT, from_at=MOMENT, to_at=MOMENT, reason=TEXT, noticed_at=MOMENT)),
)

KEY = exactly(
    "A key to the API. The key itself is shown once, when it is made.",
    id=public_id(ApiKey.prefix),
    name=TEXT,
    visible_prefix=TEXT,
    state=one_of(ApiKey.State.values),
    scopes=array(one_of(keys.SCOPES)),
    rate_limit_per_s=words(nullable(COUNT), "Requests per second. null: as many as the installation gives every key."),
    created_at=MOMENT,
    created_by=TEXT,
    expires_at=nullable(MOMENT),
    last_used_at=words(nullable(MOMENT), "To the minute."),
    revoked_at=nullable(MOMENT),
)

_DETAILED = extended(DELIVERY, "A delivery with its attempts, the oldest first.", attempts=array(ref("Attempt")))

COMPONENTS: dict[str, Schema] = {
    "Problem": PROBLEM,
    "Source": SOURCE,
    "SourcePage": page_of("Source"),
    "Endpoint": ENDPOINT,
    "EndpointPage": page_of("Endpoint"),
    "MadeEndpoint": extended(ENDPOINT, "An endpoint, with what is shown only now.", secret=_SECRET, verification=nullable(ref("Tried"))),
    "DeletedEndpoint": exactly(
        id=public_id(Endpoint.prefix),
        cancelled=words(COUNT, "Deliveries that were pending and are cancelled now."),
        finished=words(FLAG, "Whether that is all of them. The rest follows by itself."),
    ),
    "Tried": TRIED,
    "Timings": _TIMINGS,
    "RotatedSecret": exactly(secret=_SECRET, previous_secret_expires_at=words(nullable(MOMENT), "Until then the old one signs as well.")),
    "Secrets": exactly(
        secret=_SECRET,
        previous_secret=words(nullable(TEXT), "The one before, while it is still valid."),
        previous_secret_expires_at=nullable(MOMENT),
    ),
    "Subscription": SUBSCRIPTION,
    "SubscriptionPage": page_of("Subscription"),
    "PreviewedSubscription": PREVIEWED,
    "Event": EVENT,
    "EventPage": page_of("Event"),
    "EventDetail": extended(
        EVENT,
        "An event with its body and its deliveries.",
        body=words({}, "As JSON. A text where it is none."),
        deliveries=words(nullable(array(ref("Delivery"))), _SCOPED),
    ),
    "AcceptedEvent": exactly(id=public_id(Event.prefix), status=_TAKEN, deliveries=_OWED),
    "AcceptedBatch": BATCH,
    "ReplayedEvent": exactly(event=public_id(Event.prefix), replayed=words(COUNT, "Deliveries that were put back.")),
    "ExplainedEvent": EXPLAINED,
    "Delivery": DELIVERY,
    "DeliveryPage": page_of("Delivery"),
    "DeliveryDetail": _DETAILED,
    "Attempt": ATTEMPT,
    "Replay": REPLAY,
    "ReplayPage": page_of("Replay"),
    "PreviewedReplay": exactly(matched=COUNT, more=words(FLAG, "Whether the counting stopped there.")),
    "Stats": STATS,
    "Quotas": QUOTAS,
    "Stream": STREAM,
    "AskedHosts": exactly(hosts=words(COUNT, "How many hosts were asked.")),
    "Key": KEY,
    "KeyPage": page_of("Key"),
    "MadeKey": extended(
        KEY, "A key, with its text, which is shown only now.", key=words({"type": "string", "pattern": "^jr_"}, "Send it as Authorization: Bearer …")
    ),
}
