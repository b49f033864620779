"""What a subscription would have brought, from the events that are stored."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from delivery import trial as trials
from delivery.trial import SAMPLES, trial
from subscriptions.matching import Filter
from tests.builders import DID, POST, make_api_event, make_api_source, make_event, make_source

pytestmark = pytest.mark.django_db

EVERYTHING = Filter(uuid4(), ("*",))


def test_it_counts_what_matches_by_type_and_shows_the_newest() -> None:
    events = [make_event(type=type) for type in (POST, "app.bsky.feed.like", POST, "app.bsky.graph.follow", POST)]
    make_event(type=POST, operation="delete")
    found = trial(make_source(), Filter(uuid4(), ("app.bsky.feed.*",), operations=("create",)))
    assert (found.looked_at, found.matched, list(found.per_type)) == (6, 4, [(("commit", POST), 3), (("commit", "app.bsky.feed.like"), 1)])
    assert [event.pk for event in found.samples] == [events[number].pk for number in (4, 2, 1, 0)]


def test_it_looks_at_its_source_alone() -> None:
    source = make_api_source()
    mine = make_api_event(source=source)
    make_event()
    make_api_event(source=make_api_source(name="another"))
    found = trial(source, Filter(uuid4(), ("order.*",), kinds=("api",)))
    assert [event.pk for event in found.samples] == [mine.pk]


def test_it_says_how_far_back_it_has_looked() -> None:
    now = timezone.now()
    events = [make_event(received_at=now - timedelta(hours=hours)) for hours in (3, 2, 1)]
    found = trial(make_source(), EVERYTHING, last=2)
    assert (found.looked_at, found.oldest_at) == (2, events[1].received_at)


def test_it_finds_nothing_where_there_is_nothing() -> None:
    assert trial(make_source(), EVERYTHING) == (0, 0, None, [], [])


def test_it_shows_so_many_and_counts_the_others() -> None:
    for _ in range(SAMPLES + 3):
        make_event()
    found = trial(make_source(), EVERYTHING)
    assert (found.matched, len(found.samples)) == (SAMPLES + 3, SAMPLES)


def test_it_looks_at_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        make_event()
    monkeypatch.setattr(trials, "MOST", 3)
    assert trial(make_source(), EVERYTHING, last=1000).looked_at == 3
    monkeypatch.setattr(trials, "LOOKED_BACK", 2)
    # Of all sources: one that has few among millions must not have them all read.
    assert trial(make_source(), EVERYTHING).looked_at == 2


def test_it_goes_by_accounts_and_kinds() -> None:
    mine = make_event(kind="identity", type="", operation="")
    make_event(kind="identity", type="", operation="", subject="did:plc:other")
    found = trial(make_source(), Filter(uuid4(), ("none.such",), dids=(DID,), kinds=("identity", "commit")))
    assert [event.pk for event in found.samples] == [mine.pk]


@pytest.mark.parametrize("count", [3, 60])
def test_it_takes_four_queries_and_reads_no_body(count: int, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for _ in range(count):
        make_event()
    source = make_source()
    with django_assert_num_queries(4) as queries:
        trial(source, EVERYTHING)
    assert not any('"body"' in query["sql"] for query in queries.captured_queries)
