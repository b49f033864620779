"""Bad input of all kinds: always refused with what to change, never an error of ours, and nothing stored."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import serializers
from django.test import Client
from pytest_django import Settings

from delivery.models import Delivery, Event
from delivery.sources.api import MAX_EVENT
from subscriptions.models import AuditEntry, Endpoint, Source, Subscription
from tests.api import Answer, Api, api_of
from tests.builders import make_api_source, make_endpoint, make_source, make_subscription

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


@pytest.fixture
def api(settings: Settings) -> Api:
    # What is taken by mistake is not to be asked whether it is there.
    settings.JETRELAY_VERIFY_ENDPOINTS = False
    return api_of()


@pytest.fixture
def places(api: Api) -> Iterator[dict[str, tuple[str, str]]]:
    """Method and path of what takes a body, by name; all that is stored has to be the same afterwards."""
    make_source()
    endpoint, subscription, source = make_endpoint(), make_subscription(), make_api_source()
    before = stored()
    yield {
        "event": ("POST", "events"),
        "batch": ("POST", "events/batch"),
        "endpoint": ("POST", "endpoints"),
        "change": ("PATCH", f"endpoints/{endpoint.public_id}"),
        "subscription": ("POST", "subscriptions"),
        "subscription change": ("PATCH", f"subscriptions/{subscription.public_id}"),
        "source change": ("PATCH", f"sources/{source.public_id}"),
        "replay": ("POST", "replays"),
        "key": ("POST", "keys"),
    }
    assert stored() == before


def stored() -> str:
    """Everything that a body could have changed. (Sources are made when they are asked for.)"""
    models = (Event, Delivery, Endpoint, Subscription, Source, AuditEntry)
    return serializers.serialize("json", [row for model in models for row in model.objects.order_by("pk")])


def refused(answer: Answer, *problems: tuple[int, str]) -> None:
    assert answer.problem in problems, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(answer.json["detail"]) > 10
    # Whatever was sent, it is not sent back whole.
    assert len(answer.content) < 20_000


# --- What is no JSON that is taken ---------------------------------------------------------------------------------

# Something else, and what is said about it.
NO_JSON: list[tuple[bytes, str]] = [
    (b"{", "not valid JSON"),
    (b"hello", "not valid JSON"),
    (b"{'type': 'a'}", "not valid JSON"),
    (b'{"type": "a",}', "not valid JSON"),
    (b'{"type": "a"} {"type": "b"}', "not valid JSON"),
    (b'{"type": "a\nb"}', "not valid JSON"),
    (b'{"type": "a\x00b"}', "not valid JSON"),
    (b"\x00", "not valid JSON"),
    (b"type=a&data=1", "not valid JSON"),
    (b"<a/>", "not valid JSON"),
    (b" \n ", "empty"),
    (b'\xef\xbb\xbf{"type": "a", "data": 1}', "BOM"),
    (b'{"type": "\xff"}', "not UTF-8"),
    (b'{"type": "\xc0\xaf"}', "not UTF-8"),
    (b'{"type": "\xed\xa0\x80"}', "not UTF-8"),
    ('{"type": "a"}'.encode("utf-16"), "not UTF-8"),
    (b'{"type": "a", "type": "b"}', "'type' stands twice"),
    (b'{"type": "a", "data": {"x": {"y": 1, "y": 1}}}', "'y' stands twice"),
    (b'{"url": "https://a.example/", "url": "https://b.example/"}', "'url' stands twice"),
    (b'{"data": NaN}', "NaN is not JSON"),
    (b'{"data": [Infinity]}', "Infinity is not JSON"),
    (b'{"data": -Infinity}', "Infinity is not JSON"),
    (b'{"data": 1e999}', "too large"),
    (b'{"timeout_s": -1e999}', "too large"),
    (b'{"data": ' + b"9" * 5000 + b"}", "too many digits"),
    (b'{"data": "\\ud800"}', "other half"),
    (b'{"name": "\\udc00 x"}', "other half"),
    (b'{"\\ud83d": 1}', "other half"),
    (b'{"data": ' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64"),
    (b'{"data": ' * 5000 + b"1" + b"}" * 5000, "deeper than 64"),
    (b"[" * 100_000, "deeper than 64"),
]


def test_what_is_no_json_is_refused_everywhere(api: Api, places: dict[str, tuple[str, str]]) -> None:
    for name, (method, path) in places.items():
        for body, words in NO_JSON:
            answer = api.request(method, path, body)
            assert (answer.problem, name, body[:60]) == ((400, "invalid_json"), name, body[:60]), answer.text
            assert words in answer.json["detail"], (body[:60], answer.json["detail"])
            refused(answer, (400, "invalid_json"))


def test_what_is_no_object_is_refused_everywhere(api: Api, places: dict[str, tuple[str, str]]) -> None:
    for name, (method, path) in places.items():
        for body in (b"[]", b"1", b"null", b"true", b'"x"', b'[{"type": "a", "data": 1}]', b"-0.0", b'[[["x"]]]'):
            answer = api.request(method, path, body)
            assert (answer.problem, name, body) == ((422, "invalid"), name, body), answer.text
            assert answer.pointers == ["/events" if name == "batch" else ""]
            assert "object" in answer.json["detail"] or name == "batch"


def test_other_kinds_of_content_are_refused(api: Api, places: dict[str, tuple[str, str]]) -> None:
    body = b'{"type": "a", "data": 1}'
    for method, path in places.values():
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "application/json2",
            "*/*",
            "json",
            "x" * 500,
        ):
            refused(api.request(method, path, body, content_type=kind), (415, "unsupported_media_type"))


def test_json_may_say_more_of_itself(api: Api) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/json;charset=latin-1"):
        assert api.post("events", {"type": "a", "data": 1}, content_type=kind).status == 202


def test_bodies_that_are_too_large_are_refused(api: Api, places: dict[str, tuple[str, str]]) -> None:
    for name, (method, path) in places.items():
        most = {"batch": 10 * 1024 * 1024, "event": MAX_EVENT, "source change": 256 * 1024, "replay": 256 * 1024, "key": 256 * 1024}.get(name, 1024 * 1024)
        for size in (most + 2048, 11 * 1024 * 1024):
            answer = api.request(method, path, b'{"data":"' + b"x" * size + b'"}')
            refused(answer, (413, "too_large"))
    answer = api.post("events", b'{"type":"a","data":"' + b"x" * (MAX_EVENT - 21) + b'"}')
    refused(answer, (413, "too_large"))
    assert "262,145 bytes: at most 262,144" in answer.json["detail"]


def test_an_empty_body_is_an_empty_object(api: Api, places: dict[str, tuple[str, str]]) -> None:
    for name, pointers in (
        ("event", ["/type", "/data"]),
        ("batch", ["/events"]),
        ("endpoint", ["/url"]),
        ("subscription", ["/endpoint"]),
        ("key", ["/name", "/scopes"]),
    ):
        method, path = places[name]
        assert (api.request(method, path).pointers, name) == (pointers, name)


# --- Fields --------------------------------------------------------------------------------------------------------

# What no field but `data` takes.
STRANGE: list[Any] = [{}, {"a": 1}, [[]], [{}], [None], True, "\u0000", "a\u0000b", "a\nb", "\u007f", 10**400, -(10**30), 1e308]
NUMBERS = ["timeout_s", "max_in_flight", "rate_limit_per_s", "batch_size", "batch_wait_ms"]
BAD: dict[str, list[Any]] = {
    "url": [
        *(
            None,
            "",
            " ",
            1,
            [],
            "example.com",
            "ftp://a.example/",
            "https://",
            "https:///x",
            "https://a b.example/",
            "https://user:pass@a.example/",
            "javascript:1",
        ),
        *(
            "https://a.example:0/",
            "https://a.example:99999/",
            "https://a.example:x/",
            "http://[::1",
            "http://256.1.1.1/",
            "http://1/",
            "http://0x7f.1/",
            "https://a.example/\n",
        ),
        *(
            "https://" + "a" * 64 + ".example/",
            "https://a..example/",
            "https://é" + "x" * 70 + "/",
            "https://a.example/" + "x" * 2048,
            "https://a.example/\\..",
            "//a.example/",
        ),
    ],
    "name": [None, 1, [], "", " ", "x" * 101],
    "signature_scheme": [None, 1, [], "", "rsa", "Standard"],
    "bearer_token": [1, [], "", "a b", "é", "x" * 4097],
    "headers": [
        None,
        1,
        "X: y",
        [],
        ["X: y"],
        {"X": None},
        {"X": 1},
        {"X": ["y"]},
        {"": "y"},
        {"X Y": "z"},
        {"X": "a\r\nY: b"},
        {"Authorization": "x"},
        {"webhook-id": "x"},
        *({"X": "é"}, {"Content-Length": "1"}, {"X": "y" * 4097}, {"x" * 101: "y"}, {"X\u0000": "y"}, {"é": "y"}),
    ],
    "timeout_s": [None, "30", 0, -1, 300.1, 0.09, []],
    "max_in_flight": [None, "3", 0, 1001, 1.5, []],
    "rate_limit_per_s": ["3", 0, -1, 100_001, 0.001, []],
    "priority": [None, 1, 2, "", "urgent", "HIGH", []],
    "ordered": [None, 0, 1, "true", "yes", []],
    "batch_size": [None, 0, 101, "2", 1.5, []],
    "batch_wait_ms": [None, -1, 60_001, "2", 0.5, []],
    "retry": [None, 1, "exponential", []],
    "secret": [None, 1, "", "x", "whsec_", "whsec_!!!!", "whsec_YQ==", "x" * 201],
    "subscriptions": [None, 1, "*", {"types": ["a"]}, [None], [1], [[]], [{}], [{"types": ["*"]}] * 101],
}
BAD_RETRY: dict[str, list[Any]] = {
    "strategy": [None, 1, "", "never", []],
    "schedule_s": [None, 1, "1,2", {}, ["1"], [None], [-1], [30 * 86_400 + 1], [1] * 51, [[1]], [True]],
    **{name: [None, "1", -1, 30 * 86_400 + 1, True, []] for name in ("first_s", "step_s", "longest_s")},
    "factor": [None, "2", 0, 0.5, 101, True],
    "count": [None, "2", -1, 51, 1.5, True],
    "jitter_percent": [None, "2", -1, 26, 1.5, True],
    "on": [None, 1, "", "all"],
    "forever": [True],
}


@pytest.mark.parametrize("name", BAD)
def test_a_field_of_an_endpoint_takes_what_it_says_and_nothing_else(name: str, api: Api, places: dict[str, tuple[str, str]]) -> None:
    strange = [value for value in STRANGE if not (name == "ordered" and value is True)]
    for where in ("endpoint", "change"):
        if where == "change" and name in ("secret", "subscriptions"):
            continue
        method, path = places[where]
        for value in BAD[name] + strange:
            if name in ("headers", "retry") and value == {}:
                continue  # none, and nothing of it
            answer = api.request(method, path, {"url": "https://a.example/", name: value})
            refused(answer, (422, "invalid"))
            assert all(pointer == f"/{name}" or pointer.startswith(f"/{name}/") for pointer in answer.pointers), (value, answer.pointers)
            assert all(len(error["detail"]) > 5 for error in answer.json["errors"])


@pytest.mark.parametrize("name", BAD_RETRY)
def test_a_field_of_a_retry_policy_takes_what_it_says_and_nothing_else(name: str, api: Api, places: dict[str, tuple[str, str]]) -> None:
    for where in ("endpoint", "change"):
        method, path = places[where]
        for value in BAD_RETRY[name] + [{"a": 1}, 10**400, "\u0000"]:
            answer = api.request(method, path, {"url": "https://a.example/", "retry": {name: value}})
            refused(answer, (422, "invalid"))
            assert all(pointer == f"/retry/{name}" or pointer.startswith(f"/retry/{name}/") for pointer in answer.pointers), (value, answer.pointers)


BAD_EVENT: dict[str, list[Any]] = {
    "type": ["", "a b", ".a", "*", "a.*", "é", "x" * 318, 1, 1.0, None, [], "a/b", "a\u2028b"],
    "id": ["", "a b", "é", "x" * 201, 1, None, [], "\u200b"],
    "subject": ["", "x" * 513, 1, None, [], "\u001f"],
    "timestamp": [
        "",
        "now",
        0,
        1e12,
        None,
        [],
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T25:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+24:00",
    ],
    "sourc": [1],
}


@pytest.mark.parametrize("name", BAD_EVENT)
def test_a_field_of_an_event_takes_what_it_says_and_nothing_else(name: str, api: Api, places: dict[str, tuple[str, str]]) -> None:
    values = BAD_EVENT[name] + STRANGE
    for value in values:
        answer = api.post("events", {"type": "a", "data": 1, name: value})
        refused(answer, (422, "invalid"))
        assert (answer.pointers, value) == ([f"/{name}"], value)
    for number in range(0, len(values), 10):
        some = values[number : number + 10]
        batch = api.post("events/batch", {"events": [{"type": "a", "data": 1, name: value} for value in some]})
        assert batch.status == 207
        assert [(row["status"], [error["pointer"] for error in row["errors"]]) for row in batch.json["data"]] == [("invalid", [f"/{name}"])] * len(some)


def test_data_may_be_anything_and_comes_back_as_it_was(api: Api) -> None:
    for value in (
        *STRANGE[:-3],
        -(10**30),
        1e308,
        None,
        0,
        "",
        [],
        "😀",
        "\u2028",
        {"": {"": []}},
        {"__proto__": 1},
        "<script>",
        0.1,
        10**25,
        [1] * 5000,
    ):
        text = json.dumps({"type": "a", "data": value}).encode()
        answer = api.post("events", text)
        assert (answer.status, value) == (202, value), answer.text
        assert api.get(f"events/{answer.json['id']}").json["body"]["data"] == value


@pytest.mark.parametrize("name", ["../../etc/passwd", "' OR 1=1 --", "<script>alert(1)</script>", "%s%s%n", "{{7*7}}", "é" * 100, "😀", "\u202ex", "a\u2028b"])
def test_text_that_looks_like_something_else_is_text(name: str, api: Api) -> None:
    made = api.post("sources", {"name": name})
    assert (made.status, made.json["name"]) == (201, name)
    assert name in [row["name"] for row in api.get("sources").json["data"]]


def test_what_stands_in_a_query_or_a_header_is_read_as_strictly(api: Api, places: dict[str, tuple[str, str]]) -> None:
    for path in ("events?type=%FF", "events?subject=%ED%A0%80", "deliveries?collection=%C0%AF", "events?kind=%F0%9F%98%80", "events?operation=" + "x" * 5000):
        assert api.get(path).status in (200, 400)
    for name, values in {
        "Idempotency-Key": ["é", "\x00", "a\x80", "x" * 10_000],
        "If-Match": ["", ",", "é", "\x00", '"' * 1000, "W/"],
        "Accept": ["text/html", "", "nonsense", "*/*;q=0"],
        "X-Forwarded-For": ["' OR 1=1", "\x00"],
    }.items():
        for value in values:
            answer = api.patch(places["change"][1], {"name": ""}, headers={name: value})
            assert 400 <= answer.status < 500
            assert api.post("endpoints", {}, headers={name: value}).status in (400, 422)


def test_a_body_without_an_end_is_not_taken_for_nothing(api: Api) -> None:
    headers: dict[str, Any] = {"HTTP_AUTHORIZATION": f"Bearer {api.text}", "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    answer = Client().post("/api/v1/endpoints", b"{}", "application/json", HTTP_HOST="localhost", **headers)
    assert (answer.status_code, answer.json()["code"]) == (411, "length_required")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "identity,gzip", "x" * 500])
@pytest.mark.parametrize("path", ["endpoints", "events", "events/batch"])
def test_a_body_that_is_compressed_is_said_to_be_that(path: str, coding: str, api: Api) -> None:
    answer = api.post(path, gzip.compress(b"{}"), headers={"Content-Encoding": coding})
    assert answer.problem == (415, "unsupported_content_encoding")
    name = next(each for each in coding.split(",") if each.strip() != "identity").strip()
    assert f"Content-Encoding: {name[:60]}," in answer.json["detail"]
    assert "send it as it is" in answer.json["detail"]


def test_a_body_that_says_it_is_as_it_is_is_read(api: Api) -> None:
    for number, coding in enumerate(("identity", "Identity", "", "identity, identity")):
        assert api.post("sources", {"name": f"source {number}"}, headers={"Content-Encoding": coding}).status == 201
    # And where there is no body, nothing is compressed.
    assert api.get("sources", headers={"Content-Encoding": "gzip"}).status == 200
