"""A Redis that answers and takes nothing: full, a replica, alone. Health says so, brakes go on braking, pages are shown."""

import ast
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as site
from django.core.management.base import CommandError
from django.test import Client

from jetrelay import caching, counting, readiness
from jetrelay.api import limits
from jetrelay.dashboard.endpoints import passwords
from jetrelay.dashboard.people.brake import PER_NAME
from jetrelay.doctor import broker
from jetrelay.doctor.finding import Level
from jetrelay.management.commands.up import check_broker
from tests.api import api_of
from tests.builders import make_delivery, make_endpoint, make_member
from tests.crash.servers import Redis

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not shutil.which("redis-server"), reason="wants redis-server"),
]

PASSWORD = "a-long-password"
# What makes it refuse, and what that is called.
REFUSALS = {
    "full": ({"maxmemory": "1", "maxmemory-policy": "noeviction"}, "its memory is full"),
    "alone": ({"min-replicas-to-write": "1"}, "it has too few replicas"),
    "replica": ({}, "it is a read-only replica"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=list(REFUSALS))
def refusing(request: pytest.FixtureRequest, server: Redis, settings: Any) -> Iterator[str]:
    """How the Redis of this installation is called that answers, and refuses what it is given."""
    with refused(server, request.param):
        _use(settings, server.url)
        yield REFUSALS[request.param][1]


@pytest.fixture(params=[*REFUSALS, "away"])
def useless(request: pytest.FixtureRequest, server: Redis, settings: Any) -> Iterator[None]:
    """The same, or nobody there at all."""
    with refused(server, request.param) if request.param in REFUSALS else nullcontext():
        _use(settings, server.url if request.param in REFUSALS else "redis://127.0.0.1:1/0")
        yield


@contextmanager
def refused(server: Redis, how: str) -> Iterator[None]:
    options = REFUSALS[how][0]
    with redis.Redis.from_url(server.url) as client:
        before = {name: client.config_get(name)[name] for name in options}
        for name, value in options.items():
            client.config_set(name, value)
        if how == "replica":
            client.replicaof("127.0.0.1", "1")
        try:
            assert client.ping()
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)
            client.replicaof("NO", "ONE")


def _use(settings: Any, url: str) -> None:
    settings.CELERY_BROKER_URL = url
    cache = {"BACKEND": "jetrelay.caching.Forgetful", "LOCATION": url, "KEY_PREFIX": "jetrelay", "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1}}
    settings.CACHES = {"default": cache}
    counting.clear()
    limits._alone_until = 0.0
    caching.Forgetful._rest_until = 0.0


# --- what is said ----------------------------------------------------------------------------------------------------


def test_readiness_says_that_it_takes_no_writes(refusing: str) -> None:
    readiness.shared.forget()
    response = Client().get("/health/ready")
    part = response.json()["parts"]["broker"]
    assert (response.status_code, part["status"], part["problem"]) == (503, "problem", f"takes no writes: {refusing}")
    assert "Deliveries go on meanwhile" in part["do"]
    readiness.shared.forget()


def test_doctor_says_so_too(refusing: str) -> None:
    (finding,) = broker.broker()
    assert (finding.level, finding.found.endswith(f"takes no writes: {refusing}")) == (Level.PROBLEM, True)
    assert finding.advice


def test_up_does_not_start_on_it(refusing: str) -> None:
    with pytest.raises(CommandError, match=f"BROKER_URL: Redis takes no writes: {refusing}"):
        check_broker(site.CELERY_BROKER_URL)


def test_a_redis_that_takes_writes_is_left_as_it_was(server: Redis, settings: Any) -> None:
    _use(settings, server.url)
    assert readiness.broker() is None
    assert [finding.level for finding in broker.broker()] == [Level.OK]
    check_broker(server.url)
    with redis.Redis.from_url(server.url) as client:
        assert client.keys("*trial*") == []


# --- what goes on braking --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("useless", "cheap_passwords", "one_window")
def test_guessing_passwords_is_braked(client: Client) -> None:
    make_member(username="grace", password=PASSWORD)
    tries = [client.post("/login/", {"username": "grace", "password": "wrong"}).status_code for _ in range(PER_NAME + 1)]
    assert tries == [200] * PER_NAME + [429]
    assert client.post("/login/", {"username": "grace", "password": PASSWORD}).status_code == 429
    # She gets in from elsewhere.
    assert client.post("/login/", {"username": "grace", "password": PASSWORD}, REMOTE_ADDR="192.0.2.7").status_code == 302


@pytest.mark.usefixtures("useless", "cheap_passwords", "one_window")
def test_who_knows_the_password_is_not_braked(client: Client) -> None:
    make_member(username="grace", password=PASSWORD)
    for _ in range(PER_NAME + 2):
        assert client.post("/login/", {"username": "grace", "password": PASSWORD}).status_code == 302
        client.logout()


@pytest.mark.usefixtures("useless", "cheap_passwords", "one_window")
def test_guessing_before_a_secret_is_braked_and_the_right_password_shows_it(client: Client) -> None:
    endpoint = make_endpoint()
    client.force_login(make_member(username="grace", password=PASSWORD))
    url = f"/endpoints/{endpoint.public_id}/secret/"
    assert endpoint.secret in client.post(url, {"password": PASSWORD}).content.decode()
    said = [client.post(url, {"password": "wrong"}).content.decode() for _ in range(passwords.GUESSES + 1)]
    assert ["This is not your password." in each for each in said] == [True] * passwords.GUESSES + [False]
    assert "Too many tries" in said[-1]


@pytest.mark.usefixtures("fresh_api", "useless", "one_window")
def test_requests_to_the_api_are_counted() -> None:
    api = api_of(rate_limit_per_s=1)
    assert [api.get("endpoints").status for _ in range(11)] == [200] * 10 + [429]


@pytest.mark.usefixtures("one_window", "cheap_passwords")
def test_tries_that_were_counted_together_still_count_when_redis_is_full(server: Redis, settings: Any, client: Client) -> None:
    _use(settings, server.url)
    make_member(username="grace", password=PASSWORD)
    tries = [client.post("/login/", {"username": "grace", "password": "wrong"}).status_code for _ in range(PER_NAME - 1)]
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory", "1")
        try:
            tries += [client.post("/login/", {"username": "grace", "password": "wrong"}).status_code for _ in range(2)]
        finally:
            admin.config_set("maxmemory", "0")
    assert tries == [200] * PER_NAME + [429]
    # Back again, it does not know what this process has seen meanwhile.
    counting._alone_until = 0.0
    assert client.post("/login/", {"username": "grace", "password": "wrong"}).status_code == 429


def test_the_memory_of_tries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST", 3)
    for number in range(10):
        assert counting.add(f"name{number}", 60) == 1
    assert len(counting._counts) == 3


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("useless")
@pytest.mark.parametrize("path", ["/", "/?span=week", "/endpoints/", "/deliveries/", "/stream/", "/events/"])
def test_pages_are_shown(path: str, admin_client: Client) -> None:
    make_delivery()
    assert admin_client.get(path).status_code == 200


def test_nobody_else_asks_the_cache_for_what_may_fail() -> None:
    """`Forgetful` hides failures of what pages remember. Counts are kept by the two modules that know what to do without."""
    found = set()
    for path in (path for package in ("jetrelay", "delivery", "subscriptions") for path in (Path(site.BASE_DIR) / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"cache|caches\[.*\]", ast.unparse(node.value)):
                found.add((path.stem, node.attr))
    assert {name for name, attribute in found if attribute not in ("get", "set", "get_many", "set_many", "get_or_set", "delete")} == {"counting", "limits"}
