"""Why did, or didn't, this endpoint get this event: every condition that stood in the way, for the pages and the API.

    found = why(event, endpoint)
    found.verdict     # Verdict.NOT_MATCHED
    found.words       # "No subscription matched: operation is delete, not create."

`why_all` asks for many endpoints at once, in as many queries.

Subscriptions are judged as they are now; what of them was changed after the event came is said.
"""

import enum
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from delivery.explain import explain
from delivery.models import Attempt, Delivery, Event
from subscriptions.matching import patterns_covering
from subscriptions.models import Endpoint, Subscription

State = Endpoint.State


class Verdict(enum.Enum):
    DELIVERED = "delivered"
    PENDING = "pending"
    DEAD = "dead"
    CANCELLED = "cancelled"
    # It matches now, and nothing is owed: it was another subscription or another state then.
    NOT_THEN = "not_then"
    NOT_MATCHED = "not_matched"
    NO_SUBSCRIPTION = "no_subscription"


class Condition(NamedTuple):
    """One thing that a subscription asks for, and whether the event has it. `words` say what is and what was wanted."""

    name: str
    met: bool
    words: str


class Judged(NamedTuple):
    """A subscription's view of the event. `changed_since`: when it was changed after the event came."""

    subscription: Subscription
    matched: bool
    conditions: Sequence[Condition]
    changed_since: datetime | None = None


class Why(NamedTuple):
    verdict: Verdict
    words: str
    judged: Sequence[Judged]
    # The endpoint's state when the event came, and why; None if it was not there yet.
    state_then: tuple[str, str] | None
    delivery: Delivery | None = None
    attempts: Sequence[Attempt] = ()


def why(event: Event, endpoint: Endpoint) -> Why:
    """Four queries, however many subscriptions and attempts there are."""
    return why_all(event, [endpoint])[endpoint.pk]


def why_all(event: Event, endpoints: Sequence[Endpoint], attempts: "QuerySet[Attempt] | None" = None) -> dict[UUID, Why]:
    """Of each endpoint, in their order. Four queries, however many endpoints there are.

    `attempts` says what of the attempts is wanted; without it, all of everything.
    """
    ids = [each.pk for each in endpoints]
    wishes: dict[UUID, list[Judged]] = {id: [] for id in ids}
    for subscription in Subscription.objects.filter(endpoint__in=ids).select_related("source").order_by("-id"):
        wishes[subscription.endpoint_id].append(judge(subscription, event))
    states = Endpoint.objects.filter(pk__in=ids).state_at(event.received_at)
    owed = {each.endpoint_id: each for each in Delivery.objects.filter(event=event, endpoint__in=ids)}
    made: dict[UUID, list[Attempt]] = {each.pk: [] for each in owed.values()}
    if made:
        for attempt in (Attempt.objects.all() if attempts is None else attempts).filter(delivery__in=list(made)).order_by("id"):
            made[attempt.delivery_id].append(attempt)
    found: dict[UUID, Why] = {}
    for id in ids:
        judged, state_then, delivery = wishes[id], states.get(id), owed.get(id)
        verdict, words = _of_delivery(delivery) if delivery else _of_none(judged, state_then)
        found[id] = Why(verdict, words, judged, state_then, delivery, made[delivery.pk] if delivery else [])
    return found


def judge(subscription: Subscription, event: Event) -> Judged:
    conditions = list(_conditions(subscription, event))
    changed = max(subscription.created_at, subscription.updated_at)
    return Judged(subscription, all(each.met for each in conditions), conditions, changed if changed > event.received_at else None)


def _conditions(wish: Subscription, event: Event) -> "list[Condition]":
    """In the order in which people think of them. As `subscriptions/matching.py` has it."""
    found = [
        Condition("active", wish.active, "The subscription is active." if wish.active else "The subscription is switched off."),
        _one_of("source", wish.source_id == event.source_id, "this one" if wish.source_id == event.source_id else "another one", wish.source.name),
        _one_of("kind", event.kind in wish.kinds, event.kind, ", ".join(wish.kinds)),
    ]
    if event.kind in ("commit", "api"):
        name = "type" if event.kind == "api" else "collection"
        covered = bool(set(patterns_covering(event.type)) & set(wish.collections))
        found.append(_one_of(name, covered, event.type, ", ".join(wish.collections)))
    if event.kind == "commit":
        found.append(_one_of("operation", not wish.operations or event.operation in wish.operations, event.operation, ", ".join(wish.operations) or "any"))
    if wish.dids:
        listed = wish.dids[0] if len(wish.dids) == 1 else f"one of {len(wish.dids):,} accounts"
        found.append(_one_of("did", event.subject in wish.dids, event.subject or "none", listed))
    return found


def _one_of(name: str, met: bool, found: str, wanted: str) -> Condition:
    return Condition(name, met, f"{name} is {found}, as wanted ({wanted})." if met else f"{name} is {found}, and {wanted} is wanted.")


def _of_delivery(delivery: Delivery) -> tuple[Verdict, str]:
    last = explain(delivery.last_status, delivery.last_error).words if delivery.last_status or delivery.last_error else "not tried yet"
    match delivery.state:
        case Delivery.State.DELIVERED:
            return Verdict.DELIVERED, f"Delivered{_at(delivery.settled_at)}, at attempt {delivery.attempt_count:,}."
        case Delivery.State.DEAD:
            attempts = f"{delivery.attempt_count:,} {'attempt' if delivery.attempt_count == 1 else 'attempts'}"
            return Verdict.DEAD, f"Dead{_at(delivery.settled_at)}, after {attempts}: {last}. Replay it to try again."
        case Delivery.State.CANCELLED:
            return Verdict.CANCELLED, f"Cancelled{_at(delivery.settled_at)}: it was dismissed, or the endpoint was deleted."
    return Verdict.PENDING, f"Owed, and due{_at(delivery.due_at)}: {last}."


def _of_none(judged: Sequence[Judged], state_then: tuple[str, str] | None) -> tuple[Verdict, str]:
    if not judged:
        return Verdict.NO_SUBSCRIPTION, "The endpoint has no subscription: it gets nothing until it has one."
    if not any(each.matched for each in judged):
        reasons = "; ".join(dict.fromkeys(_first_failure(each) for each in judged))
        return Verdict.NOT_MATCHED, f"No subscription matched: {reasons}."
    return Verdict.NOT_THEN, f"A subscription matches, and nothing is owed: {_what_was_other(judged, state_then)} Recover the endpoint to get it."


def _what_was_other(judged: Sequence[Judged], state_then: tuple[str, str] | None) -> str:
    if state_then is None:
        return "the endpoint was made after the event came."
    if state_then[0] == State.UNVERIFIED:
        return "the endpoint had not answered its challenge yet when the event came."
    since = [each.changed_since for each in judged if each.matched]
    if all(since):
        return f"the subscription was made or changed{_at(min(moment for moment in since if moment))}, after the event came."
    return "its delivery was settled long ago and has been pruned, or the event came before the listener knew of the subscription."


def _first_failure(judged: Judged) -> str:
    return next(each.words for each in judged.conditions if not each.met).rstrip(".")


def _at(moment: datetime | None) -> str:
    return f" at {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""
