"""The OpenAPI document: it knows every view, and what it says of the answers is so."""

import json
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPMethod
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from delivery.models import AttemptTally, Delivery, Replay
from jetrelay.api.examples import EXAMPLES
from jetrelay.api.operations import OPERATIONS, QUERY
from jetrelay.api.schema import document
from jetrelay.api.urls import urlpatterns
from jetrelay.api.views import ApiView
from subscriptions import keys
from subscriptions.ids import new_id
from subscriptions.models import Endpoint, Source
from tests.api import Api, api_of
from tests.builders import make_attempt, make_delivery, make_endpoint, make_event, make_gap, make_health, make_host, make_source, make_subscription, make_tenant
from tests.whole import ROOT


def described() -> Iterator[tuple[str, type[ApiView], HTTPMethod]]:
    """Every method of every view in `urls.py`, with its path."""
    for pattern in urlpatterns:
        callback: Any = pattern.callback
        for method in callback.cls.scopes:
            yield f"/api/v1/{pattern.pattern}".replace("<str:id>", "{id}"), callback.cls, HTTPMethod(method)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def errors(name: str, value: Any) -> list[str]:
    """What keeps this value from having the shape of that name."""
    return violations({"$ref": f"#/components/schemas/{name}"}, value)


def violations(schema: dict[str, Any], value: Any) -> list[str]:
    whole = schema | {"components": document()["components"]}
    validator = jsonschema.Draft202012Validator(whole, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


# --- It knows every view -----------------------------------------------------------------------------------------------


def test_it_describes_every_method_of_every_view_and_no_other() -> None:
    assert set(OPERATIONS) == {(view, method) for _, view, method in described()}


def test_its_paths_are_those_of_the_urls() -> None:
    assert {(path, method) for path, method, _ in operations()} == {(path, method.lower()) for path, _, method in described()}


@pytest.mark.parametrize(("view", "method"), OPERATIONS, ids=[operation.name for operation in OPERATIONS.values()])
def test_it_describes_the_query_that_the_view_knows_and_no_other(view: type[ApiView], method: HTTPMethod) -> None:
    operation, known = OPERATIONS[view, method], set(view.query.get(method, ()))
    assert set(operation.query) - known == set()
    assert set(operation.required) - known == set()
    assert known - QUERY.keys() - operation.query.keys() == set()


def test_it_describes_no_query_parameter_that_no_view_knows() -> None:
    assert set(QUERY) - {name for _, view, method in described() for name in view.query.get(method, ())} == set()


def test_each_operation_names_its_scope() -> None:
    found = {operation["operationId"]: operation["description"] for _, _, operation in operations()}
    for (view, method), operation in OPERATIONS.items():
        assert f"Takes the scope `{view.scopes[method]}`" in found[operation.name]


def test_its_names_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))


def test_its_file_is_the_one_that_the_code_makes(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", file=str(made), validate=True, fail_on_warn=True)
    assert made.read_text() == (ROOT / "docs" / "openapi.yaml").read_text(), "docs/openapi.yaml is not what the code says: make schema"


# --- What it says is so ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_examples_have_the_shapes(name: str) -> None:
    ((_, _, operation),) = [found for found in operations() if found[2]["operationId"] == name]
    assert violations(operation["requestBody"]["content"]["application/json"]["schema"], EXAMPLES[name].request) == []
    if EXAMPLES[name].answer is not None:
        status = min(operation["responses"])
        assert violations(operation["responses"][status]["content"]["application/json"]["schema"], EXAMPLES[name].answer) == []


@pytest.fixture
def api(fresh_api: None) -> Api:
    return api_of()


def rows() -> dict[str, str]:
    """A row of everything, as full and as empty as rows are. Gives the ids to ask for, by the path's first part."""
    now = timezone.now()
    tenant, jetstream = make_tenant(), make_source()
    posted = Source.objects.create(tenant=tenant, kind=Source.Kind.API, name="Mine")
    failing = make_health(endpoint=make_endpoint(bearer_token="t", extra_headers="X-A: 1", rate_limit_per_s=1.5)).endpoint
    failing.replace_secret(make_endpoint(state=Endpoint.State.PAUSED, state_reason="paused by Ada").secret)
    failing.save()
    make_subscription(endpoint=failing, source=posted, collections=["order.*"], kinds=["api"])
    subscription = make_subscription(endpoint=failing, source=jetstream, dids=["did:plc:x"], operations=["create"])
    event = make_event(origin="wss://host.example/subscribe", origin_cursor=7)
    delivery = make_delivery(event=event, endpoint=failing, state=Delivery.State.DEAD, attempt_count=2, last_error="timeout", settled_at=now)
    make_attempt(delivery=delivery, status=503, response_headers="server: x", response_body=b"\xff")
    make_attempt(delivery=delivery, number=2, status=None, error="timeout", error_detail="after 30 s")
    make_delivery(endpoint=failing)
    gone = make_delivery(endpoint=failing, state=Delivery.State.DELIVERED, last_status=200, settled_at=now)
    # Its event has been pruned.
    Delivery.objects.filter(pk=gone.pk).update(event=new_id())
    AttemptTally.objects.create(minute=now, endpoint=failing, outcome="delivered", attempts=2, total_ms=12.5, ms_10=1, ms_over=1)
    replay = Replay.objects.create(tenant=tenant, endpoint=failing, delivery_state=Delivery.State.DEAD, since=now, rate_per_s=5, created_by="key tests")
    Replay.objects.create(tenant=tenant, state=Replay.State.CANCELLED, collections=["a.b"], ended_at=now, ended_by="Ada")
    make_host(partial=[{"collection": "a.b.c", "brought_by": "wss://x.example/subscribe", "since": "2026-11-22T10:00:00+00:00", "missed": 3}], cursor=5)
    make_host(seen_at=None, connected_since=None, last_event_at=None, reached_at=None, lag_s=None, problem="refused")
    make_gap()
    key, _ = keys.issue(tenant, "old", ["events:read"], expires_at=now - timedelta(days=1), rate_limit_per_s=5)
    keys.revoke(key)
    return {
        "sources": posted.public_id,
        "endpoints": failing.public_id,
        "subscriptions": subscription.public_id,
        "events": event.public_id,
        "deliveries": delivery.public_id,
        "replays": replay.public_id,
        "keys": key.public_id,
    }


READS = [(path, operation) for path, method, operation in operations() if method == "get"]


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "operation"), READS, ids=[operation["operationId"] for _, operation in READS])
def test_its_shapes_are_those_of_the_answers(path: str, operation: dict[str, Any], api: Api) -> None:
    ids = rows()
    required = {each["name"] for each in operation["parameters"] if each.get("required")}
    query = f"?endpoint={ids['endpoints']}" if "endpoint" in required else ""
    answer = api.get(path.removeprefix("/api/v1/").replace("{id}", ids.get(path.split("/")[3], "")) + query)
    assert answer.status == 200, answer.text
    described = operation["responses"]["200"]
    assert violations(described["content"]["application/json"]["schema"], answer.json) == []
    assert {name for name, header in described["headers"].items() if "$ref" in header} <= set(answer.headers)
    data = answer.json.get("data")
    assert data is None or data, "an empty list says nothing of what it holds"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404),
        ("GET", "endpoints?colour=red", 400),
        ("DELETE", "endpoints", 405),
        ("POST", "endpoints", 422),
    ],
)
def test_its_problem_is_that_of_the_errors(api: Api, method: str, path: str, status: int) -> None:
    answer = api.request(method, path, {})
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert errors("Problem", answer.json) == []


# --- Where it is -------------------------------------------------------------------------------------------------------


def test_it_is_served_as_json_to_everybody(client: Client) -> None:
    answer = client.get("/api/schema")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == json.loads(json.dumps(document()))


def test_it_is_served_as_yaml_to_whoever_prefers_that(client: Client) -> None:
    answer = client.get("/api/schema", headers={"accept": "application/yaml"})
    assert answer["Content-Type"] == "application/yaml"
    assert yaml.safe_load(answer.content) == document()


@pytest.mark.django_db
def test_its_page_allows_nothing_from_elsewhere(client: Client) -> None:
    answer = client.get("/api/docs/")
    assert answer.status_code == 200
    policy = answer["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert b'href="/"' in answer.content
