"""The signing secret on the pages: for those who enter their password again, and nowhere else."""

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from delivery.rotation import rotate
from jetrelay.dashboard.endpoints import passwords
from subscriptions.models import AuditEntry, Endpoint, Membership
from tests.builders import make_endpoint, make_member

pytestmark = pytest.mark.django_db

PASSWORD = "a-long-password"


@pytest.fixture(autouse=True)
def _no_tries_of_other_tests() -> None:
    cache.clear()


@pytest.fixture
def grace(client: Client) -> Client:
    make_member(username="grace", password=PASSWORD)
    client.login(username="grace", password=PASSWORD)
    return client


def reveal(client: Client, endpoint: Endpoint, password: str = PASSWORD) -> Any:
    return client.post(f"/endpoints/{endpoint.public_id}/secret/", {"password": password})


def rotated(client: Client, endpoint: Endpoint, password: str = PASSWORD, overlap_h: str = "24") -> Any:
    return client.post(f"/endpoints/{endpoint.public_id}/secret/rotate/", {"password": password, "overlap_h": overlap_h})


def test_it_reveals_the_secret_to_who_enters_their_password(grace: Client) -> None:
    endpoint = make_endpoint()
    url = f"/endpoints/{endpoint.public_id}/secret/"
    assert endpoint.secret not in grace.get(url, {"password": PASSWORD}).content.decode()
    assert not AuditEntry.objects.exists()
    response = reveal(grace, endpoint)
    html = response.content.decode()
    assert endpoint.secret in html
    assert 'data-hides-s="30"' in html
    assert f'<noscript><meta http-equiv="refresh" content="30; url=/endpoints/{endpoint.public_id}/"></noscript>' in html
    assert response["Cache-Control"] == "no-store"
    assert PASSWORD not in html
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target, entry.tenant, entry.address) == (
        "user grace",
        "endpoint.reveal-secret",
        endpoint.public_id,
        endpoint.tenant,
        "127.0.0.1",
    )
    assert LogEntry.objects.get().change_message == "Revealed the signing secret"


def test_it_shows_the_one_before_as_long_as_it_is_valid(grace: Client) -> None:
    endpoint = make_endpoint()
    old = endpoint.secret
    new = rotate(endpoint.pk, timedelta(hours=1)).secret
    html = reveal(grace, endpoint).content.decode()
    assert new in html
    assert old in html
    assert "The one before, valid until" in html
    Endpoint.objects.update(previous_secret_expires_at=timezone.now())
    assert old not in reveal(grace, endpoint).content.decode()


def test_it_rotates_with_a_chosen_overlap_and_shows_the_new_one_once(grace: Client) -> None:
    endpoint = make_endpoint()
    old = endpoint.secret
    html = rotated(grace, endpoint, overlap_h="168").content.decode()
    endpoint.refresh_from_db()
    assert endpoint.secret in html
    assert old not in html
    assert "Both this one and the old one sign until" in html
    assert endpoint.previous_secret_expires_at
    assert timedelta(days=6) < endpoint.previous_secret_expires_at - timezone.now() < timedelta(days=8)
    assert list(AuditEntry.objects.values_list("action", "detail")) == [("endpoint.rotate-secret", "old one: 7 days")]
    # A third one would end the oldest at once.
    second = rotated(grace, endpoint).content.decode()
    assert "A rotation of" in second
    assert endpoint.secret == endpoint.refreshed().secret
    assert "The old one is no longer valid." in rotated(grace, endpoint, overlap_h="0").content.decode()
    assert endpoint.refreshed().previous_secret == ""


@pytest.mark.parametrize("overlap_h", ["", "3", "-1", "1e9"])
def test_it_takes_no_other_overlap(overlap_h: str, grace: Client) -> None:
    endpoint = make_endpoint()
    assert "Select a valid choice" in rotated(grace, endpoint, overlap_h=overlap_h).content.decode() or not overlap_h
    assert endpoint.secret == endpoint.refreshed().secret


def test_the_environments_secret_is_not_rotated(grace: Client, settings: Settings) -> None:
    endpoint = make_endpoint(origin="environment")
    settings.WEBHOOK_SECRET = endpoint.secret
    assert "change it in the environment" in rotated(grace, endpoint).content.decode()
    assert endpoint.secret == endpoint.refreshed().secret
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("ask", [reveal, rotated])
def test_a_wrong_password_is_told_and_shows_nothing(ask: Any, grace: Client) -> None:
    endpoint = make_endpoint()
    for wrong in ("", "wrong", f"{PASSWORD} "):
        html = ask(grace, endpoint, wrong).content.decode()
        assert ("This is not your password." in html) == bool(wrong)
        assert endpoint.refreshed().secret not in html
        assert 'value="wrong"' not in html
    assert endpoint.previous_secret == ""
    assert not AuditEntry.objects.exists()


def test_guessing_is_braked_for_both_and_even_the_right_one_waits(grace: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, now = make_endpoint(), 1_790_000_000.0
    monkeypatch.setattr(passwords, "time", lambda: now)
    for number in range(passwords.GUESSES):
        assert "This is not your password." in (reveal if number % 2 else rotated)(grace, endpoint, "wrong").content.decode()
    html = reveal(grace, endpoint).content.decode()
    assert "Too many tries" in html
    assert endpoint.secret not in html
    # Others are not held up, and a minute later neither is grace.
    other = Client()
    make_member(username="hedy", password=PASSWORD)
    other.login(username="hedy", password=PASSWORD)
    assert endpoint.secret in reveal(other, endpoint).content.decode()
    monkeypatch.setattr(passwords, "time", lambda: now + passwords.WINDOW_S)
    assert endpoint.secret in reveal(grace, endpoint).content.decode()


def test_who_knows_the_password_is_not_braked(grace: Client) -> None:
    endpoint = make_endpoint()
    for _ in range(passwords.GUESSES + 2):
        assert endpoint.secret in reveal(grace, endpoint).content.decode()


def test_a_user_without_a_password_is_told_whom_to_ask(client: Client) -> None:
    endpoint = make_endpoint()
    user = make_member(username="hedy")
    client.force_login(user)
    assert "has no password here" in reveal(client, endpoint, "").content.decode() or "has no password here" in reveal(client, endpoint, "x").content.decode()


def test_a_viewer_and_a_stranger_get_nothing(client: Client) -> None:
    endpoint = make_endpoint()
    for role, code in ((Membership.Role.VIEWER, 403), (None, 404)):
        user = User.objects.create_user(f"user-{code}", password=PASSWORD)
        if role:
            Membership.objects.create(tenant=endpoint.tenant, user=user, role=role)
        else:
            Membership.objects.create(tenant=make_endpoint(tenant=endpoint.tenant).tenant.__class__.objects.create(slug="other", name="Other"), user=user)
        client.login(username=user.username, password=PASSWORD)
        for ask in (reveal, rotated):
            response = ask(client, endpoint)
            assert response.status_code == code
            assert endpoint.secret not in response.content.decode()
    assert endpoint.secret == endpoint.refreshed().secret


def test_no_secret_is_anywhere_but_in_the_answer_that_is_meant_to_show_it(
    grace: Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint = make_endpoint(bearer_token="a-very-secret-token", extra_headers="A-Key: an-extra-secret-key")
    first = endpoint.secret
    with caplog.at_level(logging.DEBUG):
        shown = reveal(grace, endpoint)
        new = rotated(grace, endpoint)
        second = endpoint.refreshed().secret
        wrong = rotated(grace, endpoint, "wrong")
        pages = [f"/endpoints/{endpoint.public_id}/{rest}" for rest in ("", "doing/", "edit/", "delete/", "secret/", "secret/rotate/", "signature/")]
        told = [grace.get(url).content.decode() for url in ("/endpoints/", *pages)]
    assert first in shown.content.decode()
    assert second in new.content.decode()
    assert second not in shown.content.decode()
    assert first not in new.content.decode()
    kept = [
        *told,
        wrong.content.decode(),
        caplog.text,
        f"{[vars(record) for record in caplog.records]}",
        *capfd.readouterr(),
        *LogEntry.objects.values_list("change_message", flat=True),
        *AuditEntry.objects.values_list("detail", flat=True),
        *(f"{session.get_decoded()}" for session in Session.objects.all()),
        *(f"{response.headers}{response.cookies}" for response in (shown, new, wrong)),
    ]
    for text in kept:
        assert not [word for word in (first, second, "a-very-secret-token", "an-extra-secret-key", PASSWORD) if word in text]
