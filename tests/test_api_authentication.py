"""Who may ask the API: keys that open it, scopes that each act takes, and nothing secret in any log."""

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone
from pytest_django import Settings

from jetrelay.api import problems, urls
from jetrelay.api.views import NotThere
from subscriptions import keys
from subscriptions.models import ApiKey
from tests.api import NO_BODY, ROOT, Api, api_of, read
from tests.builders import make_api_key, make_endpoint, make_tenant
from tests.receiver import Handler, Received, Receiver

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

ID = "ep_" + "0" * 32


def test_a_key_opens_the_api() -> None:
    answer = api_of().get("endpoints")
    assert (answer.status, answer.json["data"]) == (200, [])


@pytest.mark.parametrize("header", ["bearer {}", "BEARER {}", "Bearer  {} "])
def test_the_scheme_may_be_written_in_any_case(header: str) -> None:
    _, text = make_api_key()
    assert Api().get("endpoints", headers={"Authorization": header.format(text)}).status == 200


def test_nobody_enters_without_a_key() -> None:
    answer = Api().get("endpoints")
    assert answer.problem == (401, "no_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Bearer jr_" in answer.json["detail"]


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer jr_",
        "Bearer x",
        "Bearer jr_{}x",
        "Basic {}",
        "{}",
        "Token {}",
        "Bearer {} {}",
        "Bearer jr_é",
        "Bearer \x00",
        "Bearer " + "jr_" * 5000,
    ],
)
def test_what_is_no_key_opens_nothing(header: str) -> None:
    _, text = make_api_key()
    answer = Api().get("endpoints", headers={"Authorization": header.format(text, text)})
    assert answer.problem == (401, "invalid_key")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert text not in answer.text


@pytest.mark.parametrize("over", [{"expires_at": timezone.now() - timedelta(days=1)}, {"revoked_at": timezone.now()}])
def test_a_key_that_has_ended_opens_nothing(over: dict[str, Any]) -> None:
    _, text = make_api_key(**over)
    assert Api(text).get("endpoints").problem == (401, "invalid_key")


def test_a_key_ends_while_it_is_used() -> None:
    api = api_of()
    assert api.get("endpoints").status == 200
    assert api.key
    keys.revoke(api.key)
    assert api.get("endpoints").status == 401


def test_both_keys_open_while_one_is_rotated() -> None:
    old = api_of()
    assert old.key
    _, text = keys.rotate(old.key, timedelta(hours=1))
    assert [api.get("endpoints").status for api in (old, Api(text))] == [200, 200]
    ApiKey.objects.filter(pk=old.key.pk).update(expires_at=timezone.now())
    keys.forget()
    assert [api.get("endpoints").status for api in (old, Api(text))] == [401, 200]


def test_each_key_sees_its_own_tenant() -> None:
    mine, theirs = make_endpoint(), make_endpoint(tenant=make_tenant(slug="other"))
    assert api_of().get("endpoints").ids == [mine.public_id]
    assert api_of(theirs.tenant).get("endpoints").ids == [theirs.public_id]


def test_a_session_of_the_dashboard_does_not_open_the_api() -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ada"))
    assert read(client.get(f"{ROOT}endpoints")).problem == (401, "no_key")


def test_a_key_does_not_open_the_dashboard() -> None:
    _, text = make_api_key()
    assert Client().get("/deliveries/", headers={"Authorization": f"Bearer {text}"}).status_code == 302


# --- Scopes --------------------------------------------------------------------------------------------------------


def acts() -> list[tuple[str, str, str]]:
    """(method, path, scope) of all that the API does, from its own URLs."""
    found = [(str(pattern.pattern).replace("<str:id>", ID), view) for pattern, view in patterns()]
    return [(method, path, scope) for path, view in found for method, scope in view.scopes.items()]


def patterns() -> list[tuple[URLPattern, Any]]:
    return [(pattern, pattern.callback.view_class) for pattern in urls.urlpatterns]  # type: ignore[attr-defined]


@pytest.mark.parametrize("scope", keys.SCOPES)
def test_every_act_takes_its_scope_and_no_other(scope: str) -> None:
    without, alone = api_of(without=scope), api_of(scopes=[scope])
    for method, path, wanted in acts():
        body = {} if method in ("POST", "PATCH") else NO_BODY
        if wanted == scope:
            answer = without.request(method, path, body)
            assert (answer.problem, method, path) == ((403, "missing_scope"), method, path)
            assert scope in answer.json["detail"]
            assert alone.request(method, path, body).status not in (401, 403)
        else:
            assert alone.request(method, path, body).problem == (403, "missing_scope")


def test_every_view_but_the_last_asks_for_a_scope_and_every_scope_is_asked_for() -> None:
    every = [view for _, view in patterns()]
    assert [view for view in every if not view.scopes] == [NotThere]
    assert {scope for view in every for scope in view.scopes.values()} == set(keys.SCOPES)
    for view in every[:-1]:
        handlers = {method.upper() for method in ("get", "post", "put", "patch", "delete") if hasattr(view, method)}
        assert handlers == set(view.scopes), view


# --- Nothing secret in a log ---------------------------------------------------------------------------------------


def test_nothing_secret_stands_in_any_log(caplog: pytest.LogCaptureFixture, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)

    def leak(handler: Handler, received: Received) -> None:
        handler.reply(500, repr(dict(received.headers)).encode())

    receiver.answer = leak
    api, secret = api_of(), "whsec_" + "c2VjcmV0" * 4
    secrets = [api.text, secret, "bearer-token-of-mine", "value-of-my-header"]
    body = {"url": receiver.url, "secret": secret, "bearer_token": secrets[2], "headers": {"X-Key": secrets[3]}}
    made = api.post("endpoints", body, headers={"Idempotency-Key": "once"})
    path = f"endpoints/{made.json['id']}"
    new = api.post(f"{path}/rotate-secret").json["secret"]
    for act in ("verify", "test", "reveal-secret"):
        api.post(f"{path}/{act}")
    api.post("endpoints", body | {"secret": "whsec_too-short", "bearer_token": "a b", "headers": {"Host": secrets[3], "X": "é" + secrets[3]}})
    api.patch(path, {"bearer_token": secrets[2] + " x", "headers": {"X-Key": secrets[3] + "\n"}})
    other = api.post("keys", {"name": "x", "scopes": ["events:read"]}).json["key"]
    for text in (api.text, other):
        Api(f"{text}x").get("keys")

    # And where the server itself fails.
    def fail(*_: Any) -> Any:
        raise RuntimeError("some failure")

    monkeypatch.setattr("jetrelay.api.endpoints.check", fail)
    failed = api.post("endpoints", body)
    assert failed.problem == (500, "internal")
    assert "some failure" not in failed.text
    assert [record.name for record in caplog.records if "some failure" in (record.exc_text or str(record.exc_info))] == [problems.__name__]
    assert failed.json["request_id"] in caplog.text
    # The formatter that the installation has, and every argument of every record.
    everything = caplog.text + "".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    for each in [*secrets, new, other, "too-short"]:
        assert each not in everything
