"""The arithmetic of `bench greed`: what its rows say, when they hold, and what is asked for."""

import json
from collections import Counter
from collections.abc import Sequence

import pytest
from django.core.management.base import CommandError

from delivery.sources import api, strict_json
from jetrelay.api.endpoints import EndpointBody
from jetrelay.api.events import MAX_BATCH_BYTES
from jetrelay.bench import greed, isolation
from jetrelay.bench.greedy import asking, sending
from jetrelay.bench.greedy.clients import NONE, OPEN
from jetrelay.bench.greedy.roll import GREEDY
from jetrelay.bench.greedy.tenant import batch, largest
from jetrelay.bench.stage import largest as largest_of_field
from jetrelay.bench.witness import HEALTH, PAGE, Seen
from subscriptions.models import Endpoint

MOST_MB = 512
SMALL = {"web": 150.0, "worker": 200.0}


def seen(
    ms: Sequence[float],
    health_ms: float = 20,
    page_ms: float = 40,
    refused: int = 0,
    undelivered: int = 0,
    failed: int = 0,
) -> Seen:
    return Seen(
        list(ms),
        list(ms),
        {HEALTH: health_ms, PAGE: page_ms},
        refused,
        undelivered,
        failed,
    )


ALONE = seen([float(ms) for ms in range(1, 101)])


def test_it_gives_the_percentiles_and_their_ratio() -> None:
    found = greed.row(
        ALONE,
        seen([float(2 * ms) for ms in range(1, 101)]),
        SMALL,
        MOST_MB,
        Counter(),
    )
    assert (found["alone_p50_ms"], found["alone_p95_ms"]) == (51, 96)
    assert (found["beside_p50_ms"], found["beside_p95_ms"]) == (102, 192)
    assert (found["ratio"], found["verdict"]) == (2.0, "holds")
    assert (found["health_ms"], found["page_ms"], found["web_mb"], found["worker_mb"]) == (
        20,
        40,
        150,
        200,
    )


@pytest.mark.parametrize(
    ("beside", "memory", "complaint"),
    [
        (seen([300.0]), SMALL, "3.12 times as slow"),
        (seen([50.0], health_ms=1001), SMALL, "health took 1.0 s"),
        (seen([50.0], page_ms=2500), SMALL, "page took 2.5 s"),
        (seen([50.0]), SMALL | {"worker": 2329.0}, "worker had 2,329 MB"),
        (seen([50.0]), SMALL | {"web": 513.0}, "web had 513 MB"),
        (seen([50.0], refused=3), SMALL, "refused: 3"),
        (seen([50.0], undelivered=4), SMALL, "not delivered: 4"),
        (seen([50.0], failed=1), SMALL, "pages failed: 1"),
    ],
)
def test_it_says_what_does_not_hold(beside: Seen, memory: dict[str, float], complaint: str) -> None:
    assert greed.row(ALONE, beside, memory, MOST_MB, Counter())["verdict"] == complaint


def test_it_says_everything_that_does_not_hold() -> None:
    found = greed.row(ALONE, seen([300.0], page_ms=9000, undelivered=2), SMALL, MOST_MB, Counter())
    assert found["verdict"] == "3.12 times as slow; page took 9.0 s; not delivered: 2"


def test_it_says_when_it_was_not_well_alone() -> None:
    found = greed.row(seen([100.0], undelivered=1), seen([100.0]), SMALL, MOST_MB, Counter())
    assert found["verdict"] == "not delivered while alone: 1"


def test_it_counts_what_the_greedy_one_was_answered() -> None:
    answers = Counter({202: 900, 429: 40, 503: 2, NONE: 7, OPEN: 4, 200: 0})
    told = "open:4 none:7 202:900 429:40 503:2"
    assert greed.row(ALONE, ALONE, SMALL, MOST_MB, answers)["answers"] == told


def test_it_chooses_greedy_tenants_by_name() -> None:
    assert greed.choose("") == list(GREEDY.values())
    assert greed.choose("names, places") == [sending.Names, sending.Places]
    with pytest.raises(CommandError, match="--only nobody: there is no such greedy tenant"):
        greed.choose("places,nobody")


def test_it_has_a_line_and_words_for_each_greedy_tenant() -> None:
    classes = [*vars(asking).values(), *vars(sending).values()]
    written = {each for each in classes if isinstance(each, type) and hasattr(each, "name")}
    assert written == set(GREEDY.values())
    assert all(each.__doc__ for each in written)


def test_it_asks_for_the_most_that_the_api_and_the_model_take() -> None:
    for name in ("max_in_flight", "timeout_s", "batch_size", "batch_wait_ms"):
        most = largest(name)
        EndpointBody(data={"url": "http://receiver.example/", name: most}).is_valid(
            raise_exception=True,
        )
        assert not EndpointBody(data={"url": "http://receiver.example/", name: most + 1}).is_valid()
        assert largest_of_field(name) == most


@pytest.mark.parametrize(
    ("events", "padding", "size"),
    [
        (api.MAX_ITEMS, asking._PADDING, MAX_BATCH_BYTES),
        (sending._FEW, api.MAX_EVENT - sending._ROOM, MAX_BATCH_BYTES),
    ],
)
def test_it_posts_batches_that_are_as_large_as_they_may_be(
    events: int,
    padding: int,
    size: int,
) -> None:
    text = batch(events, padding)
    assert 0.9 * size < len(text) <= size
    (first, *_) = strict_json.loads(text.encode())["events"]
    assert len(json.dumps(first)) <= api.MAX_EVENT


def test_it_posts_another_subject_with_each_event() -> None:
    subjects = [each["subject"] for each in json.loads(batch(100, subject="did:%n%-%i%"))["events"]]
    assert len(set(subjects)) == 100
    assert subjects[7] == "did:%n%-7"


def test_it_gives_bad_neighbours_what_a_tenant_may_set() -> None:
    groups = {group.name: group for group in isolation.neighbours(50, 1, 2, 3)}
    assert [groups[name].count for name in ("hanging", "holding", "refusing", "deep")] == [
        25,
        25,
        1,
        1,
    ]
    assert {group.max_in_flight for group in groups.values()} == {largest("max_in_flight")}
    assert {group.priority for group in groups.values()} == {Endpoint.Priority.HIGH}
    assert groups["holding"].timeout_s == largest("timeout_s") > groups["hanging"].timeout_s
    assert {group.tenant for group in groups.values()} == {"greedy"}
