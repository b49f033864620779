"""Rate limits and priorities, on real lanes with a real receiver."""

from datetime import timedelta
from time import monotonic

import pytest
from django.core.exceptions import ValidationError

from delivery import lanes, tenure
from delivery.destinations import http
from delivery.models import EndpointHealth
from subscriptions.models import Endpoint
from tests.builders import make_endpoint, make_tenant
from tests.draining import LANE, drain_all, endpoint_at, health, owe, states, time_left
from tests.receiver import Receiver
from tests.threads import Elsewhere, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def test_requests_start_evenly_and_no_faster_than_the_limit(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, rate_limit_per_s=40)
    owe(endpoint, 20)
    began = monotonic()
    drain_all()
    assert states(endpoint) == {"delivered": 20}
    times = sorted(request.at for request in receiver.requests)
    # Not sooner, up to what a late sender makes up for; how much later is the machine's affair.
    assert all(at - began >= number / 40 - 0.02 for number, at in enumerate(times))


def test_the_limit_holds_across_the_turns_of_a_lane(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "SLICE_S", 0.15)
    endpoint = endpoint_at(receiver, rate_limit_per_s=5)
    owe(endpoint, 8)
    began, turns = monotonic(), 1
    while lanes.drain(LANE):
        turns += 1
    assert turns > 2
    assert states(endpoint) == {"delivered": 8}
    times = sorted(request.at for request in receiver.requests)
    assert all(at - began >= number / 5 - 0.02 for number, at in enumerate(times))


def test_the_next_owner_keeps_the_pace_of_the_last(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver, rate_limit_per_s=1 / 60)
    owe(endpoint, 1)
    drain_all()
    assert timedelta(seconds=50) < time_left(health(endpoint).paced_until) <= timedelta(seconds=60)
    owe(endpoint, 1)
    drain = Elsewhere(lambda: lanes.drain(LANE))
    with pytest.raises(TimeoutError):
        receiver.wait_for(lambda got: len(got) > 1, timeout_s=0.5)
    # A limit that is lifted counts at once.
    Endpoint.objects.get().refreshed()
    row = Endpoint.objects.get()
    row.rate_limit_per_s = None
    row.save()
    eventually(lambda: states(endpoint) == {"delivered": 2})
    drain.result()


def test_a_paced_endpoint_leaves_the_others_of_its_lane_alone(receiver: Receiver) -> None:
    paced, free = endpoint_at(receiver, rate_limit_per_s=1 / 600, url=receiver.url + "/paced"), endpoint_at(receiver)
    owe(paced, 2)
    owe(free, 200)
    drain = Elsewhere(lambda: lanes.drain(LANE))
    eventually(lambda: states(free) == {"delivered": 200} and states(paced) == {"delivered": 1, "pending": 1})
    tenure.stopping.set()
    drain.result()
    assert states(paced) == {"delivered": 1, "pending": 1}


def test_an_endpoint_without_a_limit_leaves_no_trace(receiver: Receiver) -> None:
    owe(endpoint_at(receiver), 3)
    drain_all()
    assert not EndpointHealth.objects.exists()


@pytest.mark.parametrize("rate", [0, -1, 0.001, 1e9, float("nan"), float("inf")])
def test_a_limit_has_bounds(rate: float) -> None:
    with pytest.raises(ValidationError, match="rate limit"):
        make_endpoint(rate_limit_per_s=rate).full_clean()


def test_a_saturated_sender_serves_high_priority_first_and_starves_none(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    http.stop_senders()
    monkeypatch.setattr(http, "MAX_OPEN", 1)
    low, high = (endpoint_at(receiver, url=f"{receiver.url}/{name}", priority=getattr(Endpoint.Priority, name)) for name in ("LOW", "HIGH"))
    owe(low, 100)
    owe(high, 100)
    drain_all()
    http.stop_senders()
    assert (states(low), states(high)) == ({"delivered": 100}, {"delivered": 100})
    paths = [request.path.rpartition("/")[2] for request in receiver.requests]
    # All of the high ones are through when a handful of the low ones are: 64 to one, and what was first to come.
    last_high = max(place for place, name in enumerate(paths) if name == "HIGH")
    assert 1 <= paths[:last_high].count("LOW") <= 5


def test_a_saturated_sender_is_shared_by_tenants_alike(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    http.stop_senders()
    monkeypatch.setattr(http, "MAX_OPEN", 1)
    many = [endpoint_at(receiver, url=f"{receiver.url}/many", tenant=make_tenant(slug="many")) for _ in range(9)]
    one = endpoint_at(receiver, url=f"{receiver.url}/one", tenant=make_tenant(slug="one"))
    for endpoint in many:
        owe(endpoint, 20)
    owe(one, 60)
    drain_all()
    http.stop_senders()
    paths = [request.path.rpartition("/")[2] for request in receiver.requests]
    assert len(paths) == 240
    last = max(place for place, name in enumerate(paths) if name == "one")
    assert 55 <= paths[:last].count("many") <= 75
