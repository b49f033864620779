"""Why an endpoint did or didn't get an event: every verdict, and the words that say what stood in the way."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from delivery.models import Attempt, Delivery, Event
from delivery.why import Verdict, Why, judge, why, why_all
from subscriptions.matching import Filter, Matcher
from subscriptions.models import Endpoint, EndpointPastState, Subscription
from tests.builders import DID, POST, make_api_event, make_api_source, make_attempt, make_delivery, make_endpoint, make_event, make_source, make_subscription

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
State = Endpoint.State


def older(row: Any, by: timedelta = HOUR) -> Any:
    """The subscription or endpoint as if it had been made so long ago."""
    moment = timezone.now() - by
    news = {"created_at": moment, "updated_at" if isinstance(row, Subscription) else "state_changed_at": moment}
    type(row).objects.filter(pk=row.pk).update(**news)
    return row.refreshed()


def failures(subscription: Subscription, event: Event) -> list[str]:
    return [each.name for each in judge(subscription, event).conditions if not each.met]


# --- Verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "verdict", "words"),
    [
        (Delivery.State.PENDING, Verdict.PENDING, "Owed, and due at .*: not tried yet"),
        (Delivery.State.DELIVERED, Verdict.DELIVERED, "Delivered at .*, at attempt 3"),
        (Delivery.State.DEAD, Verdict.DEAD, "Dead at .*, after 3 attempts: 503 Service Unavailable"),
        (Delivery.State.CANCELLED, Verdict.CANCELLED, "Cancelled at"),
    ],
)
def test_a_delivery_is_the_answer(state: Delivery.State, verdict: Verdict, words: str) -> None:
    tried = {} if state == Delivery.State.PENDING else {"attempt_count": 3, "last_status": 503, "settled_at": timezone.now()}
    delivery = make_delivery(state=state, endpoint=make_subscription().endpoint, **tried)
    attempts = [make_attempt(delivery=delivery, number=number, status=503) for number in (1, 2)]
    found = why(delivery.event, delivery.endpoint)
    assert (found.verdict, found.delivery, list(found.attempts)) == (verdict, delivery, attempts)
    assert re.search(words, found.words)


def test_what_is_still_tried_says_what_came_last() -> None:
    delivery = make_delivery(last_error="timeout", attempt_count=1)
    assert "timed out" in why(delivery.event, delivery.endpoint).words


def test_an_endpoint_without_a_subscription_gets_nothing() -> None:
    found = why(make_event(), make_endpoint())
    assert (found.verdict, found.judged) == (Verdict.NO_SUBSCRIPTION, [])


def test_it_names_the_first_thing_that_stood_in_the_way_of_each_subscription() -> None:
    endpoint = make_endpoint()
    make_subscription(endpoint=endpoint, operations=["create"])
    make_subscription(endpoint=endpoint, collections=["app.bsky.graph.*"], dids=["did:plc:x"])
    found = why(make_event(operation="delete"), endpoint)
    assert found.verdict == Verdict.NOT_MATCHED
    assert found.words == (
        "No subscription matched: collection is app.bsky.feed.post, and app.bsky.graph.* is wanted; operation is delete, and create is wanted."
    )


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("made later", "the endpoint was made after the event came"),
        ("unverified then", "had not answered its challenge yet"),
        ("subscribed later", "the subscription was made or changed at .*, after the event came"),
        ("pruned", "has been pruned, or the event came before the listener knew"),
    ],
)
def test_it_says_what_was_other_when_the_event_came(case: str, words: str) -> None:
    event, now = make_event(), timezone.now()
    endpoint = make_endpoint()
    subscription = make_subscription(endpoint=endpoint)
    if case != "made later":
        endpoint = older(endpoint)
    if case == "unverified then":
        EndpointPastState.objects.create(endpoint=endpoint, state=State.UNVERIFIED, from_at=now - HOUR, to_at=now + HOUR)
        Endpoint.objects.filter(pk=endpoint.pk).update(state_changed_at=now + HOUR)
    if case == "pruned":
        older(subscription)
    found = why(event, endpoint.refreshed())
    assert found.verdict == Verdict.NOT_THEN
    assert re.search(words, found.words)
    assert found.words.endswith("Recover the endpoint to get it.")


def test_it_tells_what_state_the_endpoint_was_in() -> None:
    event, now = make_event(), timezone.now()
    endpoint = older(make_endpoint())
    Endpoint.objects.filter(pk=endpoint.pk).set_state(State.PAUSED, "for lunch")
    found = why(event, endpoint.refreshed())
    assert found.state_then == (State.ACTIVE, "")
    assert why(make_event(received_at=timezone.now()), endpoint).state_then == (State.PAUSED, "for lunch")
    assert why(make_event(received_at=now - 2 * HOUR), endpoint).state_then is None


def test_it_says_which_subscriptions_were_changed_since() -> None:
    event, endpoint = make_event(), make_endpoint()
    old, changed = older(make_subscription(endpoint=endpoint)), older(make_subscription(endpoint=endpoint))
    changed.save()
    since = {each.subscription.pk: each.changed_since for each in why(event, endpoint).judged}
    assert since == {old.pk: None, changed.pk: changed.refreshed().updated_at}


# --- Conditions ----------------------------------------------------------------------------------------------------


def test_it_judges_every_condition_of_a_commit() -> None:
    wish = make_subscription(collections=["app.bsky.feed.*"], operations=["create"], dids=[DID])
    assert [each.name for each in judge(wish, make_event()).conditions] == ["active", "source", "kind", "collection", "operation", "did"]
    assert judge(wish, make_event()).matched
    event = make_event(source=make_api_source(), kind="commit", type="app.bsky.graph.like", operation="delete", subject="did:plc:other")
    wish.active, wish.kinds = False, ["identity"]
    assert failures(wish, event) == ["active", "source", "kind", "collection", "operation", "did"]


def test_it_judges_a_posted_event_by_its_type() -> None:
    wish = make_subscription(source=make_api_source(), kinds=["api"], collections=["order.*", "user.made"])
    assert [each.name for each in judge(wish, make_api_event()).conditions] == ["active", "source", "kind", "type"]
    assert failures(wish, make_api_event(type="user.gone")) == ["type"]
    assert failures(wish, make_api_event(type="user.made")) == []


def test_it_counts_accounts_where_there_are_many() -> None:
    wish = make_subscription(dids=[f"did:plc:{number}" for number in range(1200)])
    assert judge(wish, make_event()).conditions[-1].words == f"did is {DID}, and one of 1,200 accounts is wanted."


@pytest.mark.parametrize("kind", ["commit", "identity", "account", "sync"])
@pytest.mark.parametrize("collections", [["*"], [POST], ["app.bsky.feed.*"], ["app.bsky.graph.*"]])
@pytest.mark.parametrize("operations", [[], ["create"], ["delete", "update"]])
@pytest.mark.parametrize("dids", [[], [DID], ["did:plc:x"]])
@pytest.mark.parametrize("kinds", [["commit"], ["identity", "commit"], ["account"]])
def test_it_agrees_with_what_the_outbox_does(kind: str, collections: list[str], operations: list[str], dids: list[str], kinds: list[str]) -> None:
    source = make_source()
    endpoint = Endpoint()
    wish = Subscription(endpoint=endpoint, source=source, collections=collections, operations=operations, dids=dids, kinds=kinds)
    event = Event(
        source=source, kind=kind, type=POST if kind == "commit" else "", operation="create" if kind == "commit" else "", subject=DID, received_at=timezone.now()
    )
    matcher = Matcher([Filter(endpoint.pk, tuple(collections), tuple(dids), tuple(operations), tuple(kinds))])
    wish.updated_at = timezone.now()
    assert judge(wish, event).matched == bool(matcher.match(event.kind, event.type, event.operation, event.subject))


# --- Many endpoints at once ----------------------------------------------------------------------------------------


def same(one: Why, other: Why) -> bool:
    return one._replace(attempts=list(one.attempts)) == other._replace(attempts=list(other.attempts))


def test_it_says_of_many_endpoints_what_it_says_of_each() -> None:
    event, now = make_event(), timezone.now()
    endpoints = [make_endpoint(name="nothing"), make_subscription(operations=["delete"]).endpoint, make_subscription().endpoint]
    paused = older(make_subscription().endpoint)
    for was, reason, until in ((State.PAUSED, "for lunch", now + HOUR), (State.ACTIVE, "", now + 2 * HOUR)):
        EndpointPastState.objects.create(endpoint=paused, state=was, reason=reason, from_at=until - 2 * HOUR, to_at=until)
    Endpoint.objects.filter(pk=paused.pk).update(state_changed_at=now + 2 * HOUR)
    for state in Delivery.State:
        delivery = make_delivery(event=event, state=state, attempt_count=2, last_status=500, endpoint=make_subscription().endpoint)
        make_attempt(delivery=delivery)
        make_attempt(delivery=delivery, number=2)
        endpoints.append(delivery.endpoint)
    make_attempt(delivery=make_delivery(endpoint=endpoints[-1]))
    endpoints = [each.refreshed() for each in (*endpoints, paused)]
    found = why_all(event, endpoints)
    assert list(found) == [each.pk for each in endpoints]
    assert [endpoint.name for endpoint in endpoints if not same(found[endpoint.pk], why(event, endpoint))] == []
    assert found[paused.pk].state_then == (State.PAUSED, "for lunch")
    assert [len(each.attempts) for each in found.values()] == [0, 0, 0, 2, 2, 2, 2, 0]
    assert {each.verdict for each in found.values()} == set(Verdict)


def test_it_reads_of_the_attempts_what_is_asked_for() -> None:
    delivery = make_delivery()
    second = [make_attempt(delivery=delivery, number=number) for number in (1, 2)][1]
    found = why_all(delivery.event, [delivery.endpoint], Attempt.objects.filter(number=2))
    assert list(found[delivery.endpoint_id].attempts) == [second]


@pytest.mark.parametrize("count", [1, 30])
def test_it_takes_four_queries_however_much_there_is(count: int, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    delivery = make_delivery()
    for number in range(count):
        make_subscription(endpoint=delivery.endpoint)
        make_attempt(delivery=delivery, number=number)
    with django_assert_num_queries(4):
        why(delivery.event, delivery.endpoint)
    others = [make_delivery(event=delivery.event, endpoint=make_subscription().endpoint).endpoint for _ in range(count)]
    with django_assert_num_queries(4):
        why_all(delivery.event, [delivery.endpoint, *others])
