"""Every text and every list that the API takes, as its own document has them, at the largest body: none costs more than in proportion to its length."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from jetrelay.api.events import MAX_BATCH_BYTES
from tests.api import Api, api_of
from tests.builders import make_api_event, make_api_key, make_delivery, make_endpoint, make_subscription
from tests.nasty import QUICK_S, TEXTS, VALUES, as_json, cost, grows_no_faster

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api", "unlimited")]

_DOCUMENT = yaml.safe_load((Path(__file__).parent.parent / "docs" / "openapi.yaml").read_text())
# What is put in the place of one value of a body.
_HERE = "here"
# One of each kind of body.
_WRITES = {
    operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]: (method, path.removeprefix("/api/v1/"))
    for path, operations in _DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if isinstance(operation, dict) and "requestBody" in operation
}
_QUERIES = [
    (path.removeprefix("/api/v1/"), parameter["name"])
    for path, operations in _DOCUMENT["paths"].items()
    for parameter in operations.get("get", {}).get("parameters", [])
    if parameter["in"] == "query"
]
# Bytes of a body; most views take 256 KiB, the largest after batches 1 MiB.
_SIZES = {"endpoints": 900_000, "subscriptions": 900_000}
_SIZE = 240_000
# Calls that a request costs, whatever is in it; and one item of a list, as often as its list takes one.
_STEPS, _STEPS_EACH = 40_000, 120


@pytest.fixture
def unlimited(settings: Any) -> None:
    settings.JETRELAY_API_RATE_LIMIT = 1_000_000
    settings.JETRELAY_VERIFY_ENDPOINTS = False


@pytest.fixture
def api() -> Api:
    made = api_of()
    # The first request of a process loads what all need.
    made.post("events", {"type": "a.b", "data": 0})
    return made


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return _DOCUMENT["components"]["schemas"][name] if name else schema


def places(schema: dict[str, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Where a body of this schema holds something, and how many items may be there at most."""
    schema = resolved(schema)
    yield path, schema.get("maxItems", 0)
    for name, inner in schema.get("properties", {}).items():
        yield from places(inner, (*path, name))
    if "items" in schema:
        yield from places(schema["items"], (*path, 0))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from places(schema["additionalProperties"], (*path, "X-Name"))


def plain(schema: dict[str, Any], ids: dict[str, str]) -> Any:
    """What has to be there beside what is tried."""
    known = {
        "url": "https://receiver.example/hook",
        "since": "2026-01-01T00:00:00Z",
        "to": "2026-01-01T00:00:00Z",
        "type": "a.b",
        "data": 0,
        "name": "a name",
        "scopes": ["events:read"],
        "endpoint": ids["endpoints"],
        "events": [{"type": "a.b", "data": 0}],
    }
    return {name: known[name] for name in resolved(schema).get("required", [])}


def with_here(body: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return _HERE
    name, *rest = path
    if name == 0:
        return [with_here(None, tuple(rest))]
    return (body if isinstance(body, dict) else {}) | {name: with_here(body.get(name) if isinstance(body, dict) else None, tuple(rest))}


@pytest.fixture
def ids() -> dict[str, str]:
    delivery = make_delivery()
    return {
        "endpoints": delivery.endpoint.public_id,
        "deliveries": delivery.public_id,
        "events": make_api_event().public_id,
        "subscriptions": make_subscription(endpoint=make_endpoint()).public_id,
        "keys": make_api_key()[0].public_id,
    }


@pytest.mark.parametrize("body_of", _WRITES)
def test_it_looks_at_no_value_for_longer_than_its_length_asks_for(api: Api, ids: dict[str, str], body_of: str) -> None:
    (method, path), schema = _WRITES[body_of], {"$ref": f"/{body_of}"}
    kind = path.partition("/")[0]
    size = _SIZES.get(kind, _SIZE)
    # All of them in every place, and in turn as large as a body may be.
    largest, smaller = as_json(size), as_json(size // 8)
    address = path.replace("{id}", ids.get(kind, "src_" + 32 * "0"))
    for turn, (place, most) in enumerate(places(schema)):
        body = json.dumps(with_here(plain(schema, ids), place))
        for number, name in enumerate(largest):
            value = (largest if (number + turn) % 5 == 0 else smaller)[name]
            text = body.replace(f'"{_HERE}"', value, 1).encode()
            found = cost(lambda text=text: api.request(method.upper(), address, text))  # type: ignore[misc]
            where = f"{name} at {place}: {found.steps:,} steps, {found.seconds:.2f} s, {found.answer.status}, {len(found.answer.content):,} bytes"
            # Each object of a body is looked at once, for names that stand twice.
            items = value.count("{") + (most if value.startswith("[") else 0)
            allowed = _STEPS + _STEPS_EACH * min(items, 20_000) + 2 * value.count('":')
            assert found.steps < allowed, where
            assert found.seconds < 1.5 or cost(lambda text=text: api.request(method.upper(), address, text)).seconds < 1.5, where  # type: ignore[misc]
            assert found.answer.status < 500, where
            assert found.answer.status != 429, where
            # What was taken is shown as it was sent.
            assert found.answer.status < 300 or len(found.answer.content) < 100_000, where


@pytest.mark.parametrize(("path", "name"), _QUERIES)
def test_it_looks_at_no_query_for_longer_than_its_length_asks_for(api: Api, ids: dict[str, str], path: str, name: str) -> None:
    address = path.replace("{id}", ids.get(path.partition("/")[0], "src_" + 32 * "0"))
    for filler, make in TEXTS.items():
        query = quote(make(14_000))[:14_000].rpartition("%")[0] or quote(make(14_000))[:14_000]
        found = cost(lambda query=query: api.get(f"{address}?{name}={query}"))  # type: ignore[misc]
        where = f"{filler}: {found.steps:,} steps, {found.seconds:.2f} s, {found.answer.status}"
        assert found.steps < _STEPS, where
        assert found.seconds < 0.5, where
        assert found.answer.status < 500, where


# --- the largest body of all --------------------------------------------------------------------------------------------


_DATA, _EVENTS = '{"events":[{"type":"a.b","data":%s}]}', '{"events":%s}'


@pytest.mark.parametrize(("around", "name"), [*((_DATA, name) for name in [*TEXTS, *VALUES]), *((_EVENTS, name) for name in VALUES)])
def test_it_reads_a_batch_of_ten_megabytes_in_proportion(api: Api, name: str, around: str) -> None:
    def post(size: int) -> Any:
        value = json.dumps(TEXTS[name](size)) if name in TEXTS else VALUES[name](size)
        return api.post("events/batch", (around % value).encode()[:MAX_BATCH_BYTES])

    answer = grows_no_faster(post, MAX_BATCH_BYTES - 100)
    assert answer.status in (400, 413, 422, 207), answer.text[:300]
    assert len(answer.content) < 500_000


def test_it_tells_of_a_thousand_bad_events_in_a_bounded_answer(api: Api) -> None:
    """Each has all that can be wrong, and ten thousand names that no event has."""
    bad = '{"id":" ","type":" ","subject":"","timestamp":"",' + ",".join(f'"{number}":0' for number in range(1000)) + "}"
    found = cost(lambda: api.post("events/batch", ('{"events":[' + ",".join([bad] * 1000) + "]}").encode()))
    assert found.answer.status == 207
    assert len(found.answer.json["data"]) == 1000
    assert len(found.answer.content) < 1_000_000
    first = found.answer.json["data"][0]["errors"]
    assert len(first) == 6
    assert first[-1]["detail"].startswith("And ")


def test_it_counts_headers_before_it_looks_at_them(api: Api, ids: dict[str, str]) -> None:
    headers = {f"X-{number}": "v" for number in range(20_000)}
    found = cost(lambda: api.post("endpoints", {"url": "https://receiver.example/hook", "headers": headers}))
    assert found.answer.status == 422
    assert found.answer.pointers == ["/headers"]
    assert "At most 20 headers" in found.answer.text
    assert found.steps < _STEPS
    assert found.seconds < QUICK_S * 4


def test_it_tells_the_first_of_many_mistakes(api: Api, ids: dict[str, str]) -> None:
    answer = api.post("subscriptions", {"endpoint": ids["endpoints"], "dids": ["no"] * 10_000})
    assert answer.status == 422
    assert answer.pointers[:2] == ["/dids/0", "/dids/1"]
    assert len(answer.pointers) <= 51


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 5000, "[" + "9" * 5000 + "]", '{"a":' + "1" * 4301 + "}"])
def test_it_says_of_a_number_with_too_many_digits_what_to_do(api: Api, text: str) -> None:
    answer = api.post("events", ('{"type":"a.b","data":' + text + "}").encode())
    assert answer.problem == (400, "invalid_json")
    assert "too many digits: write it as a string" in answer.text
