"""`/events`: posting them, reading them, and why an endpoint did or didn't get one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import ingest, owing
from delivery.ingest import Accepted, Posted
from delivery.models import Delivery, Event
from delivery.replay import replay
from delivery.sources import api, strict_json
from delivery.why import Why, why
from jetrelay.api import batches, deliveries
from jetrelay.api.batches import BatchParser, value_of
from jetrelay.api.fields import Moment, PublicId, Strict, id_of
from jetrelay.api.filters import moments, prefix_or_exact
from jetrelay.api.idempotency import HEADER
from jetrelay.api.pages import PARAMETERS, page
from jetrelay.api.problems import Problem, bad_query, invalid, over_quota, told
from jetrelay.api.sources import api_source_of, visible_sources
from jetrelay.api.views import ApiView, one
from subscriptions.allowance import Exceeded, most
from subscriptions.ids import new_id, to_public
from subscriptions.keys import Bearer
from subscriptions.models import Endpoint, Source, Tenant
from subscriptions.remembering import Remembered

# Of posting.
SCOPE = "events:write"
MAX_BATCH_BYTES = 10 * 1024 * 1024
# Of what is wrong with one event of a batch so much is told.
MOST_ERRORS_EACH = 5
# Of an event that went to more endpoints than this, /deliveries has the rest.
MAX_SHOWN = 200
_SOURCE_REMEMBERED_S = 1.0
# Of an `Idempotency-Key` that stands for ids, to which places in a batch are added.
MAX_KEY = api.MAX_ID - 10


class ReplayRequest(Strict):
    endpoint = PublicId(Endpoint.prefix, required=False, help_text="Only the delivery to this one.")


def show(event: Event) -> dict[str, Any]:
    return {
        "id": event.public_id,
        "source": to_public(Source.prefix, event.source_id),
        "kind": event.kind,
        "type": event.type,
        "operation": event.operation,
        "subject": event.subject,
        "origin": event.origin,
        "origin_cursor": event.origin_cursor,
        "occurred_at": Moment().to_representation(event.occurred_at),
        "received_at": Moment().to_representation(event.received_at),
    }


def show_all(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [show(event) for event in events]


def visible_events(tenant: Tenant) -> "QuerySet[Event]":
    """Of the tenant's own sources, and of those that all share."""
    return Event.objects.filter(source__in=list(visible_sources(tenant).values_list("pk", flat=True))).defer("dedup_key")


# --- posting -------------------------------------------------------------------------------------------------------


class EventList(ApiView):
    scopes = {"GET": "events:read", "POST": SCOPE}
    query = {"GET": (*PARAMETERS, "type", "kind", "operation", "subject", "source", "since", "until"), "POST": ("source",)}
    # The outbox's transaction is the one that counts, and dedup keys make repeats harmless.
    atomic = False
    noted = False
    has_own_idempotency = True
    # A little more than an event, so that one that is too large has that said of it.
    max_body = api.MAX_EVENT + 1024

    def get(self, request: Request) -> Response:
        wanted = request.query_params
        rows = visible_events(self.tenant).defer("dedup_key", "body")
        if (text := wanted.get("source")) is not None:
            rows = rows.filter(source=one(visible_sources(self.tenant), text))
        rows = moments(wanted, rows, "received_at")
        narrow = Q()
        if (text := wanted.get("type")) is not None:
            narrow &= prefix_or_exact("type", text)
        for name in ("kind", "operation", "subject"):
            if (text := wanted.get(name)) is not None:
                narrow &= Q(**{name: text})
        return page(request, rows, show_all, narrow if narrow or "source" in wanted else None)

    def post(self, request: Request) -> Response:
        """202 once the event and its deliveries are committed."""
        value = request.data
        text = request._request.body
        given = _given(request)
        event = posted(text, value, timezone.now(), self.bearer.key_id, given)
        source = source_of(self.tenant.pk, request.query_params.get("source"))
        owing.check(self.bearer.tenant_id, most_pending(self.bearer))
        accepted = ingest.publisher.publish(source, [event])[0]
        if accepted.refused:
            raise over_quota(too_wide(accepted, self.bearer))
        if not accepted.same:
            raise another(given or cast(dict[str, str], value)["id"])
        owing.added(self.bearer.tenant_id, accepted.deliveries)
        return Response(accepted_as(accepted), 202)


class EventBatch(ApiView):
    scopes = {"POST": SCOPE}
    query = {"POST": ("source",)}
    atomic = False
    noted = False
    has_own_idempotency = True
    max_body = MAX_BATCH_BYTES
    parser_classes = (BatchParser,)

    def post(self, request: Request) -> Response:
        """202 if all of them are stored; 207 if some are not, each with what to change. What can be stored is."""
        texts, given, now = _texts(request.data), _given(request), timezone.now()
        results: list[dict[str, Any] | None] = []
        good: list[Posted] = []
        for number, text in enumerate(texts):
            if len(text) > api.MAX_EVENT:
                # It is not even read.
                results.append({"status": "invalid", "errors": [api.too_large(text)._asdict()]})
                continue
            value = value_of(text, number)
            # An event that has an id keeps it; the others have the request's and their place in it.
            own = given and not (isinstance(value, dict) and "id" in value)
            try:
                good.append(posted(text, value, now, self.bearer.key_id, f"{given}/{number}" if own else None))
                results.append(None)
            except Problem as problem:
                results.append({"status": "invalid", "errors": told(problem.errors, MOST_ERRORS_EACH)})
        source = source_of(self.tenant.pk, request.query_params.get("source"))
        owing.check(self.bearer.tenant_id, most_pending(self.bearer))
        stored = ingest.publisher.publish(source, good) if good else []
        owing.added(self.bearer.tenant_id, sum(each.deliveries for each in stored))
        accepted = iter(stored)
        answers = [result or _in_batch(next(accepted), self.bearer) for result in results]
        whole = all(each["status"] in _TAKEN for each in answers)
        return Response({"data": [{"index": index, **each} for index, each in enumerate(answers)]}, 202 if whole else 207)


def source_of(tenant: UUID, name: str | None = None) -> Source:
    """The source that is posted to: looked up at most every half second in each process, for this is on every event's way."""
    source = _sources.fresh((tenant, name))
    if source is None:
        owner = Tenant(pk=tenant)
        rows = visible_sources(owner).select_related("tenant")
        source = one(rows, name) if name is not None else api_source_of(owner)
        if source.kind != Source.Kind.API:
            raise bad_query("source", "events are posted to a source of the kind api alone.")
        _sources.keep((tenant, name), source)
    return source


def remembered_source(tenant: UUID) -> Source | None:
    """`source_of`, if the answer is known without a look into the database."""
    return _sources.known((tenant, None))


_sources: Remembered[tuple[UUID, str | None], Source] = Remembered(_SOURCE_REMEMBERED_S)


def _given(request: Request) -> str | None:
    """The `Idempotency-Key`, which stands for an id."""
    given = request.headers.get(HEADER)
    if given is not None and not (api.is_id(given) and len(given) <= MAX_KEY):
        raise Problem(400, "invalid_idempotency_key", f"{HEADER}: write 1 to {MAX_KEY} printable ASCII characters without spaces.")
    return given


def posted(text: bytes, value: Any, now: datetime, key: UUID, given: str | None = None) -> Posted:
    """Raises Problem."""
    id = new_id()
    if given is not None and isinstance(value, dict) and value.get("id", given) != given:
        raise invalid(("/id", f"The id and the {HEADER} differ: send one of them, or the same in both."))
    try:
        event = api.incoming(text, value, id, to_public(Event.prefix, id), now, to_public("key", key), given)
    except api.InvalidEvent as error:
        if len(text) > api.MAX_EVENT:
            raise Problem(413, "too_large", error.problems[-1].detail, error.problems) from error
        raise invalid(*error.problems) from error
    return Posted(event, "timestamp" in value)


def _texts(data: Any) -> list[bytes]:
    """What the parser found. An empty body is no batch."""
    if not isinstance(data, list):
        raise invalid(("/events", batches.WORDS))
    return data


# "unmatched": nobody wants it, and its source keeps no such events.
_TAKEN = ("stored", "duplicate", "unmatched")


def accepted_as(accepted: Accepted) -> dict[str, Any]:
    status = "duplicate" if accepted.duplicate else "stored" if accepted.stored else "unmatched"
    return {"id": to_public(Event.prefix, accepted.id), "status": status, "deliveries": accepted.deliveries}


def most_pending(bearer: Bearer) -> int:
    return most("pending_deliveries", bearer.quotas)


def too_wide(accepted: Accepted, bearer: Bearer) -> Exceeded:
    """Of an event that would owe more deliveries than one may."""
    limit = most("deliveries_per_event", bearer.quotas)
    return Exceeded("deliveries_per_event", limit, accepted.refused)


def _in_batch(accepted: Accepted, bearer: Bearer) -> dict[str, Any]:
    if accepted.refused:
        detail = " ".join(too_wide(accepted, bearer).messages)
        return {"status": "refused", "errors": [{"pointer": "", "detail": detail}]}
    if accepted.same:
        return accepted_as(accepted)
    return {"id": to_public(Event.prefix, accepted.id), "status": "conflict", "errors": [{"pointer": "/id", "detail": _ANOTHER}]}


_ANOTHER = "Another event with this id is stored: an id belongs to one event."


def another(id: str) -> Problem:
    return Problem(422, "id_reused", f"{_ANOTHER} It was {id!r}.", [("/id", _ANOTHER)])


# --- reading -------------------------------------------------------------------------------------------------------


class EventDetail(ApiView):
    scopes = {"GET": "events:read"}

    def get(self, request: Request, id: str) -> Response:
        event = one(visible_events(self.tenant), id)
        owed: list[Any] | None = None
        if deliveries.SCOPE in self.bearer.scopes:
            mine = Delivery.objects.for_tenant(self.tenant).filter(event=event).order_by("-id")
            owed = [deliveries.show(each, event) for each in mine[:MAX_SHOWN]]
        return Response(show(event) | {"body": _value(bytes(event.body)), "deliveries": owed})


class EventBody(ApiView):
    scopes = {"GET": "events:read"}

    def get(self, request: Request, id: str) -> HttpResponse:
        """The body as it came, byte for byte."""
        event = one(visible_events(self.tenant), id)
        return HttpResponse(bytes(event.body), content_type="application/json", headers={"X-Content-Type-Options": "nosniff"})


class EventReplay(ApiView):
    scopes = {"POST": "deliveries:write"}

    def post(self, request: Request, id: str) -> Response:
        wish = self.body(ReplayRequest)
        event = one(visible_events(self.tenant), id)
        rows = Delivery.objects.for_tenant(self.tenant).filter(event=event)
        if "endpoint" in wish:
            rows = rows.filter(endpoint=wish["endpoint"])
        count = replay(rows.values_list("pk", flat=True))
        if not count:
            words = "Nothing of this event can be replayed: it is owed to none of your endpoints that receive. Recover an endpoint that should have it."
            raise Problem(409, "nothing_to_replay", words)
        self.note("event.replay", event.public_id, f"{count:,} deliveries")
        return Response({"event": event.public_id, "replayed": count}, 202)


class EventExplain(ApiView):
    """Why did, or didn't, this endpoint get this event?"""

    scopes = {"GET": "events:read"}
    query = {"GET": ("endpoint",)}

    def get(self, request: Request, id: str) -> Response:
        event = one(visible_events(self.tenant).defer("dedup_key", "body"), id)
        text = request.query_params.get("endpoint")
        if text is None or id_of(Endpoint.prefix, text) is None:
            raise bad_query("endpoint", "write the id of the endpoint that you ask about, such as ep_… .")
        endpoint = one(Endpoint.objects.for_tenant(self.tenant).without_secrets(), text)
        may_see = deliveries.SCOPE in self.bearer.scopes
        return Response(_explained(event, endpoint, why(event, endpoint), may_see))


def _explained(event: Event, endpoint: Endpoint, found: Why, may_see: bool) -> dict[str, Any]:
    """`may_see`: deliveries, and what receivers answered, have a scope of their own."""
    then, delivery = found.state_then, found.delivery if may_see else None
    return {
        "event": event.public_id,
        "endpoint": endpoint.public_id,
        "verdict": found.verdict.value,
        "words": found.words,
        "state_then": {"state": then[0], "reason": then[1]} if then else None,
        "state_now": {"state": endpoint.state, "reason": endpoint.state_reason},
        "subscriptions": [
            {
                "id": each.subscription.public_id,
                "matched": each.matched,
                "changed_since": Moment().to_representation(each.changed_since),
                "conditions": [condition._asdict() for condition in each.conditions],
            }
            for each in found.judged
        ],
        "delivery": deliveries.show(delivery, event) | {"attempts": deliveries.show_attempts(found.attempts)} if delivery else None,
    }


def _value(body: bytes) -> Any:
    """The body as JSON; as text where it is none."""
    try:
        return strict_json.loads(body)
    except strict_json.InvalidJson:
        return body.decode(errors="replace")
