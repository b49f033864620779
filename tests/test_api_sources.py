"""`/sources`: where events come from. The stream is everybody's; posted events are a tenant's own."""

import pytest

from jetrelay.api.sources import DEFAULT_NAME, api_source_of
from subscriptions.models import AuditEntry, Source
from subscriptions.models.sources import SourceQuerySet
from tests.api import Api, api_of
from tests.builders import make_api_source, make_source, make_tenant

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


@pytest.fixture
def api() -> Api:
    return api_of()


def test_a_tenant_sees_the_shared_sources_and_its_own(api: Api) -> None:
    stream, theirs = make_source(), make_api_source(tenant=make_tenant(slug="other"))
    listed = api.get("sources").json["data"]
    assert [(row["kind"], row["name"], row["shared"], row["keep_unmatched"]) for row in listed] == [
        ("api", DEFAULT_NAME, False, True),
        ("jetstream", "Jetstream", True, False),
    ]
    assert listed[1]["id"] == stream.public_id
    assert api.get(f"sources/{stream.public_id}").json == listed[1]
    assert api.get(f"sources/{theirs.public_id}").status == 404


def test_the_first_source_of_posted_events_is_made_when_it_is_asked_for_and_once() -> None:
    tenant = make_tenant()
    first = api_source_of(tenant)
    make_api_source(name="another")
    assert api_source_of(tenant) == first
    # Whatever it is called by now.
    Source.objects.filter(pk=first.pk).update(name="renamed")
    assert api_source_of(tenant) == first


def test_a_source_is_made_and_changed(api: Api) -> None:
    made = api.post("sources", {"name": "Shop", "keep_unmatched": False})
    assert (made.status, made.json["kind"], made.json["shared"], made.json["keep_unmatched"]) == (201, "api", False, False)
    path = f"sources/{made.json['id']}"
    assert api.patch(path, {"keep_unmatched": True}).json == made.json | {"keep_unmatched": True}
    assert api.patch(path, {"name": "Store"}).json["name"] == "Store"
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == ["source.create", "source.change", "source.change"]
    assert api.post(f"events?source={made.json['id']}", {"type": "a", "data": 1}).status == 202


def test_a_source_with_a_name_does_not_become_the_one_for_events_that_name_none(api: Api) -> None:
    made = api.post("sources", {"name": "Shop"}).json["id"]
    event = api.post("events", {"type": "a", "data": 1}).json["id"]
    assert api.get(f"events/{event}").json["source"] != made
    assert {row["name"] for row in api.get("sources").json["data"]} == {"Shop", DEFAULT_NAME}


def test_names_are_a_tenants_own(api: Api) -> None:
    first, other = api.post("sources", {"name": "Shop"}), api.post("sources", {"name": "Store"})
    assert api.post("sources", {"name": "Shop"}).pointers == ["/name"]
    assert api.patch(f"sources/{other.json['id']}", {"name": "Shop"}).pointers == ["/name"]
    assert api.patch(f"sources/{first.json['id']}", {"name": "Shop"}).status == 200
    assert api_of(make_tenant(slug="other")).post("sources", {"name": "Shop"}).status == 201


@pytest.mark.parametrize("kind", ["PATCH"])
def test_a_shared_source_is_the_operators(kind: str, api: Api) -> None:
    stream = make_source()
    assert api.request(kind, f"sources/{stream.public_id}", {"name": "mine"}).problem == (404, "not_found")
    assert stream.refreshed().name == "Jetstream"


def test_what_is_no_source_says_why(api: Api) -> None:
    for body, pointer in (
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "a\u0000"}, "/name"),
        ({"name": 1}, "/name"),
        ({"name": None}, "/name"),
        ({"name": "a", "keep_unmatched": 1}, "/keep_unmatched"),
        ({"name": "a", "kind": "jetstream"}, "/kind"),
        ({"name": "a", "tenant": None}, "/tenant"),
    ):
        assert (api.post("sources", body).pointers, body) == ([pointer], body)
    assert not Source.objects.exists()


def test_of_two_first_posts_that_come_at_once_both_find_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant()
    for name in (DEFAULT_NAME, "another"):
        make_api_source(tenant=tenant, name=name)
    # As whoever looked before those were there.
    monkeypatch.setattr(SourceQuerySet, "first", lambda _: None)
    assert Source.of_posts(tenant).name == DEFAULT_NAME
