"""Who really asks, behind proxies: the header is believed as far as trusted proxies wrote it."""

from ipaddress import ip_network

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from jetrelay.dashboard.people.brake import PER_ADDRESS
from jetrelay.proxies import asker


@pytest.fixture(autouse=True)
def _proxies(settings: Settings) -> None:
    cache.clear()
    settings.JETRELAY_TRUSTED_PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "found"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        # A stranger's own word.
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7, 192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "192.0.2.1, rubbish", "10.0.0.1"),
        ("10.0.0.1", " , ,192.0.2.1", "192.0.2.1"),
        ("", "192.0.2.1", ""),
    ],
)
def test_it_finds_the_last_address_that_is_no_proxys(peer: str, forwarded_for: str, found: str) -> None:
    assert asker(peer, forwarded_for) == found


@pytest.mark.usefixtures("one_window")
@pytest.mark.django_db
def test_one_guesser_behind_a_proxy_locks_out_nobody_else(client: Client) -> None:
    User.objects.create_user("grace", password="a-long-password")

    def sign_in(name: str, address: str, password: str = "wrong") -> int:
        return client.post("/login/", {"username": name, "password": password}, REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": address}).status_code

    statuses = [sign_in(f"name {number}", "192.0.2.66") for number in range(PER_ADDRESS + 1)]
    assert (statuses[0], statuses[-1]) == (200, 429)
    assert sign_in("grace", "192.0.2.1", "a-long-password") == 302


@pytest.mark.parametrize(("peer", "status"), [("203.0.113.9", 301), ("10.0.0.1", 200)])
def test_nobody_but_a_trusted_proxy_is_believed_to_speak_tls(peer: str, status: int, client: Client, settings: Settings) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_SSL_REDIRECT = True
    response = client.get("/login/", REMOTE_ADDR=peer, headers={"X-Forwarded-Proto": "https"})
    assert response.status_code == status
