"""`/replays`: many deliveries at once, by a filter: replayed, recovered or dismissed, paced, and called off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.models import Event, Replay
from delivery.replay import cancel, preview, start
from delivery.replay.walks import Count
from jetrelay.api.deliveries import STATES
from jetrelay.api.events import visible_events
from jetrelay.api.fields import Choice, List, Moment, Nothing, Number, PublicId, Strict, Text
from jetrelay.api.pages import PARAMETERS, page
from jetrelay.api.problems import Problem
from jetrelay.api.subscriptions import PATTERN
from jetrelay.api.views import ApiView, one
from subscriptions import validation
from subscriptions.allowance import Exceeded
from subscriptions.ids import to_public
from subscriptions.models import Endpoint


class Recovery(Strict):
    since = Moment(help_text="From when on the endpoint is to get the events that it missed.")
    until = Moment(required=False)
    collections = List(
        child=Text(PATTERN, max_length=validation.MAX_NSID), required=False, max_length=100, help_text="Collections or types, as in subscriptions. Empty: all."
    )
    rate_per_s = Number(required=False, min_value=validation.MIN_RATE, max_value=validation.MAX_RATE, help_text="Deliveries per second, at most.")


class ReplayBody(Recovery):
    action = Choice(choices=Replay.Action.values, required=False, help_text="replay unless you say otherwise.")
    endpoint = PublicId(Endpoint.prefix, required=False)
    event = PublicId(Event.prefix, required=False)
    state = Choice(choices=list(STATES), required=False, help_text="State of the deliveries. Without it: all but pending ones.")
    since = Moment(required=False, help_text="Deliveries made from then on; for a recovery, events received from then on.")


def show(replay: Replay) -> dict[str, Any]:
    return {
        "id": replay.public_id,
        "action": replay.action,
        "endpoint": to_public(Endpoint.prefix, replay.endpoint_id) if replay.endpoint_id else None,
        "event": to_public(Event.prefix, replay.event_id) if replay.event_id else None,
        "state_of_deliveries": _LABELS[replay.delivery_state] if replay.delivery_state is not None else None,
        "since": Moment().to_representation(replay.since),
        "until": Moment().to_representation(replay.until),
        "collections": replay.collections,
        "rate_per_s": replay.rate_per_s,
        "state": replay.state,
        "expected": replay.expected,
        "expected_more": replay.expected_more,
        "looked_at": replay.looked_at,
        "done": replay.done,
        "skipped": replay.skipped,
        "created_at": Moment().to_representation(replay.created_at),
        "created_by": replay.created_by,
        "ended_at": Moment().to_representation(replay.ended_at),
        "ended_by": replay.ended_by or None,
    }


def show_all(replays: Sequence[Replay]) -> list[dict[str, Any]]:
    return [show(each) for each in replays]


_LABELS = {state.value: label for label, state in STATES.items()}


class _Replays(ApiView):
    def rows(self) -> "QuerySet[Replay]":
        return Replay.objects.for_tenant(self.tenant)

    def wish(self, wanted: Mapping[str, Any]) -> Replay:
        """An unsaved Replay, of this tenant's rows alone."""
        wish = Replay(
            tenant_id=self.tenant.pk,
            action=wanted.get("action", Replay.Action.REPLAY),
            delivery_state=STATES[wanted["state"]] if "state" in wanted else None,
            since=wanted.get("since"),
            until=wanted.get("until"),
            collections=wanted.get("collections", []),
            rate_per_s=wanted.get("rate_per_s"),
        )
        if "endpoint" in wanted:
            wish.endpoint = _row(Endpoint.objects.for_tenant(self.tenant).without_secrets(), wanted, "endpoint")
        if "event" in wanted:
            wish.event = _row(visible_events(self.tenant).defer("dedup_key", "body"), wanted, "event")
        return wish

    def start(self, wish: Replay) -> Response:
        with _named():
            started = start(wish, by=self.bearer.actor[:150])
        self.note(f"replay.{started.action}", started.public_id, f"about {started.expected_text} deliveries")
        return Response(show(started), 202)


class ReplayList(_Replays):
    scopes = {"GET": "deliveries:read", "POST": "deliveries:write"}
    query = {"GET": PARAMETERS}

    def get(self, request: Request) -> Response:
        return page(request, self.rows(), show_all)

    def post(self, request: Request) -> Response:
        return self.start(self.wish(self.body(ReplayBody)))


class ReplayPreview(_Replays):
    """How many deliveries a replay would be about. Nothing is changed."""

    scopes = {"POST": "deliveries:read"}
    noted = False

    def post(self, request: Request) -> Response:
        with _named():
            count: Count = preview(self.wish(self.body(ReplayBody)))
        return Response({"matched": count.number, "more": count.more})


class ReplayDetail(_Replays):
    scopes = {"GET": "deliveries:read"}

    def get(self, request: Request, id: str) -> Response:
        return Response(show(one(self.rows(), id)))


class ReplayCancel(_Replays):
    scopes = {"POST": "deliveries:write"}

    def post(self, request: Request, id: str) -> Response:
        self.body(Nothing)
        replay = one(self.rows(), id)
        if cancel(replay, by=self.bearer.actor[:150]):
            self.note("replay.cancel", replay.public_id)
        elif replay.state != Replay.State.CANCELLED:
            raise Problem(409, "wrong_state", f"This replay is {replay.get_state_display().lower()} already.")
        return Response(show(one(self.rows(), id)))


class Recover(_Replays):
    """Make the deliveries that an endpoint would have got, had its present subscriptions been there."""

    scopes = {"POST": "deliveries:write"}

    def post(self, request: Request, id: str) -> Response:
        wanted = self.body(Recovery)
        endpoint = one(Endpoint.objects.for_tenant(self.tenant).present().without_secrets(), id)
        return self.start(self.wish(wanted | {"action": Replay.Action.RECOVER, "endpoint": endpoint.pk}))


def _row(rows: Any, wanted: Mapping[str, Any], name: str) -> Any:
    found = rows.filter(pk=wanted[name]).first()
    if found is None:
        raise ValidationError({name: [f"There is no such {name}."]})
    return found


@contextmanager
def _named() -> Iterator[None]:
    """Errors of a Replay's own check, by the API's names."""
    try:
        yield
    except Exceeded:
        raise
    except DjangoValidationError as error:
        names = {"delivery_state": "state", "__all__": "non_field_errors"}
        raise ValidationError({names.get(field, field): words for field, words in error.message_dict.items()}) from error
