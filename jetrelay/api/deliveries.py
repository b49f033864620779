"""`/deliveries` and `/dead-letters`: what is owed, what became of it, and trying again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.engines import engine
from delivery.explain import explain
from delivery.models import Attempt, Delivery, Event
from delivery.models.flow import in_state
from delivery.replay import dismiss, replay
from jetrelay.api.fields import Moment, Nothing, id_of
from jetrelay.api.filters import id_range, moments, prefix_or_exact
from jetrelay.api.pages import PARAMETERS, page_of
from jetrelay.api.problems import Problem, bad_query
from jetrelay.api.views import ApiView, one
from jetrelay.newest import Look, newest
from subscriptions.ids import to_public
from subscriptions.models import Endpoint

# Of reading them.
SCOPE = "deliveries:read"
STATES = {state.label: state for state in Delivery.State}
MAX_ATTEMPTS = 200


def show(delivery: Delivery, event: Event | None = None) -> dict[str, Any]:
    """`event`: if it was read already. A settled delivery may outlive its event."""
    event = event or _event_of(delivery)
    waits = delivery.state == Delivery.State.PENDING
    return {
        "id": delivery.public_id,
        "event": {
            "id": to_public(Event.prefix, delivery.event_id),
            "kind": event.kind if event else None,
            "type": event.type if event else None,
            "operation": event.operation if event else None,
            "subject": event.subject if event else None,
        },
        "endpoint": to_public(Endpoint.prefix, delivery.endpoint_id),
        "state": delivery.get_state_display(),
        "next_attempt_at": Moment().to_representation(delivery.due_at) if waits else None,
        "attempt_count": delivery.attempt_count,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error or None,
        "settled_at": Moment().to_representation(delivery.settled_at),
        "created_at": Moment().to_representation(delivery.created_at),
    }


def show_all(found: Sequence[Delivery]) -> list[dict[str, Any]]:
    return [show(each) for each in found]


def show_attempts(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    return [_attempt(each) for each in attempts]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    words = explain(attempt.status, attempt.error)
    return {
        "id": attempt.public_id,
        "number": attempt.number,
        "started_at": Moment().to_representation(attempt.started_at),
        "status": attempt.status,
        "error": attempt.error or None,
        "error_detail": attempt.error_detail or None,
        "words": words.words,
        "advice": words.advice or None,
        "timings_ms": {name: round(getattr(attempt, f"{name}_ms"), 3) for name in ("dns", "connect", "tls", "first_byte", "total")},
        "response_headers": attempt.response_headers,
        "response_body": attempt.response_text(),
        "batch_id": attempt.batch_id,
    }


def _event_of(delivery: Delivery) -> Event | None:
    try:
        return delivery.event
    except Event.DoesNotExist:
        return None


class _Deliveries(ApiView):
    def rows(self) -> "QuerySet[Delivery]":
        """The tenant's, with their events, read apart: a join would lose those whose event is gone."""
        events = Prefetch("event", Event.objects.only("id", "kind", "type", "operation", "subject"))
        return Delivery.objects.for_tenant(self.tenant).prefetch_related(events)

    def listed(self, request: Request, *, dead: bool = False) -> Response:
        wanted = request.query_params
        endpoints = list(_chosen(Endpoint.objects.for_tenant(self.tenant), wanted.get("endpoint")).values_list("pk", flat=True))
        conditions = _conditions(wanted)
        # Who may see them was decided by their endpoints.
        rows = Delivery.objects.prefetch_related(Prefetch("event", Event.objects.only("id", "kind", "type", "operation", "subject")))
        rows = moments(wanted, rows, "created_at")
        timed = "since" in wanted or "until" in wanted
        if "event" in wanted:
            id = _id(wanted["event"], "event", Event.prefix)
            found = Delivery.objects.filter(event=id, endpoint__in=endpoints).order_by("-pk")
            found = found.dead() if dead else found
            return page_of(request, partial(_of_event, found), rows, show_all, conditions or Q())
        look = partial(_newest, endpoints, id_range(wanted), Delivery.State.DEAD if dead or wanted.get("state") == "dead" else None)
        by_event = not {"collection", "subject"}.isdisjoint(request.query_params)
        # For a rare type a planner would rather read through all events that there are, and see what is owed of them.
        with _walking() if by_event else nullcontext():
            return page_of(request, look, rows, show_all, conditions if conditions or timed else None)


class DeliveryList(_Deliveries):
    scopes = {"GET": "deliveries:read"}
    query = {"GET": (*PARAMETERS, "endpoint", "event", "state", "status", "collection", "subject", "since", "until")}

    def get(self, request: Request) -> Response:
        return self.listed(request)


class DeadLetterList(_Deliveries):
    scopes = {"GET": "deliveries:read"}
    query = {"GET": (*PARAMETERS, "endpoint", "event", "status", "collection", "subject", "since", "until")}

    def get(self, request: Request) -> Response:
        return self.listed(request, dead=True)


class DeliveryDetail(_Deliveries):
    scopes = {"GET": "deliveries:read"}

    def get(self, request: Request, id: str) -> Response:
        delivery = one(self.rows(), id)
        attempts = list(delivery.attempts.order_by("-id")[:MAX_ATTEMPTS])
        return Response(show(delivery) | {"attempts": show_attempts(attempts[::-1])})


class DeliveryReplay(_Deliveries):
    scopes = {"POST": "deliveries:write"}

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        delivery = one(self.rows(), id)
        if not replay([delivery.pk]):
            raise Problem(409, "not_replayable", "It cannot be sent again: its event has been pruned, or its endpoint is deleted or has not been verified.")
        self.note("delivery.replay", delivery.public_id)
        return Response(show(one(self.rows(), id)), 202)


class DeliveryDismiss(_Deliveries):
    scopes = {"POST": "deliveries:write"}

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        delivery = one(self.rows(), id)
        if dismiss([delivery.pk]):
            self.note("delivery.dismiss", delivery.public_id)
        elif delivery.state != Delivery.State.CANCELLED:
            raise Problem(409, "wrong_state", f"The delivery is {delivery.get_state_display()}: only a dead one can be dismissed.")
        return Response(show(one(self.rows(), id)))


@contextmanager
def _walking() -> Iterator[None]:
    with transaction.atomic(), engine().walking():
        yield


def _conditions(wanted: Any) -> Q:
    """Those that no index serves."""
    found = Q()
    if (text := wanted.get("state")) is not None:
        if text not in STATES:
            raise bad_query("state", f"use one of {', '.join(STATES)}.")
        found &= in_state(STATES[text])
    if (text := wanted.get("status")) is not None:
        if not (text.isascii() and text.isdecimal() and len(text) == 3):
            raise bad_query("status", "write an HTTP status such as 503.")
        found &= Q(last_status=int(text))
    events = Q()
    if (text := wanted.get("collection")) is not None:
        events &= prefix_or_exact("type", text)
    if (text := wanted.get("subject")) is not None:
        events &= Q(subject=text)
    return found & Q(Exists(Event.objects.filter(events, pk=OuterRef("event_id")))) if events else found


def _newest(endpoints: Sequence[UUID], ids: tuple[UUID | None, UUID | None], state: int | None, after: UUID | None, most: int) -> Look:
    """The newest of these endpoints between two ids."""
    floor, ceiling = ids
    return newest(endpoints, min(filter(None, (after, ceiling)), default=None), most, state).above(floor)


def _of_event(found: "QuerySet[Delivery]", after: UUID | None, most: int) -> Look:
    ids = list((found.filter(pk__lt=after) if after else found).values_list("pk", flat=True)[: most + 1])
    return Look(ids[:most], len(ids) > most)


def _chosen(endpoints: Any, text: str | None) -> Any:
    return endpoints if text is None else endpoints.filter(pk=_id(text, "endpoint", Endpoint.prefix))


def _id(text: str, name: str, prefix: str) -> UUID:
    id = id_of(prefix, text)
    if id is None:
        raise bad_query(name, f"write an id such as {prefix}_ and 32 hexadecimal digits.")
    return id
