"""Who may read `/metrics`, and under which names programs may call."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from django.test import Client

from jetrelay.metrics.collector import shared

pytestmark = pytest.mark.django_db

TOKEN = "a-token-for-prometheus"
LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


@pytest.fixture(autouse=True)
def _fresh(settings: Any) -> Iterator[None]:
    settings.JETRELAY_METRICS_TOKEN, settings.JETRELAY_METRICS_NETWORKS, settings.JETRELAY_TRUSTED_PROXIES = "", LOOPBACK, []
    shared.forget()
    yield
    shared.forget()


def ask(path: str = "/metrics", *, asker: str = "203.0.113.9", **headers: str) -> Any:
    return Client(REMOTE_ADDR=asker, headers=headers).get(path)


@pytest.mark.parametrize("asker", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_it_lets_this_machine_in(asker: str) -> None:
    assert ask(asker=asker).status_code == 200


@pytest.mark.parametrize("asker", ["203.0.113.9", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", "nonsense"])
def test_it_refuses_others_and_says_which_setting_lets_them_in(asker: str) -> None:
    response = ask(asker=asker)
    assert (response.status_code, response["Content-Type"]) == (403, "text/plain; charset=utf-8")
    text = response.content.decode()
    assert "JETRELAY_METRICS_TOKEN" in text
    assert "JETRELAY_METRICS_NETWORKS" in text
    assert "127.0.0.0/8, ::1/128" in text
    assert "jetrelay_" not in text


def test_it_lets_in_the_networks_of_the_setting(settings: Any) -> None:
    settings.JETRELAY_METRICS_NETWORKS = [ip_network("10.1.0.0/16")]
    assert [ask(asker=asker).status_code for asker in ("10.1.2.3", "10.2.0.1", "127.0.0.1")] == [200, 403, 403]


def test_it_lets_in_who_has_the_token(settings: Any) -> None:
    settings.JETRELAY_METRICS_TOKEN = TOKEN
    assert ask(authorization=f"Bearer {TOKEN}").status_code == 200
    assert ask(authorization=f"bearer  {TOKEN} ").status_code == 200
    # Either is enough.
    assert ask(asker="127.0.0.1").status_code == 200


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é", ""])
def test_it_refuses_other_tokens(settings: Any, header: str) -> None:
    settings.JETRELAY_METRICS_TOKEN = TOKEN
    response = ask(authorization=header)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    assert "JETRELAY_METRICS_TOKEN" in response.content.decode()
    assert TOKEN not in response.content.decode()


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer x"])
def test_without_a_token_in_the_settings_none_is_right(header: str) -> None:
    assert ask(authorization=header).status_code == 403


def test_a_proxy_that_nobody_has_named_lets_nobody_in(settings: Any) -> None:
    """On the same machine its address is this machine's, whoever asks."""
    response = ask(asker="127.0.0.1", x_forwarded_for="203.0.113.9")
    assert response.status_code == 403
    assert "JETRELAY_TRUSTED_PROXIES" in response.content.decode()
    settings.JETRELAY_TRUSTED_PROXIES = LOOPBACK
    assert ask(asker="127.0.0.1", x_forwarded_for="203.0.113.9").status_code == 403
    assert ask(asker="127.0.0.1", x_forwarded_for="127.0.0.1").status_code == 200
    settings.JETRELAY_METRICS_NETWORKS = [ip_network("203.0.113.0/24")]
    assert ask(asker="127.0.0.1", x_forwarded_for="203.0.113.9").status_code == 200


@pytest.mark.parametrize("host", ["web:8000", "web", "jetrelay-web_1", "10.2.3.4:8000", "[fd00::7]:8000", "localhost"])
def test_it_answers_to_the_names_that_containers_have(host: str) -> None:
    assert ask(asker="127.0.0.1", host=host).status_code == 200


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8000", "web.attacker.example", "web:x", "", "[x]", "[web]", "we b", "1.2.3.4.example"])
def test_a_page_in_a_browser_cannot_read_it_under_a_name_of_its_own(settings: Any, host: str) -> None:
    assert ask(asker="127.0.0.1", host=host).status_code == 400
    # Who has the token is no such page.
    settings.JETRELAY_METRICS_TOKEN = TOKEN
    assert ask(host=host, authorization=f"Bearer {TOKEN}").status_code == 200


@pytest.mark.parametrize("host", ["web:8000", "10.2.3.4", "balancer.example"])
def test_health_is_told_under_any_name(host: str) -> None:
    assert [ask(path, host=host).status_code for path in ("/health", "/health/ready")] == [200, 200]


@pytest.mark.parametrize("path", ["/", "/admin/", "/api/v1/deliveries", "/metrics/", "/health/x"])
def test_nothing_else_is(path: str) -> None:
    assert ask(path, asker="127.0.0.1", host="web:8000").status_code == 400


def test_it_takes_no_post() -> None:
    assert Client(REMOTE_ADDR="127.0.0.1").post("/metrics").status_code == 405
