"""Nobody sees, names or touches what is another tenant's: every URL, every method, and ids in paths, queries and bodies.

The walk goes over the API's own URLs: one that is not in `ASKED` fails it.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core import serializers
from django.urls import URLPattern
from django.utils import timezone
from pytest_django import Settings

from delivery.engines import engine
from delivery.engines.base import EventCounts
from delivery.models import Delivery, Event, Replay
from delivery.replay.running import step
from jetrelay.api import urls
from jetrelay.api.models import IdempotentRequest
from subscriptions.ids import PublicModel
from subscriptions.models import ApiKey, AuditEntry, Endpoint, Source, Subscription
from tests.api import NO_BODY, Answer, Api, api_of
from tests.builders import (
    make_api_event,
    make_api_key,
    make_api_source,
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_health,
    make_host,
    make_replay,
    make_source,
    make_subscription,
    make_tenant,
)
from tests.receiver import Receiver

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

HOUR = timedelta(hours=1)
# It stands in every text of tenant A, and in nothing else.
MARK = "zzmark"
COUNT = 7_654_321
SINCE = "2026-01-01T00:00:00Z"


@dataclass
class World:
    """Tenant A with one of everything, each with a mark in all its texts."""

    source: Source
    endpoint: Endpoint
    subscription: Subscription
    event: Event
    delivery: Delivery
    dead: Delivery
    replay: Replay
    key: ApiKey
    # Of the source that all share, owed to A.
    shared: Event
    shared_delivery: Delivery

    @property
    def secret_texts(self) -> list[str]:
        """What of A may stand in no answer to B."""
        mine = [self.source, self.endpoint, self.subscription, self.event, self.delivery, self.dead, self.replay, self.key, self.shared_delivery]
        return [MARK, str(COUNT), self.endpoint.secret, self.endpoint.previous_secret, *(str(row.pk) for row in mine), *(row.pk.hex for row in mine)]


def make_world() -> World:
    now = timezone.now()
    tenant = make_tenant(slug=f"a-{MARK}", name=f"A {MARK}")
    source = make_api_source(tenant=tenant, name=f"source {MARK}")
    endpoint = make_endpoint(
        tenant=tenant,
        name=f"endpoint {MARK}",
        url=f"https://{MARK}.example/hook",
        bearer_token=f"token-{MARK}",
        extra_headers=f"X-{MARK}: value-{MARK}",
        state_reason=f"reason {MARK}",
        previous_secret="whsec_" + "b2xkb2xk" * 4,
        previous_secret_expires_at=now + HOUR,
    )
    make_health(endpoint=endpoint, reason=f"failure {MARK}")
    event = make_api_event(source=source, subject=f"subject-{MARK}", type=f"type.{MARK}", body=f'{{"data":"{MARK}"}}'.encode())
    delivery = make_delivery(event=event, endpoint=endpoint)
    make_attempt(delivery=delivery, error_detail=f"detail {MARK}", response_headers=f"X: {MARK}", response_body=MARK.encode())
    other = make_api_event(source=source, subject=f"other-{MARK}", type=f"type.{MARK}")
    shared = make_event()
    minute = now.replace(second=0, microsecond=0)
    engine().add_event_tallies(minute, source.pk, {("api", f"type.{MARK}"): EventCounts(COUNT, COUNT, 0, 0, 0)})
    engine().add_attempt_tallies(minute, {(endpoint.pk, "delivered"): {"attempts": COUNT}})
    return World(
        source=source,
        endpoint=endpoint,
        subscription=make_subscription(endpoint=endpoint, source=source, kinds=["api"], collections=[f"type.{MARK}"]),
        event=event,
        delivery=delivery,
        dead=make_delivery(event=other, endpoint=endpoint, state=Delivery.State.DEAD, last_status=500),
        replay=make_replay(tenant=tenant, endpoint=endpoint, created_by=f"somebody {MARK}", collections=[f"type.{MARK}"]),
        key=make_api_key(tenant=tenant, name=f"key {MARK}")[0],
        shared=shared,
        shared_delivery=make_delivery(event=shared, endpoint=endpoint, state=Delivery.State.DEAD),
    )


# --- What is asked -------------------------------------------------------------------------------------------------


@dataclass
class Ask:
    """A request of B's about something of A's. `gone` answers 403, 404, 409 or 422; another one 2xx, without anything of A's."""

    path: str
    body: Any = NO_BODY
    gone: bool = True


Asks = Callable[[World, "Own"], list[Ask]]


@dataclass
class Own:
    """What B has of its own, to go along with what is A's."""

    endpoint: Endpoint
    source: Source


def everything(path: str, *bodies: Any) -> Asks:
    """A list, or something that takes no id of others."""
    return lambda _, __: [Ask(path, body, gone=False) for body in bodies or (NO_BODY,)]


def at(path: str, of: str, *bodies: Any) -> Asks:
    """The same path with the id of each thing of A's."""
    return lambda a, _: [Ask(path.replace("<str:id>", getattr(a, name).public_id), body) for name in of.split() for body in bodies or (NO_BODY,)]


def filtered(path: str) -> Asks:
    """A list of deliveries, by everything of A's that it can be asked for."""

    def asks(a: World, _: Own) -> list[Ask]:
        by_id = (f"?endpoint={a.endpoint.public_id}", f"?event={a.event.public_id}", f"?event={a.shared.public_id}", f"?cursor={cursor_of(a.dead)}")
        both = f"?event={a.event.public_id}&endpoint={a.endpoint.public_id}"
        others = (f"?subject=subject-{MARK}", f"?collection=type.{MARK}", "?status=500", f"?since={SINCE}")
        return [Ask(f"{path}{query}", gone=False) for query in ("", *by_id, both, *others)]

    return asks


def in_bulk(path: str) -> Asks:
    def asks(a: World, own: Own) -> list[Ask]:
        theirs = [
            {"endpoint": a.endpoint.public_id},
            {"event": a.event.public_id},
            {"action": "recover", "endpoint": a.endpoint.public_id, "since": SINCE},
            {"action": "dismiss", "endpoint": a.endpoint.public_id},
            {"endpoint": own.endpoint.public_id, "event": a.event.public_id},
        ]
        # Of all that B has, which is nothing.
        mine = [{"state": "dead"}, {"event": a.shared.public_id}, {"collections": [f"type.{MARK[:-1]}.*"]}]
        return [*(Ask(path, body) for body in theirs), *(Ask(path, body, gone=False) for body in mine)]

    return asks


ASKED: dict[tuple[str, str], Asks] = {
    ("GET", "sources"): everything("sources"),
    ("POST", "sources"): everything("sources", {"name": f"source {MARK[::-1]}"}),
    ("GET", "sources/<str:id>"): at("sources/<str:id>", "source"),
    ("PATCH", "sources/<str:id>"): at("sources/<str:id>", "source", {"name": "mine"}, {}),
    ("GET", "endpoints"): lambda a, _: [Ask(f"endpoints{query}", gone=False) for query in ("", "?state=active", f"?cursor={cursor_of(a.endpoint)}")],
    ("POST", "endpoints"): lambda a, _: [
        Ask("endpoints", {"url": "http://127.0.0.1:9/", "subscriptions": [{"source": a.source.public_id}]}),
        Ask("endpoints", {"url": "http://127.0.0.1:9/", "subscriptions": [{"source": a.source.public_id, "types": ["*"]}]}),
    ],
    ("GET", "endpoints/<str:id>"): at("endpoints/<str:id>", "endpoint"),
    ("PATCH", "endpoints/<str:id>"): at("endpoints/<str:id>", "endpoint", {"name": "mine"}, {"url": "http://127.0.0.1:9/"}, {}),
    ("DELETE", "endpoints/<str:id>"): at("endpoints/<str:id>", "endpoint"),
    **{
        ("POST", f"endpoints/<str:id>/{act}"): at(f"endpoints/<str:id>/{act}", "endpoint")
        for act in ("pause", "resume", "enable", "disable", "reset-breaker", "verify", "test", "rotate-secret", "reveal-secret")
    },
    ("POST", "endpoints/<str:id>/recover"): at("endpoints/<str:id>/recover", "endpoint", {"since": SINCE}),
    ("GET", "subscriptions"): lambda a, _: [Ask(f"subscriptions{query}", gone=False) for query in ("", f"?endpoint={a.endpoint.public_id}")],
    ("POST", "subscriptions"): lambda a, own: [
        Ask("subscriptions", {"endpoint": a.endpoint.public_id, "types": ["*"]}),
        Ask("subscriptions", {"endpoint": own.endpoint.public_id, "source": a.source.public_id, "types": ["*"]}),
        Ask("subscriptions", {"endpoint": a.endpoint.public_id, "source": a.source.public_id, "types": ["*"]}),
    ],
    ("POST", "subscriptions/preview"): lambda a, _: [
        Ask("subscriptions/preview", {"source": a.source.public_id, "types": ["*"]}),
        Ask("subscriptions/preview", {"types": ["*"]}, gone=False),
    ],
    ("GET", "subscriptions/<str:id>"): at("subscriptions/<str:id>", "subscription"),
    ("PATCH", "subscriptions/<str:id>"): at("subscriptions/<str:id>", "subscription", {"active": False}, {}),
    ("DELETE", "subscriptions/<str:id>"): at("subscriptions/<str:id>", "subscription"),
    ("GET", "events"): lambda a, _: [
        Ask("events", gone=False),
        Ask(f"events?type=type.{MARK}", gone=False),
        Ask(f"events?subject=subject-{MARK}&kind=api", gone=False),
        Ask(f"events?source={a.source.public_id}"),
    ],
    ("POST", "events"): lambda a, _: [
        Ask(f"events?source={a.source.public_id}", {"type": "a", "data": 1}),
        Ask("events", {"type": "a", "data": 1}, gone=False),
    ],
    ("POST", "events/batch"): lambda a, _: [
        Ask(f"events/batch?source={a.source.public_id}", {"events": [{"type": "a", "data": 1}]}),
        Ask("events/batch", {"events": [{"type": "a", "data": 1}]}, gone=False),
    ],
    ("GET", "events/<str:id>"): lambda a, _: [Ask(f"events/{a.event.public_id}"), Ask(f"events/{a.shared.public_id}", gone=False)],
    ("GET", "events/<str:id>/body"): lambda a, _: [Ask(f"events/{a.event.public_id}/body"), Ask(f"events/{a.shared.public_id}/body", gone=False)],
    ("GET", "events/<str:id>/explain"): lambda a, own: [
        Ask(f"events/{a.event.public_id}/explain?endpoint={own.endpoint.public_id}"),
        Ask(f"events/{a.event.public_id}/explain?endpoint={a.endpoint.public_id}"),
        Ask(f"events/{a.shared.public_id}/explain?endpoint={a.endpoint.public_id}"),
        Ask(f"events/{a.shared.public_id}/explain?endpoint={own.endpoint.public_id}", gone=False),
    ],
    ("POST", "events/<str:id>/replay"): lambda a, own: [
        Ask(f"events/{a.event.public_id}/replay"),
        Ask(f"events/{a.event.public_id}/replay", {"endpoint": own.endpoint.public_id}),
        Ask(f"events/{a.shared.public_id}/replay"),
        Ask(f"events/{a.shared.public_id}/replay", {"endpoint": a.endpoint.public_id}),
    ],
    ("GET", "deliveries"): filtered("deliveries"),
    ("GET", "dead-letters"): filtered("dead-letters"),
    ("GET", "deliveries/<str:id>"): at("deliveries/<str:id>", "delivery dead shared_delivery"),
    ("POST", "deliveries/<str:id>/replay"): at("deliveries/<str:id>/replay", "delivery dead shared_delivery"),
    ("POST", "deliveries/<str:id>/dismiss"): at("deliveries/<str:id>/dismiss", "delivery dead shared_delivery"),
    ("GET", "replays"): everything("replays"),
    ("POST", "replays"): in_bulk("replays"),
    ("POST", "replays/preview"): in_bulk("replays/preview"),
    ("GET", "replays/<str:id>"): at("replays/<str:id>", "replay"),
    ("POST", "replays/<str:id>/cancel"): at("replays/<str:id>/cancel", "replay"),
    ("GET", "stats"): everything("stats", NO_BODY),
    ("GET", "quotas"): everything("quotas", NO_BODY),
    # The hosts are everybody's.
    ("GET", "stream"): everything("stream"),
    ("POST", "stream/reconnect"): everything("stream/reconnect"),
    ("POST", "stream/cursor"): everything("stream/cursor", {"to": SINCE}),
    ("GET", "keys"): everything("keys"),
    ("POST", "keys"): everything("keys", {"name": "b", "scopes": ["events:read"]}),
    ("GET", "keys/<str:id>"): at("keys/<str:id>", "key"),
    ("DELETE", "keys/<str:id>"): at("keys/<str:id>", "key"),
    ("POST", "keys/<str:id>/rotate"): at("keys/<str:id>/rotate", "key"),
}


def cursor_of(row: PublicModel) -> str:
    return urlsafe_b64encode(row.pk.bytes).decode().rstrip("=")


def acts() -> dict[tuple[str, str], str]:
    """(method, route) of all that the API does, and the scope that it takes."""
    found: dict[tuple[str, str], str] = {}
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern), "the walk knows no URLs inside of URLs"
        view = pattern.callback.view_class  # type: ignore[attr-defined]
        found |= {(method, str(pattern.pattern)): scope for method, scope in view.scopes.items()}
    return found


# --- The walk ------------------------------------------------------------------------------------------------------


def snapshot(world: World) -> str:
    """Everything that is A's, as it is in the database."""
    tenant = world.endpoint.tenant_id
    rows: list[Any] = []
    for model in (Source, Endpoint, ApiKey, Replay, AuditEntry, IdempotentRequest):
        rows += model.objects.filter(tenant=tenant).order_by("pk")
    rows += Subscription.objects.filter(endpoint__tenant=tenant).order_by("pk")
    rows += Delivery.objects.filter(endpoint__tenant=tenant).order_by("pk")
    rows += Event.objects.filter(source__tenant=tenant).order_by("pk")
    rows += apps.get_model("subscriptions", "EndpointPastState").objects.filter(endpoint__tenant=tenant)
    rows += apps.get_model("delivery", "EndpointHealth").objects.filter(endpoint__tenant=tenant)
    return serializers.serialize("json", rows)


def answers(api: Api, method: str, ask: Ask) -> Answer:
    return api.request(method, ask.path, ask.body)


WALK = [pytest.param(*act, id=" ".join(act)) for act in sorted(ASKED)]


def test_the_walk_knows_every_url() -> None:
    assert set(acts()) == set(ASKED)


@pytest.mark.parametrize(("method", "route"), WALK)
def test_another_tenants_things_are_not_there(method: str, route: str, settings: Settings) -> None:
    settings.JETRELAY_VERIFY_ENDPOINTS = False
    make_source()
    make_host()
    world = make_world()
    tenant = make_tenant(slug="b")
    own = Own(make_endpoint(tenant=tenant), make_api_source(tenant=tenant))
    api = api_of(tenant)
    before = snapshot(world)
    for ask in ASKED[method, route](world, own):
        answer = answers(api, method, ask)
        expected = (403, 404, 409, 422) if ask.gone else (200, 201, 202)
        assert (answer.status in expected, ask) == (True, ask), answer.text
        # What B wrote itself, and may read in words about it, is no news.
        said = f"{ask.path} {ask.body!r}"
        leaked = [text for text in world.secret_texts if text in answer.text and text not in said]
        assert (leaked, ask) == ([], ask), answer.text
        assert (snapshot(world) == before, ask) == (True, ask)


@pytest.mark.parametrize(("method", "route"), WALK)
def test_what_takes_a_scope_is_refused_without_it_to_the_owner_too(method: str, route: str) -> None:
    make_source()
    make_host()
    world = make_world()
    own = Own(world.endpoint, world.source)
    api = api_of(world.endpoint.tenant, without=acts()[method, route], last_used_at=timezone.now())
    before = snapshot(world)
    for ask in ASKED[method, route](world, own):
        answer = answers(api, method, ask)
        assert (answer.problem, ask) == ((403, "missing_scope"), ask)
        assert MARK not in answer.text
    assert snapshot(world) == before


def test_what_belongs_to_somebody_else_is_answered_like_what_is_not_there() -> None:
    """Else an answer would tell which ids there are."""
    world = make_world()
    tenant = make_tenant(slug="b")
    api, own = api_of(tenant), Own(make_endpoint(tenant=tenant), make_api_source(tenant=tenant))
    rows: list[PublicModel] = [world.source, world.endpoint, world.subscription, world.event, world.delivery, world.replay, world.key]

    def without_ids(answer: Answer) -> str:
        found = answer.json
        found.pop("request_id", None)
        text = str((answer.status, found))
        for row in rows:
            text = text.replace(row.public_id, "ID").replace(f"{row.prefix}_{'0' * 32}", "ID")
        return text

    compared = 0
    for (method, _), asks in ASKED.items():
        for ask in asks(world, own):
            if not ask.gone:
                continue
            path, body = ask.path, "" if ask.body is NO_BODY else json.dumps(ask.body)
            for row in rows:
                nobody = f"{row.prefix}_{'0' * 32}"
                path, body = path.replace(row.public_id, nobody), body.replace(row.public_id, nobody)
            if MARK in path + body or world.shared.public_id in path:
                continue
            other = answers(api, method, Ask(path, json.loads(body) if body else NO_BODY))
            assert without_ids(answers(api, method, ask)) == without_ids(other), ask
            compared += 1
    assert compared > 40


def test_events_of_a_shared_source_are_everybodys() -> None:
    world = make_world()
    api = api_of(make_tenant(slug="b"))
    assert api.get("events").ids == [world.shared.public_id]
    shown = api.get(f"events/{world.shared.public_id}").json
    assert (shown["body"]["kind"], shown["deliveries"]) == ("commit", [])


def test_each_tenant_is_owed_its_own(receiver: Receiver, settings: Settings) -> None:
    """What one posts reaches no endpoint of another, whatever that one subscribes to."""
    settings.JETRELAY_VERIFY_ENDPOINTS = False
    a, b = api_of(make_tenant(slug="a")), api_of(make_tenant(slug="b"))
    for api in (a, b):
        assert api.post("endpoints", {"url": receiver.url, "subscriptions": [{"types": ["*"]}]}).status == 201
    assert a.post("events", {"type": "x", "data": 1, "id": "o-1"}).json["deliveries"] == 1
    assert [len(api.get("deliveries").ids) for api in (a, b)] == [1, 0]
    # The same id is another event there.
    assert b.post("events", {"type": "x", "data": 2, "id": "o-1"}).json["status"] == "stored"
    assert [len(api.get("events").ids) for api in (a, b)] == [1, 1]


def test_a_bulk_replay_touches_its_tenants_deliveries_alone() -> None:
    world = make_world()
    tenant = make_tenant(slug="b")
    mine = make_delivery(endpoint=make_endpoint(tenant=tenant), event=world.shared, state=Delivery.State.DEAD)
    for action in ("replay", "dismiss"):
        Delivery.objects.filter(pk=mine.pk).update(state=Delivery.State.DEAD)
        started = api_of(tenant).post("replays", {"state": "dead", "action": action})
        assert started.json["expected"] == 1
        wish = Replay.objects.latest("id")
        while wish.refreshed().running:
            step(wish.pk, timezone.now() + HOUR)
        assert wish.done == 1
        assert [row.refreshed().state for row in (world.dead, world.shared_delivery)] == [Delivery.State.DEAD] * 2
