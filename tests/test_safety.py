"""What browsers are told with every answer, whoever makes it, and what Django's own checks say of an installation that is open to others."""

import json
import os
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from jetrelay import safety
from jetrelay.api.express import _HEADERS as EXPRESS
from jetrelay.dashboard import urls
from jetrelay.dashboard.people.brake import PER_NAME
from jetrelay.front import application
from tests.hostile_rows import make_hostile_rows
from tests.test_members import every_pattern
from tests.whole import ROOT

NAMES = ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy")
PASSWORD = "a-long-password"
HTTPS = {"JETRELAY_PUBLIC_URL": "https://relay.example.com"}


def missing(headers: Any) -> list[str]:
    return [name for name in NAMES if not headers.get(name)]


@pytest.fixture
def ada(client: Client, cheap_passwords: None) -> Client:
    client.force_login(User.objects.create_superuser("ada", password=PASSWORD))
    client.raise_request_exception = False
    return client


@pytest.mark.django_db
def test_every_answer_has_them(ada: Client) -> None:
    rows, found = make_hostile_rows(), {}
    addresses = []
    for each in every_pattern(urls.urlpatterns):
        addresses.append(reverse(str(each.name), kwargs={key: rows.named_by(kind) for key, kind in each.pattern.converters.items()}))
    addresses += [f"/admin/{model._meta.app_label}/{model._meta.model_name}/" for model in admin.site._registry]
    addresses += ["/admin/", "/admin/login/", "/admin/password_change/", "/login/", "/logout/", "/welcome/MQ/x/", "/theme/", f"/inbox/{rows.inbox.token}"]
    addresses += ["/health", "/metrics", "/api/schema", "/api/docs/", "/api/v1", "/api/v1/events", "/api/v1/nowhere", "/nowhere/", "/a\0b"]
    addresses += ["/static/jetrelay.css"]
    for address in addresses:
        response = ada.get(address)
        found[address] = (response.status_code, missing(response.headers))
        if response.streaming:
            # Of a file. `close` would end the connection that the test's rows are on.
            for close in response._resource_closers:  # type: ignore[attr-defined]
                close()
    assert {address: absent for address, (_, absent) in found.items() if absent} == {}
    statuses = {status for status, _ in found.values()}
    assert {200, 302, 400, 401, 404, 405} <= statuses
    assert not [address for address, (status, _) in found.items() if status >= 500]
    assert found["/static/jetrelay.css"][0] == found["/health"][0] == 200
    assert not missing(ada.get("/login/", headers={"Host": "evil.example"}).headers)


@pytest.mark.django_db
def test_a_failure_has_them_too(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("jetrelay.health._problems", broken)
    response = ada.get("/health")
    assert (response.status_code, missing(response.headers)) == (500, [])


def test_lanes_in_front_of_django_have_them() -> None:
    assert missing(dict(EXPRESS)) == []
    for path in ("/login/", "/api/v1/events"):
        answers: list[tuple[int, dict[str, str]]] = []

        class Protocol:
            def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
                answers.append((status, dict(headers)))  # noqa: B023 - used at once

        application._refuse(Protocol(), path, HTTPStatus.SERVICE_UNAVAILABLE, "Later.")
        ((status, headers),) = answers
        assert (status, missing(headers), headers["Retry-After"]) == (503, [], "5")


def test_hsts_is_for_https_alone(settings: Settings) -> None:
    assert "Strict-Transport-Security" not in safety.HEADERS
    settings.SECURE_HSTS_SECONDS = 100
    assert safety._headers()["Strict-Transport-Security"] == "max-age=100"


@pytest.mark.django_db
def test_pages_move_to_https_and_what_comes_from_inside_does_not(client: Client, settings: Settings, tmp_path: Path) -> None:
    names = ("SECURE_SSL_REDIRECT", "SECURE_SSL_HOST", "SECURE_REDIRECT_EXEMPT")
    code = f"import json; from django.conf import settings; print(json.dumps([getattr(settings, name) for name in {names}]))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=production(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=60)
    for name, value in zip(names, json.loads(done.stdout), strict=True):
        setattr(settings, name, value)
    moved = client.get("/deliveries/?state=dead")
    assert (moved.status_code, moved["Location"]) == (301, "https://relay.example.com/deliveries/?state=dead")
    assert [client.get(path).status_code for path in ("/health", "/api/v1/events", "/inbox/x")] == [200, 401, 404]


def production(folder: Path, **over: str) -> dict[str, str]:
    """An installation that is open to others. Nothing is asked of the engines."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("JETRELAY_", "WEBHOOK_", "JETSTREAM_"))}
    urls = {"DATABASE_URL": "postgres://jetrelay@127.0.0.1:9/jetrelay", "BROKER_URL": "redis://127.0.0.1:9/0"}
    keys = {"SECRET_KEY": "Kx7" * 20 + "abcdefg", "JETRELAY_ENCRYPTION_KEYS": os.environ["JETRELAY_ENCRYPTION_KEYS"]}
    where = {"JETRELAY_DATA_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "jetrelay.settings", "JETRELAY_TRUSTED_PROXIES": "10.0.0.0/8"}
    return own | urls | keys | where | HTTPS | over


@pytest.mark.parametrize("over", [{}, {"JETRELAY_TRUSTED_PROXIES": ""}, {"JETRELAY_HSTS_SECONDS": "0"}])
def test_django_has_nothing_to_say_against_it(over: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, env=production(tmp_path, **over), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "no issues" in done.stdout + done.stderr) == (0, True), done.stderr


def test_django_has_something_to_say_where_the_key_is_poor(tmp_path: Path) -> None:
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, env=production(tmp_path, SECRET_KEY="short"), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "security.W009" in done.stderr) == (1, True)


# --- guessing, in the admin ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_session_left_open_does_not_give_the_password_away(ada: Client, one_window: Any) -> None:
    cache.clear()
    new = {"new_password1": "another-long-one", "new_password2": "another-long-one"}
    tries = [ada.post("/admin/password_change/", {"old_password": "guess", **new}).status_code for _ in range(PER_NAME + 1)]
    assert tries == [200] * PER_NAME + [429]
    # And the right one does not get through either, until the window is over.
    assert ada.post("/admin/password_change/", {"old_password": PASSWORD, **new}).status_code == 429


@pytest.mark.django_db
def test_a_new_password_that_is_too_short_is_no_guess(ada: Client, one_window: Any) -> None:
    cache.clear()
    for _ in range(PER_NAME + 1):
        response = ada.post("/admin/password_change/", {"old_password": PASSWORD, "new_password1": "x", "new_password2": "x"})
        assert response.status_code == 200
    assert (
        ada.post("/admin/password_change/", {"old_password": PASSWORD} | dict.fromkeys(("new_password1", "new_password2"), "quite-another-1")).status_code
        == 302
    )


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["post", "put", "patch"])
@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_no_method_goes_past_the_brake(method: str, path: str, client: Client, cheap_passwords: None, one_window: Any) -> None:
    cache.clear()
    for _ in range(PER_NAME):
        client.generic(method.upper(), path, "username=ada&password=x", "application/x-www-form-urlencoded")
    assert client.generic(method.upper(), path, "username=ada&password=x", "application/x-www-form-urlencoded").status_code == 429
