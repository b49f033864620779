"""What a request gets that no view has seen. Of a database that is away: test_database_away.py."""

import pytest
from django.test import Client

NAMES = [("relay.example", "relay.example"), ("Relay.Example:8443", "relay.example"), ("192.0.2.7:8000", "192.0.2.7"), ("[2001:db8::1]:80", "[2001:db8::1]")]
PAGES = ("/", "/login/", "/admin/", "/inbox/token", "/nowhere/")


@pytest.mark.parametrize(("host", "name"), NAMES)
def test_an_unknown_host_is_told_what_to_set(host: str, name: str) -> None:
    for path in PAGES:
        answer = Client().get(path, HTTP_HOST=host)
        assert (path, answer.status_code, answer.headers["Cache-Control"]) == (path, 400, "no-store")
        for words in ("<h1>Refused</h1>", f"asked for as {name}, and", "JETRELAY_PUBLIC_URL", f"add {name} to JETRELAY_ALLOWED_HOSTS"):
            assert words in answer.content.decode()


def test_a_client_of_the_api_is_told_as_it_is_told_all_else() -> None:
    answer = Client().get("/api/v1/endpoints", HTTP_HOST="relay.example")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    problem = answer.json()
    assert (problem["code"], problem["status"], problem["request_id"]) == ("unknown_host", 400, answer.headers["X-Request-Id"])
    assert "add relay.example to JETRELAY_ALLOWED_HOSTS" in problem["detail"]


@pytest.mark.parametrize("host", ["<b>", "a b", "relay.example/<script>", '"><script>', "é", "\u202eexample", ":80", "a" * 10_000 + "/"])
def test_what_is_no_host_is_not_shown(host: str) -> None:
    answer = Client().get("/", HTTP_HOST=host)
    assert answer.status_code == 400
    assert "Host header is no name of a host" in answer.content.decode()
    assert host not in answer.content.decode()


@pytest.mark.django_db
def test_a_form_that_nobody_can_read_is_refused_in_words() -> None:
    answer = Client().post("/login/", {f"field{number}": "" for number in range(2000)})
    assert answer.status_code == 400
    assert "Jetrelay cannot read this request" in answer.content.decode()
    # The page needs nothing of the site, and is as well kept as its others.
    assert "default-src" in answer.headers["Content-Security-Policy"]
