"""How many requests a key may make: counted in windows of ten seconds, told with each answer, and over all processes that share a cache."""

import os
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.redis import RedisCache
from pytest_django import Settings

from jetrelay.api import limits
from jetrelay.api.limits import take
from subscriptions.keys import Bearer
from tests.api import api_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

START = 1_795_867_200.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The process's clock, as its one item: at the start of a window."""
    time = [START]
    monkeypatch.setattr(limits, "time", lambda: time[0])
    return time


def bearer(limit: int | None) -> Bearer:
    return Bearer(uuid4(), uuid4(), "somebody", frozenset(), limit, None)


def test_every_answer_says_how_many_are_left(clock: list[float]) -> None:
    api = api_of(rate_limit_per_s=3)
    for left in (29, 28, 27):
        answer = api.get("endpoints")
        assert (answer.headers["RateLimit-Policy"], answer.headers["RateLimit"]) == ('"key";q=30;w=10', f'"key";r={left};t=10')
    clock[0] += 3.6
    # Errors count, too.
    assert api.get("endpoints?x=1").headers["RateLimit"] == '"key";r=26;t=6'
    assert api.post("endpoints", b"{").headers["RateLimit"] == '"key";r=25;t=6'


def test_who_asks_too_often_is_told_when_to_come_back(clock: list[float]) -> None:
    api, other = api_of(rate_limit_per_s=1), api_of(rate_limit_per_s=1)
    assert [api.get("endpoints").status for _ in range(10)] == [200] * 10
    clock[0] += 7.5
    answer = api.get("endpoints")
    assert answer.problem == (429, "too_many_requests")
    assert (answer.headers["Retry-After"], answer.headers["RateLimit"]) == ("2", '"key";r=0;t=2')
    assert "10 requests in 10 s: try again in 2 s" in answer.json["detail"]
    # Each key has its own, even in one tenant.
    assert other.get("endpoints").status == 200
    clock[0] += float(answer.headers["Retry-After"]) + 1
    assert api.get("endpoints").headers["RateLimit"] == '"key";r=9;t=9' or api.get("endpoints").status == 200


def test_nothing_is_done_beyond_the_limit(clock: list[float]) -> None:
    api = api_of(rate_limit_per_s=1)
    for _ in range(10):
        api.get("sources")
    assert api.post("sources", {"name": "too late"}).status == 429
    clock[0] += 10
    assert "too late" not in api.get("sources").text


def test_a_key_without_a_limit_has_that_of_the_installation(settings: Settings, clock: list[float]) -> None:
    settings.JETRELAY_API_RATE_LIMIT = 2
    assert api_of().get("endpoints").headers["RateLimit-Policy"] == '"key";q=20;w=10'


@pytest.mark.parametrize("limit", [1, 20, 21, 77, 1000])
def test_it_counts_exactly_whatever_parts_it_takes(limit: int, clock: list[float]) -> None:
    who = bearer(limit)
    taken = [take(who) for _ in range(10 * limit)]
    assert [each.remaining for each in taken] == list(range(10 * limit - 1, -1, -1))
    assert take(who).remaining == take(who).remaining == -1
    clock[0] += limits.WINDOW_S
    assert take(who).remaining == 10 * limit - 1


def test_the_memory_of_keys_is_bounded(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_KEYS", 3)
    for _ in range(10):
        take(bearer(1))
    assert len(limits._windows) <= 3


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_windows", {})


def shared_caches() -> list[Any]:
    return [pytest.param(lambda: cache, id="memory"), pytest.param(redis_cache, id="redis")]


def redis_cache() -> BaseCache:
    url = os.environ.get("TEST_REDIS_URL", "")
    if not url:
        pytest.skip("wants a Redis: set TEST_REDIS_URL")
    return RedisCache(urlunsplit(urlsplit(url)._replace(path="/7")), {"KEY_PREFIX": f"test-{uuid4().hex}"})


@pytest.mark.parametrize("make", shared_caches())
@pytest.mark.parametrize("limit", [1, 50, 130])
def test_processes_that_share_a_cache_share_the_limit(make: Any, limit: int, monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(limits, "cache", make())
    who, processes = bearer(limit), [dict[Any, Any](), dict[Any, Any](), dict[Any, Any]()]
    granted = 0
    for number in range(12 * limit):
        monkeypatch.setattr(limits, "_windows", processes[number % 3])
        granted += take(who).remaining >= 0
    assert granted == 10 * limit


def test_without_its_cache_each_process_counts_for_itself(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    class Broken:
        def add(self, *_: Any, **__: Any) -> bool:
            raise ConnectionError("no Redis")

    monkeypatch.setattr(limits, "cache", Broken())
    who = bearer(2)
    assert [take(who).remaining for _ in range(21)] == [*range(19, -1, -1), -1]


def test_headers_are_numbers_however_late_in_the_window(clock: list[float]) -> None:
    clock[0] += 9.999
    answer = api_of(rate_limit_per_s=1).get("endpoints")
    assert re.fullmatch(r'"key";r=9;t=1', answer.headers["RateLimit"])
