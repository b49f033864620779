"""What became of an event at every endpoint, page by page: first at those that it is owed to, then at the others.

A page costs the same number of queries, however many endpoints there are.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Self
from urllib.parse import urlencode

from django.db.models import Exists, F, OuterRef, QuerySet, Window
from django.db.models.functions import RowNumber

from delivery.models import Attempt, Delivery, Event
from delivery.why import Verdict, Why, why_all
from jetrelay.dashboard.access import Access
from subscriptions.ids import from_public, to_public
from subscriptions.models import Endpoint
from subscriptions.models.endpoints import EndpointQuerySet

PAGE = 25
# Of one delivery, the latest; its own page has the rest.
ATTEMPTS_SHOWN = 5
SUBSCRIPTIONS_SHOWN = 20

_BADGES = {
    Verdict.DELIVERED: ("good", "check", "delivered"),
    Verdict.PENDING: ("wait", "clock", "pending"),
    Verdict.DEAD: ("bad", "cross", "dead"),
    Verdict.CANCELLED: ("still", "minus", "cancelled"),
    Verdict.NOT_THEN: ("wait", "alert", "matches, not owed"),
    Verdict.NOT_MATCHED: ("still", "minus", "not matched"),
    Verdict.NO_SUBSCRIPTION: ("still", "minus", "no subscription"),
}
_STATES = dict(Endpoint.State.choices)


@dataclass(frozen=True)
class Place:
    """Where the two lists begin, or which endpoint alone is asked about. `problem` says in words what was not understood."""

    owed_after: uuid.UUID | None = None
    others_after: uuid.UUID | None = None
    endpoint: uuid.UUID | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        given = {name: query.get(name, "") for name in ("owed_after", "others_after", "endpoint")}
        found = {name: from_public(text) for name, text in given.items()}
        wrong = [text[:40] for name, text in given.items() if text and found[name] is None]
        return cls(**found, problem=f"“{wrong[0]}” is not an endpoint's id." if wrong else "")

    def query(self) -> str:
        ids = {"owed_after": self.owed_after, "others_after": self.others_after, "endpoint": self.endpoint}
        return urlencode({name: to_public(Endpoint.prefix, id) for name, id in ids.items() if id})


@dataclass(frozen=True)
class Row:
    """One endpoint and the answer, and what may be done about it."""

    endpoint: Endpoint
    why: Why
    may_act: bool
    event: Event

    @property
    def badge(self) -> tuple[str, str, str]:
        return _BADGES[self.why.verdict]

    @property
    def then(self) -> str:
        """In which state the endpoint was when the event came, where that was out of the ordinary: `paused then (for lunch)`."""
        state, reason = self.why.state_then or (Endpoint.State.ACTIVE, "")
        if state == Endpoint.State.ACTIVE:
            return ""
        return f"It was {_STATES.get(state, state).lower()} then{f' ({reason})' if reason else ''}."

    @property
    def replayable(self) -> bool:
        settled = self.why.verdict in (Verdict.DELIVERED, Verdict.DEAD, Verdict.CANCELLED)
        return self.may_act and settled and self.endpoint.state not in (Endpoint.State.DELETED, Endpoint.State.UNVERIFIED)

    @property
    def recovery(self) -> str:
        """The query of the form that recovers it; empty where there is nothing to recover or nobody who may."""
        if not self.may_act or self.why.verdict != Verdict.NOT_THEN:
            return ""
        since = self.event.received_at.astimezone(UTC)
        return urlencode({"action": "recover", "endpoint": self.endpoint.public_id, "since": f"{since:%Y-%m-%dT%H:%M:%S}"})

    @property
    def attempts_left_out(self) -> int:
        return max(0, self.why.delivery.attempt_count - len(self.why.attempts)) if self.why.delivery else 0

    @property
    def judged(self) -> list[object]:
        return list(self.why.judged[:SUBSCRIPTIONS_SHOWN])

    @property
    def subscriptions_left_out(self) -> int:
        return max(0, len(self.why.judged) - SUBSCRIPTIONS_SHOWN)


@dataclass(frozen=True)
class Verdicts:
    """One page of each list, and the queries of the next ones."""

    owed: list[Row]
    others: list[Row]
    more_owed: str = ""
    more_others: str = ""

    @property
    def pending(self) -> bool:
        return any(row.why.verdict == Verdict.PENDING for row in self.owed)

    @classmethod
    def of(cls, event: Event, access: Access, place: Place) -> Self:
        owed, more_owed = _page(_owed_to(event, access, place))
        others, more_others = _page(_others(event, access, place))
        answers = why_all(event, [*owed, *others], _latest_attempts())
        rows = {each.pk: Row(each, answers[each.pk], access.may_act_in(each.tenant_id), event) for each in (*owed, *others)}
        return cls(
            [rows[each.pk] for each in owed],
            [rows[each.pk] for each in others],
            replace(place, owed_after=owed[-1].pk).query() if more_owed else "",
            replace(place, others_after=others[-1].pk).query() if more_others else "",
        )


def _endpoints(access: Access, place: Place) -> EndpointQuerySet:
    rows = Endpoint.objects.for_tenants(access.sees).without_secrets().order_by("-pk")
    return rows.filter(pk=place.endpoint) if place.endpoint else rows


def _owed_to(event: Event, access: Access, place: Place) -> "QuerySet[Endpoint]":
    """Deleted ones too: they are part of what happened."""
    rows = _endpoints(access, place).filter(_delivery_of(event))
    return rows.filter(pk__lt=place.owed_after) if place.owed_after else rows


def _others(event: Event, access: Access, place: Place) -> "QuerySet[Endpoint]":
    rows = _endpoints(access, place).present().filter(~_delivery_of(event))
    return rows.filter(pk__lt=place.others_after) if place.others_after else rows


def _delivery_of(event: Event) -> Exists:
    return Exists(Delivery.objects.filter(event=event, endpoint=OuterRef("pk")))


def _page(rows: "QuerySet[Endpoint]") -> tuple[list[Endpoint], bool]:
    found = list(rows[: PAGE + 1])
    return found[:PAGE], len(found) > PAGE


def _latest_attempts() -> "QuerySet[Attempt]":
    rows = Attempt.objects.defer("response_headers", "response_body")
    return rows.annotate(back=Window(RowNumber(), partition_by=F("delivery"), order_by="-id")).filter(back__lte=ATTEMPTS_SHOWN)
