"""Whose share a request uses: only what was found to be true a moment ago counts, and else the address."""

from ipaddress import ip_network
from time import monotonic, process_time

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from jetrelay import askers
from jetrelay.askers import Known, asker_of
from jetrelay.shares import Asker
from subscriptions import keys
from subscriptions.models import Membership
from tests.api import api_of
from tests.builders import make_tenant

ADDRESS = Asker("address", "203.0.113.9", stranger=True)


@pytest.fixture(autouse=True)
def _nobody_is_known() -> None:
    askers.keys.clear()
    askers.sessions.clear()


def asked(**headers: str) -> Asker:
    return asker_of({"REMOTE_ADDR": "203.0.113.9", "PATH_INFO": "/"} | headers)


def cookie(value: str) -> str:
    return f"a=b; {django_settings.SESSION_COOKIE_NAME}={value}; c=d"


def test_nobody_gets_a_share_by_inventing_somebody() -> None:
    invented: tuple[dict[str, str], ...] = (
        {"HTTP_AUTHORIZATION": "Bearer jr_x"},
        {"HTTP_AUTHORIZATION": "Basic x"},
        {"HTTP_COOKIE": cookie("x" * 32)},
        {"HTTP_COOKIE": "\udcff;="},
        {},
    )
    for headers in invented:
        for number in range(3):
            assert asked(**{name: value + str(number) for name, value in headers.items()}) == ADDRESS
    assert (len(askers.keys), len(askers.sessions)) == (0, 0)


@pytest.mark.parametrize(
    ("address", "of"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", "none"),
        ("unix", "none"),
    ],
)
def test_a_stranger_is_an_address_or_a_network(address: str, of: str) -> None:
    assert asker_of({"REMOTE_ADDR": address}) == Asker("address", of, stranger=True)


def test_behind_a_trusted_proxy_the_address_is_the_one_that_asked(settings: Settings) -> None:
    settings.JETRELAY_TRUSTED_PROXIES = [ip_network("203.0.113.0/24")]
    assert asked(HTTP_X_FORWARDED_FOR="198.51.100.1, 198.51.100.7").id == "198.51.100.7"


@pytest.mark.django_db
def test_a_key_that_opened_the_api_is_its_tenants_until_it_opens_nothing(fresh_api: None) -> None:
    api = api_of(make_tenant(slug="t"))
    header = f"Bearer {api.text}"
    assert asked(HTTP_AUTHORIZATION=header) == ADDRESS
    assert api.get("events").status == 200
    assert api.key
    assert asked(HTTP_AUTHORIZATION=header) == askers.tenant(api.key.tenant_id)
    api.key.delete()
    keys.forget()
    assert api.get("events").status == 401
    assert asked(HTTP_AUTHORIZATION=header) == ADDRESS


@pytest.mark.django_db
def test_a_session_that_was_verified_is_its_users_until_they_leave(client: Client) -> None:
    client.force_login(User.objects.create_user("ada", is_staff=True))
    session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    assert asked(HTTP_COOKIE=cookie(session)) == ADDRESS
    client.get("/admin/")
    assert asked(HTTP_COOKIE=cookie(session)) == Asker("people", "of no tenant")
    # No session opens the API, so there it says nothing.
    assert asked(HTTP_COOKIE=cookie(session), PATH_INFO="/api/v1/events") == ADDRESS
    client.post("/logout/")
    assert asked(HTTP_COOKIE=cookie(session)) == ADDRESS


@pytest.mark.django_db
def test_the_people_of_a_tenant_are_one_however_many_members_it_makes(client: Client) -> None:
    tenant, found = make_tenant(slug="t"), set()
    for name in ("ada", "bob"):
        user = User.objects.create_user(name)
        Membership.objects.create(user=user, tenant=tenant, role=Membership.Role.MEMBER)
        client.force_login(user)
        assert client.get("/endpoints/").status_code == 200
        found.add(asked(HTTP_COOKIE=cookie(client.cookies[django_settings.SESSION_COOKIE_NAME].value)))
    assert found == {Asker("people", str(tenant.pk))}


@pytest.mark.django_db
def test_a_cookie_that_opens_nothing_is_not_learned(client: Client) -> None:
    client.cookies[django_settings.SESSION_COOKIE_NAME] = "x" * 32
    client.get("/endpoints/")
    assert len(askers.sessions) == 0


def test_what_is_known_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    known, who = Known(most=3), Asker("tenant", "t")
    for name in "abc":
        known.learn(name, who)
    known.learn("a", who)
    known.learn("d", who)
    assert [bool(known.find(name)) for name in "abcd"] == [True, False, True, True]
    for _ in range(100):
        assert known.find("made up") is None
    assert len(known) == 3
    now = monotonic()
    monkeypatch.setattr(askers, "monotonic", lambda: now + askers.BELIEVED_S + 1)
    assert known.find("a") is None


@pytest.mark.parametrize(
    ("cookies", "session"),
    [
        ("", ""),
        ("sessionid=abc", "abc"),
        ("a=b; sessionid=abc; c=d", "abc"),
        ("xsessionid=abc", ""),
        ("sessionid=first; sessionid=second", "second"),
        ("sessionid", ""),
    ],
)
def test_it_finds_the_session_among_the_cookies(cookies: str, session: str) -> None:
    assert askers.session_of({"HTTP_COOKIE": cookies}) == session


def test_it_does_not_unquote_a_strangers_cookies() -> None:
    """That takes the square of their backslashes, on the thread that takes all requests in."""
    cookies = 'sessionid=abc; a="' + "\\0" * 30_000 + '"'
    began = process_time()
    assert askers.session_of({"HTTP_COOKIE": cookies}) == "abc"
    assert process_time() - began < 0.1
