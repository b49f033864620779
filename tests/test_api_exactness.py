"""What the API takes is what its schema says, to the letter: what Schemathesis found, and what it would find next."""

from typing import Any

import pytest
from django.test import Client

from subscriptions import keys
from tests.builders import make_endpoint, make_source, make_tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(client: Client) -> Client:
    _, text = keys.issue(make_tenant(), "tests", keys.SCOPES)
    client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    return client


def post(api: Client, path: str, body: Any) -> tuple[int, list[str]]:
    """The status, and what in the body is wrong."""
    answer = api.post(f"/api/v1/{path}", body, content_type="application/json")
    return answer.status_code, [error["pointer"] for error in answer.json().get("errors", [])]


def test_it_names_the_methods_before_it_looks_at_the_query(api: Client) -> None:
    answer = api.generic("TRACE", "/api/v1/events?limit=5")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, POST, OPTIONS")


def test_it_takes_no_empty_source_for_none(api: Client) -> None:
    assert post(api, "events?source=", {"type": "order.paid", "data": 1})[0] == 404


@pytest.mark.parametrize("name", [" Billing", "Billing ", "\u2003Billing", "   "])
def test_it_takes_no_name_with_spaces_at_its_ends(api: Client, name: str) -> None:
    assert post(api, "sources", {"name": name}) == (422, ["/name"])


def test_it_counts_what_was_sent_and_not_what_differs(api: Client) -> None:
    make_source()
    wish = {"endpoint": make_endpoint().public_id, "collections": ["*"], "operations": ["create"] * 4}
    assert post(api, "subscriptions", wish) == (422, ["/operations"])


def test_it_takes_once_what_stands_twice(api: Client) -> None:
    make_source()
    wish = {"endpoint": make_endpoint().public_id, "collections": ["*"], "operations": ["create", "create"]}
    answer = api.post("/api/v1/subscriptions", wish, content_type="application/json")
    assert (answer.status_code, answer.json()["operations"]) == (201, ["create"])


@pytest.mark.parametrize("name", [" X-Key", "X-Key\t", "X-Key "])
def test_it_takes_no_header_with_spaces_around_its_name(api: Client, name: str) -> None:
    status, pointers = post(api, "endpoints", {"url": "https://example.com/", "headers": {name: "1"}})
    assert status == 422
    assert pointers[0].startswith("/headers/")
