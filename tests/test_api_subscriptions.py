"""`/subscriptions`: which events of which source an endpoint wants, and what that would have brought."""

from typing import Any

import pytest

from subscriptions.models import AuditEntry, ConfigVersion, Subscription
from tests.api import Api, api_of
from tests.builders import DID, POST, make_api_event, make_api_source, make_endpoint, make_event, make_source, make_subscription

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

NOWHERE = "0" * 32


@pytest.fixture
def api() -> Api:
    make_source()
    return api_of()


def subscribe(api: Api, **wish: Any) -> Any:
    return api.post("subscriptions", {"endpoint": make_endpoint().public_id} | wish)


def test_a_subscription_to_the_stream_names_collections(api: Api) -> None:
    version = ConfigVersion.current()
    wish = {"collections": [POST, "app.bsky.graph.*"], "dids": [DID], "operations": ["create", "delete"], "kinds": ["commit", "identity"]}
    made = subscribe(api, **wish)
    assert made.status == 201
    assert made.json | wish == made.json
    row = Subscription.objects.get()
    assert (made.json["source"], made.json["source_kind"], made.json["types"], made.json["active"]) == (row.source.public_id, "jetstream", None, True)
    assert made.headers["ETag"] == api.get(f"subscriptions/{made.json['id']}").headers["ETag"]
    assert ConfigVersion.current() > version
    assert AuditEntry.objects.get().action == "subscription.create"


def test_a_subscription_to_posted_events_names_types(api: Api) -> None:
    made = subscribe(api, types=["order.*", "order.*", "user.made"])
    # Each once.
    assert (made.json["types"], made.json["collections"], made.json["kinds"], made.json["source_kind"]) == (["order.*", "user.made"], None, ["api"], "api")
    assert api.post("events", {"type": "order.paid", "data": 1}).json["deliveries"] == 1
    assert subscribe(api, source="api").json["types"] == ["*"]
    other = make_api_source(name="another")
    assert subscribe(api, source=other.public_id, types=["a"]).json["source"] == other.public_id


@pytest.mark.parametrize(
    ("wish", "kinds"),
    [
        ({"kinds": ["identity"]}, ["identity"]),
        ({"dids": [DID]}, ["commit"]),
        ({"collections": ["*"]}, ["commit"]),
        ({"source": "jetstream", "collections": ["a.b"]}, ["commit"]),
    ],
)
def test_what_is_narrow_in_another_way_needs_no_collections(wish: dict[str, Any], kinds: list[str], api: Api) -> None:
    made = subscribe(api, **wish)
    assert (made.status, made.json["kinds"], made.json["collections"]) == (201, kinds, wish.get("collections", ["*"]))


def test_what_makes_no_subscription_says_why(api: Api) -> None:
    endpoint = make_endpoint().public_id
    for wish, pointers in (
        ({}, ["/collections"]),
        ({"kinds": ["commit", "identity"]}, ["/collections"]),
        ({"collections": ["a"], "types": ["b"]}, ["/types"]),
        ({"source": "jetstream", "types": ["b"]}, ["/collections"]),
        ({"source": "api", "collections": ["b"]}, ["/collections"]),
        ({"source": "api", "dids": [DID], "operations": ["create"], "kinds": ["commit"]}, ["/dids", "/operations", "/kinds"]),
        ({"source": "elsewhere", "collections": ["*"]}, ["/source"]),
        ({"source": f"src_{NOWHERE}", "collections": ["*"]}, ["/source"]),
        ({"source": None, "collections": ["*"]}, ["/source"]),
        ({"collections": []}, ["/collections"]),
        ({"collections": ["a.*.b"]}, ["/collections/0"]),
        ({"collections": ["a", "b c"]}, ["/collections/1"]),
        ({"collections": "a"}, ["/collections"]),
        ({"collections": {"a": 1}}, ["/collections"]),
        ({"collections": [None]}, ["/collections/0"]),
        ({"collections": [f"a.b{number}" for number in range(101)]}, ["/collections"]),
        ({"types": [".".join(["x" * 60] * 6)]}, ["/types/0"]),
        ({"dids": ["nobody"]}, ["/dids/0"]),
        ({"dids": [DID + "\n"]}, ["/dids/0"]),
        ({"collections": ["*"], "operations": ["insert"]}, ["/operations/0"]),
        ({"kinds": ["api"]}, ["/kinds/0"]),
        ({"kinds": []}, ["/kinds"]),
        ({"collections": ["*"], "active": "yes"}, ["/active"]),
        ({"collections": ["*"], "wanted": 1}, ["/wanted"]),
    ):
        answer = api.post("subscriptions", {"endpoint": endpoint} | wish)
        assert (answer.problem, answer.pointers) == ((422, "invalid"), pointers), wish
    for id in (f"ep_{NOWHERE}", "ep_1", 1, None, make_endpoint(state="deleted").public_id):
        assert api.post("subscriptions", {"endpoint": id, "collections": ["*"]}).pointers == ["/endpoint"]
    assert api.post("subscriptions", {"collections": ["*"]}).pointers == ["/endpoint"]
    assert not Subscription.objects.exists()


def test_there_may_be_no_stream() -> None:
    assert subscribe(api_of(), collections=["*"]).pointers == ["/source"]


def test_subscriptions_are_listed_and_found_by_endpoint(api: Api) -> None:
    rows = [make_subscription() for _ in range(3)]
    assert api.get("subscriptions").ids == [row.public_id for row in reversed(rows)]
    assert api.get(f"subscriptions?endpoint={rows[1].endpoint.public_id}").ids == [rows[1].public_id]
    assert api.get(f"subscriptions?endpoint=ep_{NOWHERE}").ids == []
    assert api.get("subscriptions?endpoint=x").problem == (400, "invalid_query")


def test_a_subscription_is_changed_in_what_is_named(api: Api) -> None:
    made = subscribe(api, collections=[POST], operations=["create"]).json
    path = f"subscriptions/{made['id']}"
    changed = api.patch(path, {"collections": ["*"], "active": False})
    assert changed.json == made | {"collections": ["*"], "active": False, "updated_at": changed.json["updated_at"]}
    assert api.patch(path, {"operations": [], "dids": []}).json["operations"] == []
    for change, pointer in (
        ({"types": ["a"]}, "/types"),
        ({"source": "api"}, "/source"),
        ({"collections": []}, "/collections"),
        ({"endpoint": made["endpoint"]}, "/endpoint"),
        ({"kinds": None}, "/kinds"),
    ):
        assert (api.patch(path, {"dids": [DID]} | change).pointers, change) == ([pointer], change)
    assert api.patch(path, {"source": "jetstream"}).status == 200
    assert api.get(path).json["dids"] == []
    posted = f"subscriptions/{subscribe(api, types=['a']).json['id']}"
    assert api.patch(posted, {"types": ["b"]}).json["types"] == ["b"]
    assert api.patch(posted, {"collections": ["b"]}).pointers == ["/collections"]


def test_a_subscription_is_deleted(api: Api) -> None:
    path = f"subscriptions/{subscribe(api, types=['*']).json['id']}"
    version = ConfigVersion.current()
    gone = api.delete(path)
    assert (gone.status, gone.content) == (204, b"")
    assert (api.get(path).status, api.delete(path).status, api.patch(path, {}).status) == (404, 404, 404)
    assert ConfigVersion.current() > version
    assert api.post("events", {"type": "a", "data": 1}).json["deliveries"] == 0
    assert AuditEntry.objects.latest("id").action == "subscription.delete"


# --- Preview -------------------------------------------------------------------------------------------------------


def test_a_preview_tells_what_a_subscription_would_have_brought_and_saves_nothing(api: Api) -> None:
    events = [make_event(type=type) for type in (POST, "app.bsky.feed.like", POST, "app.bsky.graph.block")]
    found = api.post("subscriptions/preview", {"collections": ["app.bsky.feed.*"], "operations": ["create"]})
    assert (found.json["looked_at"], found.json["matched"]) == (4, 3)
    assert found.json["per_type"] == [{"kind": "commit", "type": POST, "matched": 2}, {"kind": "commit", "type": "app.bsky.feed.like", "matched": 1}]
    assert [sample["id"] for sample in found.json["samples"]] == [events[number].public_id for number in (2, 1, 0)]
    assert api.post("subscriptions/preview", {"collections": ["*"], "last": 2}).json["looked_at"] == 2
    assert not Subscription.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_preview_looks_at_posted_events_too(api: Api) -> None:
    mine = make_api_event()
    found = api.post("subscriptions/preview", {"types": ["order.*"]})
    assert ([sample["id"] for sample in found.json["samples"]], found.json["source"]) == ([mine.public_id], mine.source.public_id)


def test_a_preview_refuses_what_a_subscription_refuses(api: Api) -> None:
    for body, pointer in (
        ({}, "/collections"),
        ({"types": ["a b"]}, "/types/0"),
        ({"types": ["a"], "last": 0}, "/last"),
        ({"types": ["a"], "last": 20_001}, "/last"),
    ):
        assert api.post("subscriptions/preview", body).pointers == [pointer]


def test_a_change_of_nothing_is_none(api: Api) -> None:
    made = api.post("subscriptions", {"endpoint": make_endpoint().public_id, "types": ["order.*"]})
    answer = api.patch(f"subscriptions/{made.json['id']}", {})
    assert (answer.status, answer.json, answer.headers["ETag"]) == (200, made.json, made.headers["ETag"])
