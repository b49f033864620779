"""How an endpoint stands, in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delivery.models import EndpointHealth
from delivery.standing import Kind, has_trouble, standing
from subscriptions.models import Endpoint

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
A_MINUTE = timedelta(minutes=1)


def endpoint(state: str = "active", **health: Any) -> Endpoint:
    row = Endpoint(state=state)
    row.health = EndpointHealth(endpoint=row, **health)
    return row


@pytest.mark.parametrize(
    ("health", "kind", "words"),
    [
        ({}, Kind.WELL, "closed"),
        ({"failures": 1}, Kind.FAILING, "closed, after 1 failure"),
        ({"failures": 3}, Kind.FAILING, "closed, after 3 failures in a row"),
        ({"failures": 5, "open_until": NOW + A_MINUTE}, Kind.OPEN, "open until 12:31:00 UTC, then one probe"),
        # Dated by a clock that was ahead: no breaker is open for so long.
        ({"open_until": NOW + timedelta(days=1)}, Kind.PROBING, "open: one probe shows whether it is back"),
        ({"failures": 5, "open_until": NOW, "ramp": 1}, Kind.PROBING, "open: one probe shows whether it is back"),
        ({"paused_until": NOW + A_MINUTE}, Kind.ASKED_TO_WAIT, "paused by Retry-After until 12:31:00 UTC"),
        ({"paused_until": NOW - A_MINUTE}, Kind.WELL, "closed"),
        ({"ramp": 4}, Kind.RECOVERING, "recovering: 4 at once"),
    ],
)
def test_it_says_what_the_breaker_does(health: dict[str, Any], kind: Kind, words: str) -> None:
    found = standing(endpoint(**health), NOW)
    assert (found.kind, found.words) == (kind, words)


@pytest.mark.django_db
def test_it_takes_an_endpoint_without_a_row_for_well() -> None:
    assert standing(Endpoint(), NOW).kind == Kind.WELL


@pytest.mark.parametrize("state", ["paused", "disabled", "unverified"])
def test_it_says_of_a_held_endpoint_only_what_went_before(state: str) -> None:
    found = standing(endpoint(state, failures=5, failing_since=NOW, open_until=NOW + A_MINUTE, reason="410 Gone"), NOW)
    assert found == (Kind.HELD, "", NOW, "410 Gone")


def test_it_names_no_failure_that_is_over() -> None:
    assert standing(endpoint(reason="503 Service Unavailable"), NOW).last_failure == ""
    assert standing(endpoint(reason="503 Service Unavailable", failures=1), NOW).last_failure == "503 Service Unavailable"


def test_it_takes_a_ramp_for_no_trouble() -> None:
    assert not has_trouble(EndpointHealth(ramp=4, paced_until=NOW, ordered_since=NOW))
    assert has_trouble(EndpointHealth(paused_until=NOW))


def test_it_says_the_day_where_it_is_another_one() -> None:
    late = NOW.replace(hour=23, minute=59)
    words = standing(endpoint(open_until=late + A_MINUTE), late).words
    assert words == f"open until {late + A_MINUTE:%F} 00:00:00 UTC, then one probe"
