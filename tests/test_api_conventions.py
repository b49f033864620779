"""What every answer has, whatever was asked: problem details, request ids, queries that are known, methods, and versions."""

import re
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404

from delivery import ingest
from delivery.ingest import NotStored
from jetrelay.api import problems
from tests.api import Api, api_of
from tests.builders import make_endpoint, make_subscription

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

NO_ID = "0" * 32


@pytest.fixture
def api() -> Api:
    return api_of()


def failing_with(error: Exception, api: Api, monkeypatch: pytest.MonkeyPatch) -> Any:
    class Refusing:
        def publish(self, *_: Any) -> Any:
            raise error

    monkeypatch.setattr(ingest, "publisher", Refusing())
    return api.post("events", {"type": "a", "data": 1})


def test_every_error_is_a_problem_with_what_to_change(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = make_endpoint(state="paused")
    etag = {"If-Match": '"another"'}
    limited = api_of(rate_limit_per_s=1)
    # A new window may begin meanwhile.
    refused = next(answer for answer in (limited.get("endpoints") for _ in range(25)) if answer.status != 200)
    answers = {
        (400, "invalid_json"): api.post("endpoints", b"{"),
        (400, "invalid_query"): api.get("endpoints?limit=0"),
        (400, "unknown_query"): api.get("endpoints?size=1"),
        (400, "invalid_idempotency_key"): api.post("endpoints", {}, headers={"Idempotency-Key": "é"}),
        (401, "no_key"): Api().get("endpoints"),
        (401, "invalid_key"): Api("jr_x").get("endpoints"),
        (403, "missing_scope"): api_of(scopes=["events:read"]).get("endpoints"),
        (404, "not_found"): api.get(f"endpoints/ep_{NO_ID}"),
        (405, "method_not_allowed"): api.request("PUT", "endpoints"),
        (409, "wrong_state"): api.post(f"endpoints/{endpoint.public_id}/enable"),
        (412, "changed_meanwhile"): api.patch(f"endpoints/{endpoint.public_id}", {"name": "x"}, headers=etag),
        (413, "too_large"): api.post("events", b'"' + b"x" * 300_000 + b'"'),
        (415, "unsupported_content_encoding"): api.post("endpoints", b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
        (415, "unsupported_media_type"): api.post("endpoints", b"<a/>", content_type="application/xml"),
        (422, "invalid"): api.post("endpoints", {"url": 1}),
        (429, "too_many_requests"): refused,
        (500, "internal"): failing_with(RuntimeError("the words of a bug"), api, monkeypatch),
        (503, "not_stored"): failing_with(NotStored("No."), api, monkeypatch),
    }
    for (status, code), answer in answers.items():
        body = answer.json
        assert (answer.status, body["status"], body["code"]) == (status, status, code)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert set(body) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
        assert body["request_id"] == answer.headers["X-Request-Id"]
        # Whole words that end; where a field is at fault, it is named.
        assert re.fullmatch(r"(?s).{10,}[.…)]|.*jr_…", body["detail"]), body["detail"]
        assert all(set(error) == {"pointer", "detail"} for error in body["errors"])
        assert answer.headers["Cache-Control"] == "no-store"
        assert "the words of a bug" not in answer.text


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OperationalError("secret host db.internal"), (503, "unavailable")),
        (InterfaceError("secret"), (503, "unavailable")),
        (Http404("secret"), (404, "not_found")),
        (PermissionDenied("secret"), (403, "forbidden")),
        (KeyError("secret"), (500, "internal")),
    ],
)
def test_what_goes_wrong_inside_stays_inside(error: Exception, problem: tuple[int, str], api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = failing_with(error, api, monkeypatch)
    assert answer.problem == problem
    assert "secret" not in answer.text
    assert ("Retry-After" in answer.headers) == (problem[0] == 503)


def test_every_request_has_an_id_of_its_own(api: Api) -> None:
    ids = [api.get("endpoints").headers["X-Request-Id"] for _ in range(3)] + [Api().get("nothing").headers["X-Request-Id"]]
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", id) for id in ids)


# --- Methods and places --------------------------------------------------------------------------------------------


def test_a_method_that_there_is_not_is_told_which_there_are(api: Api) -> None:
    for method, path, allowed in (
        ("PUT", "endpoints", "GET, POST, OPTIONS"),
        ("DELETE", "endpoints", "GET, POST, OPTIONS"),
        ("GET", f"endpoints/ep_{NO_ID}/pause", "POST, OPTIONS"),
        ("TRACE", "stats", "GET, OPTIONS"),
        ("BREW", "stats", "GET, OPTIONS"),
        ("POST", f"events/evt_{NO_ID}", "GET, OPTIONS"),
    ):
        answer = api.request(method, path)
        assert answer.problem == (405, "method_not_allowed")
        assert answer.headers["Allow"] == allowed
        assert allowed in answer.json["detail"]
    assert (api.request("OPTIONS", "endpoints").status, api.request("OPTIONS", "endpoints").headers["Allow"]) == (204, "GET, POST, OPTIONS")


def test_a_place_that_there_is_not_says_so_to_everybody(api: Api) -> None:
    for who in (api, Api()):
        for path in ("", "nothing", "endpoint", "endpoints/x/y/z", "v1/endpoints", "endpoints/ep_x/explode", "%00", "%FF", "..%2F"):
            answer = who.get(path)
            assert (answer.problem, path) == ((404, "not_found"), path)
            assert answer.headers["Content-Type"] == "application/problem+json"
    assert "no slash at their end" in api.get("endpoints/").json["detail"]
    assert api.request("OPTIONS", "nothing").status == 404


@pytest.mark.parametrize("resource", ["endpoints", "subscriptions", "sources", "events", "deliveries", "replays", "keys"])
def test_an_id_is_taken_in_its_one_spelling(resource: str, api: Api) -> None:
    endpoint = make_endpoint()
    hexes = endpoint.pk.hex
    for id in (
        hexes,
        f"EP_{hexes}",
        f"ep_{hexes.upper()}",
        str(endpoint.pk),
        f"dlv_{hexes}",
        f"ep_{hexes}%20",
        f"ep_{hexes}%00",
        f"ep_{hexes}%0A",
        "ep_",
        "1",
        "%F0%9F%98%80",
    ):
        answer = api.get(f"{resource}/{id}")
        assert (answer.problem, id) == ((404, "not_found"), id)
        assert answer.json["detail"].startswith("There is no ")


# --- Queries -------------------------------------------------------------------------------------------------------


def test_a_query_parameter_that_is_not_known_is_refused_and_not_ignored(api: Api) -> None:
    for path, advice in (
        ("endpoints?sate=active", "use limit, cursor, state"),
        ("deliveries?page=2", "use limit, cursor, endpoint, event, state, status, collection, subject, since, until"),
        (f"endpoints/ep_{NO_ID}?x=1", "this takes none"),
        ("stats?limit=1", "use minutes"),
        ("endpoints?LIMIT=1", "use limit"),
        ("endpoints?%00=1", "use limit"),
        ("endpoints?=1", "use limit"),
    ):
        answer = api.get(path)
        assert (answer.problem, path) == ((400, "unknown_query"), path)
        assert advice in answer.json["detail"]
    assert api.post("endpoints?dry_run=1", {}).problem == (400, "unknown_query")


def test_a_query_parameter_stands_once_and_without_nul(api: Api) -> None:
    for path in ("endpoints?limit=1&limit=1", "endpoints?limit=1&limit=2", "events?subject=%00", "events?type=a%00b", "endpoints?state=active%00"):
        assert (api.get(path).problem, path) == ((400, "invalid_query"), path)


# --- Versions ------------------------------------------------------------------------------------------------------


def test_a_change_of_what_has_changed_meanwhile_is_refused(api: Api) -> None:
    endpoint, subscription = make_endpoint(), make_subscription()
    source = api.post("sources", {"name": "mine"}).json
    for path, change in (
        (f"endpoints/{endpoint.public_id}", {"name": "first"}),
        (f"subscriptions/{subscription.public_id}", {"active": False}),
        (f"sources/{source['id']}", {"keep_unmatched": False}),
    ):
        read = api.get(path)
        etag = read.headers["ETag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
        first = api.patch(path, change, headers={"If-Match": etag})
        assert first.status == 200
        assert first.headers["ETag"] == api.get(path).headers["ETag"] != etag
        for method in ("PATCH", "DELETE") if "sources" not in path else ("PATCH",):
            late = api.request(method, path, change if method == "PATCH" else b"", headers={"If-Match": etag})
            assert late.problem == (412, "changed_meanwhile")
        # Strong comparison (RFC 9110, 13.1.1): a weak one matches nothing.
        assert api.patch(path, {}, headers={"If-Match": f"W/{first.headers['ETag']}"}).status == 412
        for given in ("*", "{}", '"other", {}'):
            assert api.patch(path, {}, headers={"If-Match": given.format(api.get(path).headers["ETag"])}).status == 200


def test_what_nobody_set_does_not_change_a_version(api: Api) -> None:
    """Two clients that both change the settings must not undo each other's work; a breaker that opens is no such change."""
    endpoint = make_endpoint()
    path = f"endpoints/{endpoint.public_id}"
    etag = api.get(path).headers["ETag"]
    api.post(f"{path}/pause")
    assert api.get(path).headers["ETag"] == etag
    api.post("subscriptions", {"endpoint": endpoint.public_id, "types": ["a"]})
    assert api.get(path).headers["ETag"] != etag


def test_the_words_of_an_error_come_in_a_bounded_number() -> None:
    assert problems._sum([]) == "The body cannot be used."
    assert problems._sum([("/a", "Wrong."), ("/b", "Wrong.")]) == "/a: Wrong. (and 1 more)"
