"""One's own account: the password, and the sessions that hang on it."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from jetrelay.dashboard.people.brake import PER_NAME
from subscriptions.models import AuditEntry, Membership
from tests.builders import make_member, make_tenant

pytestmark = pytest.mark.django_db

PASSWORD, NEXT = "a-long-password", "another-long-password"
CHANGE = {"old_password": PASSWORD, "new_password1": NEXT, "new_password2": NEXT}


@pytest.fixture(autouse=True)
def _no_tries_of_other_tests(cheap_passwords: None) -> None:
    cache.clear()


@pytest.fixture
def grace(cheap_passwords: None) -> User:
    return make_member(role=Membership.Role.VIEWER, username="grace", password=PASSWORD)


@pytest.fixture
def here(client: Client, grace: User) -> Client:
    client.login(username="grace", password=PASSWORD)
    return client


@pytest.fixture
def elsewhere(grace: User) -> Client:
    client = Client()
    client.login(username="grace", password=PASSWORD)
    return client


def text(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def inside(client: Client) -> bool:
    return client.get("/").status_code == 200


def test_it_changes_the_password_and_ends_all_other_sessions(here: Client, elsewhere: Client) -> None:
    assert (inside(here), inside(elsewhere)) == (True, True)
    assert "Your password is changed" in text(here.post("/account/password/", CHANGE, follow=True))
    assert (inside(here), inside(elsewhere)) == (True, False)
    assert [Client().login(username="grace", password=password) for password in (PASSWORD, NEXT)] == [False, True]
    (entry,) = AuditEntry.objects.all()
    assert (entry.actor, entry.action, entry.tenant, entry.detail) == ("user grace", "account.password", make_tenant(), "")


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"old_password": "wrong"}, "Your old password was entered incorrectly"),
        ({"new_password2": "different-one"}, "match"),
        ({"new_password1": "short", "new_password2": "short"}, "too short"),
        ({"new_password1": "password123", "new_password2": "password123"}, "too common"),
    ],
)
def test_it_says_what_is_wrong_and_changes_nothing(here: Client, elsewhere: Client, over: dict[str, str], words: str) -> None:
    html = text(here.post("/account/password/", CHANGE | over))
    assert words in html
    assert PASSWORD not in html
    assert inside(elsewhere)
    assert not AuditEntry.objects.exists()


def test_it_signs_out_everywhere_else_with_the_same_password(here: Client, elsewhere: Client) -> None:
    assert "This is not your password" in text(here.post("/account/sessions/", {"password": "wrong"}))
    assert inside(elsewhere)
    assert "signed in here alone" in text(here.post("/account/sessions/", {"password": PASSWORD}, follow=True))
    assert (inside(here), inside(elsewhere)) == (True, False)
    assert Client().login(username="grace", password=PASSWORD)
    assert [entry.action for entry in AuditEntry.objects.all()] == ["account.sign-out-elsewhere"]


@pytest.mark.usefixtures("one_window")
@pytest.mark.parametrize(("url", "wrong"), [("/account/password/", CHANGE | {"old_password": "wrong"}), ("/account/sessions/", {"password": "wrong"})])
def test_an_open_session_is_no_place_to_guess(here: Client, url: str, wrong: dict[str, str]) -> None:
    assert {here.post(url, wrong).status_code for _ in range(PER_NAME)} == {200}
    assert here.post(url, wrong).status_code == 429
    assert here.post("/account/password/", CHANGE).status_code == 429
    # Nor does a guess there leave more of them to the sign-in.
    assert Client().post("/login/", {"username": "grace", "password": PASSWORD}).status_code == 429


def test_a_new_password_that_will_not_do_is_no_guess(here: Client) -> None:
    for _ in range(PER_NAME + 2):
        assert here.post("/account/password/", CHANGE | {"new_password2": "x"}).status_code == 200


def test_it_says_where_they_are_and_as_what(here: Client, grace: User) -> None:
    Membership.objects.create(tenant=make_tenant(slug="acme", name="<b>Acme"), user=grace, role=Membership.Role.OWNER)
    html = text(here.get("/account/"))
    for shown in ("<bdi>&lt;b&gt;Acme</bdi>", "Owner: everything", "<bdi>Default</bdi>", "Viewer: looks"):
        assert shown in html


def test_it_is_written_down_for_each_tenant_of_theirs(here: Client, grace: User) -> None:
    Membership.objects.create(tenant=make_tenant(slug="acme"), user=grace, role=Membership.Role.OWNER)
    here.post("/account/password/", CHANGE)
    assert AuditEntry.objects.filter(action="account.password", tenant__slug__in=("acme", "default")).count() == AuditEntry.objects.count() == 2


def test_those_in_no_tenant_have_an_account_too(client: Client) -> None:
    User.objects.create_user("bob", password=PASSWORD, is_staff=True)
    client.login(username="bob", password=PASSWORD)
    # Their way there is on the page that refuses them.
    assert 'href="/account/"' in client.get("/").content.decode()
    assert "in no tenant yet" in text(client.get("/account/"))
    client.post("/account/password/", CHANGE)
    assert Client().login(username="bob", password=NEXT)
    assert AuditEntry.objects.get().tenant is None


def test_strangers_are_asked_to_sign_in(client: Client) -> None:
    assert client.get("/account/")["Location"] == "/login/?next=/account/"
    assert client.post("/account/password/", CHANGE)["Location"] == "/login/?next=/"
