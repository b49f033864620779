"""What the API takes is what its schema says, to the letter: what Schemathesis found, and what it would find next."""

import pytest

from tests.api import Api, api_of
from tests.builders import make_endpoint, make_source

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


@pytest.fixture
def api() -> Api:
    return api_of()


def test_it_names_the_methods_before_it_looks_at_the_query(api: Api) -> None:
    answer = api.request("TRACE", "events?limit=5")
    assert answer.problem == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST, OPTIONS"


def test_it_takes_no_empty_source_for_none(api: Api) -> None:
    assert api.post("events?source=", {"type": "order.paid", "data": 1}).problem == (404, "not_found")
    assert api.post("events", {"type": "order.paid", "data": 1}).status == 202


@pytest.mark.parametrize("name", [" Billing", "Billing ", "\u2003Billing", "   "])
def test_it_takes_no_name_with_spaces_at_its_ends(api: Api, name: str) -> None:
    answer = api.post("sources", {"name": name})
    assert (answer.status, answer.pointers) == (422, ["/name"])


def test_it_counts_what_was_sent_and_not_what_differs(api: Api) -> None:
    make_source()
    answer = api.post("subscriptions", {"endpoint": make_endpoint().public_id, "collections": ["*"], "operations": ["create"] * 4})
    assert (answer.status, answer.pointers) == (422, ["/operations"])


def test_it_takes_once_what_stands_twice(api: Api) -> None:
    make_source()
    answer = api.post("subscriptions", {"endpoint": make_endpoint().public_id, "collections": ["*"], "operations": ["create", "create"]})
    assert (answer.status, answer.json["operations"]) == (201, ["create"])


@pytest.mark.parametrize("name", [" X-Key", "X-Key\t", "X-Key "])
def test_it_takes_no_header_with_spaces_around_its_name(api: Api, name: str) -> None:
    answer = api.post("endpoints", {"url": "https://example.com/", "headers": {name: "1"}})
    assert answer.status == 422
    assert answer.pointers[0].startswith("/headers/")
