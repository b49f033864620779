"""`/stats`: what went out in the last minutes, by the tallies, and what is waiting now."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from delivery.engines import engine
from delivery.engines.base import EventCounts
from delivery.models import LATENCY_BOUNDS_MS, Delivery
from jetrelay.api import stats
from subscriptions.models import Endpoint, Source
from tests.api import Api, api_of
from tests.builders import make_api_source, make_delivery, make_endpoint, make_source, make_tenant

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]


@pytest.fixture
def api() -> Api:
    return api_of()


def tally(endpoint: Endpoint, outcome: str, counts: dict[str, float] | None = None, ago: timedelta = timedelta(0)) -> None:
    engine().add_attempt_tallies(minute(ago), {(endpoint.pk, outcome): {"attempts": 1, "total_ms": 10.0} | (counts or {})})


def count(source: Source, received: int, stored: int, ago: timedelta = timedelta(0)) -> None:
    engine().add_event_tallies(minute(ago), source.pk, {("api", "a"): EventCounts(received, stored, received - stored, 0, 0)})


def minute(ago: timedelta) -> datetime:
    return (timezone.now() - ago).replace(second=0, microsecond=0)


def test_there_may_be_nothing_to_count(api: Api) -> None:
    shown = api.get("stats").json
    assert shown["attempts"] == {
        "attempts": 0,
        "delivered": 0,
        "failed": 0,
        "success_rate": None,
        "mean_ms": None,
        "p50_ms_at_most": None,
        "p95_ms_at_most": None,
    }
    assert (shown["pending"], shown["dead"], shown["oldest_due_at"], shown["endpoints"]) == (
        {"number": 0, "more": False},
        {"number": 0, "more": False},
        None,
        [],
    )


def test_it_sums_up_attempts_by_endpoint(api: Api) -> None:
    busy, quiet = make_endpoint(name="busy"), make_endpoint(name="quiet")
    buckets = stats._BUCKETS
    tally(busy, "delivered", {"attempts": 90, "total_ms": 900.0, buckets[0]: 90})
    tally(busy, "dead", {"attempts": 10, "total_ms": 3100.0, buckets[3]: 10})
    tally(quiet, "delivered", {buckets[1]: 1})
    # Nobody attempted these.
    tally(quiet, "cancelled", {"attempts": 50})
    shown = api.get("stats").json
    assert [(row["id"], row["name"], row["attempts"]) for row in shown["endpoints"]] == [(busy.public_id, "busy", 100), (quiet.public_id, "quiet", 1)]
    first = shown["endpoints"][0]
    assert (first["delivered"], first["failed"], first["success_rate"], first["mean_ms"]) == (90, 10, 0.9, 40.0)
    assert (first["p50_ms_at_most"], first["p95_ms_at_most"]) == (LATENCY_BOUNDS_MS[0], LATENCY_BOUNDS_MS[3])
    assert shown["attempts"]["attempts"] == 101


def test_it_looks_back_as_far_as_it_is_asked_to(api: Api) -> None:
    endpoint = make_endpoint()
    tally(endpoint, "delivered")
    tally(endpoint, "delivered", ago=timedelta(minutes=30))
    tally(endpoint, "delivered", ago=timedelta(hours=20))
    assert [api.get(f"stats?minutes={minutes}").json["attempts"]["attempts"] for minutes in (10, 60, 1440)] == [1, 2, 3]
    assert api.get("stats").json["attempts"]["attempts"] == 2
    for wrong in ("0", "1441", "-1", "a", "", "1.5", "٣", "00001"):
        assert (api.get(f"stats?minutes={wrong}").problem, wrong) == ((400, "invalid_query"), wrong)


def test_it_counts_what_is_waiting_and_since_when(api: Api) -> None:
    now, endpoint = timezone.now(), make_endpoint()
    oldest = make_delivery(endpoint=endpoint, due_at=now - timedelta(hours=1))
    make_delivery(endpoint=make_endpoint(), due_at=now - timedelta(minutes=1))
    make_delivery(endpoint=endpoint, due_at=now + timedelta(hours=1))
    make_delivery(endpoint=endpoint, state=Delivery.State.DEAD)
    make_delivery(endpoint=endpoint, state=Delivery.State.DELIVERED)
    shown = api.get("stats").json
    assert (shown["pending"], shown["dead"]) == ({"number": 3, "more": False}, {"number": 1, "more": False})
    assert datetime.fromisoformat(shown["oldest_due_at"]) == oldest.due_at


def test_it_counts_no_further_than_it_says(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_COUNTED", 2)
    endpoint = make_endpoint()
    for _ in range(3):
        make_delivery(endpoint=endpoint)
    assert api.get("stats").json["pending"] == {"number": 2, "more": True}


def test_posted_events_are_the_tenants_own(api: Api) -> None:
    count(make_api_source(), 5, 3)
    count(make_api_source(name="another"), 2, 2)
    count(make_api_source(), 50, 50, timedelta(hours=2))
    count(make_source(), 1000, 1000)
    count(make_api_source(tenant=make_tenant(slug="other")), 100, 100)
    assert api.get("stats").json["posted_events"] == {"received": 7, "stored": 5, "duplicate": 2, "unmatched": 0, "invalid": 0}
