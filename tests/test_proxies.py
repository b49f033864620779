"""Who really asks, behind proxies: the header is believed as far as trusted proxies wrote it."""

from ipaddress import ip_network

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from jetrelay import proxies
from jetrelay.dashboard.people.brake import PER_ADDRESS
from jetrelay.proxies import asker, asker_of


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
        # With a port, in brackets, and as an IPv6 socket shows it.
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.1", "192.0.2.1, [::ffff:10.0.0.2]:80", "192.0.2.1"),
        ("::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"),
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


def who(client: Client, peer: str = "10.0.0.1", **headers: str) -> str:
    """The address that the site takes for that of who asks, as `/metrics` says it."""
    response = client.get("/metrics", REMOTE_ADDR=peer, headers=headers)
    assert response.status_code == 403, response.content
    return response.content.decode().partition("came from ")[2].partition(".\n")[0].partition(". One")[0]


@pytest.mark.django_db
def test_it_reads_forwarded_as_well(client: Client) -> None:
    assert who(client, forwarded='for=192.0.2.66, for="203.0.113.5:4711";proto=https') == "203.0.113.5"
    assert who(client, forwarded='for="[2001:db8::1]:1", for=10.0.0.2') == "2001:db8::1"
    assert who(client, forwarded="for=192.0.2.66, for=unknown") == "10.0.0.1"
    # A stranger's own word.
    assert who(client, peer="203.0.113.9", forwarded="for=127.0.0.1") == "203.0.113.9"
    assert who(client, forwarded="for=192.0.2.1", x_forwarded_for="192.0.2.1:80") == "192.0.2.1"


@pytest.mark.django_db
def test_two_headers_that_differ_decide_nothing(client: Client, settings: Settings) -> None:
    """One of them is what the stranger wrote and the proxy passed on."""
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    for headers in (
        {"x-forwarded-for": "192.0.2.1", "forwarded": "for=127.0.0.1"},
        {"x-forwarded-for": "127.0.0.1", "forwarded": "for=192.0.2.1"},
        {"x-forwarded-for": "192.0.2.1", "forwarded": 'for="'},
        {"x-forwarded-proto": "https", "forwarded": "for=192.0.2.1;proto=http"},
    ):
        response = client.get("/login/", REMOTE_ADDR="10.0.0.1", headers=headers)
        assert response.status_code == 400, headers
        assert "has to set one of them" in response.content.decode()
    # From a stranger neither says anything, so they contradict nothing.
    response = client.get("/login/", REMOTE_ADDR="203.0.113.9", headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"forwarded": "for=192.0.2.1;proto=https"}, 200),
        ({"forwarded": "for=192.0.2.1;proto=http"}, 301),
        # What the nearest trusted proxy was asked by counts, and not what a stranger says before.
        ({"forwarded": "for=192.0.2.66;proto=https, for=192.0.2.1;proto=http"}, 301),
        ({"forwarded": "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http"}, 200),
        ({"x-forwarded-proto": "https, https"}, 200),
        ({"x-forwarded-proto": "https, http"}, 301),
        ({"x-forwarded-proto": "http,https"}, 301),
        ({}, 301),
    ],
)
def test_https_is_what_all_trusted_proxies_say(headers: dict[str, str], status: int, client: Client, settings: Settings) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/login/", REMOTE_ADDR="10.0.0.1", headers=headers).status_code == status


@pytest.mark.parametrize("header", ["HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"])
def test_nothing_long_and_nothing_of_a_stranger_is_remembered(header: str, settings: Settings) -> None:
    settings.JETRELAY_TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    proxies._asker.cache_clear()
    for peer, long in (("192.0.2.1", 10), ("10.0.0.1", 8000)):
        for number in range(50):
            assert asker_of({"REMOTE_ADDR": peer, header: f"{number}, " * long})
    assert proxies._asker.cache_info().currsize == 0
