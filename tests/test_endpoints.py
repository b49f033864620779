"""What people do to endpoints: their state, their health and the version, in one transaction."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from delivery import cancelling, endpoints
from delivery.endpoints import NotDeletable
from delivery.engines import engine
from delivery.models import Delivery, EndpointHealth
from delivery.outbox import Outbox
from subscriptions.models import ConfigVersion, Endpoint, EndpointQuerySet
from tests.builders import make_delivery, make_endpoint, make_health, make_incoming, make_source, make_subscription

pytestmark = pytest.mark.django_db

State = Endpoint.State
Act = Callable[[EndpointQuerySet], list[Endpoint]]


def pause(rows: EndpointQuerySet) -> list[Endpoint]:
    return endpoints.pause(rows, "for lunch")


def disable(rows: EndpointQuerySet) -> list[Endpoint]:
    return endpoints.disable(rows, "for good reasons")


def health_of(endpoint: Endpoint) -> EndpointHealth:
    return EndpointHealth.objects.get(pk=endpoint.pk)


@pytest.mark.parametrize(
    ("act", "moves"),
    [
        (pause, {State.ACTIVE: State.PAUSED}),
        (endpoints.resume, {State.PAUSED: State.ACTIVE}),
        (disable, {State.ACTIVE: State.DISABLED, State.PAUSED: State.DISABLED}),
        (endpoints.enable, {State.DISABLED: State.ACTIVE}),
    ],
)
def test_it_moves_endpoints_from_the_states_that_may_be_left_so(act: Act, moves: dict[State, State]) -> None:
    rows = {state: make_endpoint(state=state) for state in State}
    changed = act(Endpoint.objects.all())
    assert {row.pk for row in changed} == {rows[state].pk for state in moves}
    assert {state: row.refreshed().state for state, row in rows.items()} == {state: moves.get(state, state) for state in State}


def test_it_says_why_and_since_when_an_endpoint_is_held_and_forgets_it_afterwards() -> None:
    endpoint, before = make_endpoint(), timezone.now()
    pause(Endpoint.objects.all())
    assert endpoint.refreshed().state_reason == "for lunch"
    assert endpoint.state_changed_at >= before
    endpoints.resume(Endpoint.objects.all())
    assert endpoint.refreshed().state_reason == ""


def test_it_bounds_a_reason_to_what_is_kept() -> None:
    endpoint = make_endpoint()
    endpoints.pause(Endpoint.objects.all(), "x" * 500)
    assert endpoint.refreshed().state_reason == "x" * 200


@pytest.mark.parametrize(
    ("act", "state"), [(pause, State.ACTIVE), (endpoints.resume, State.PAUSED), (disable, State.PAUSED), (endpoints.enable, State.DISABLED)]
)
def test_it_drops_what_a_lane_still_writes_from_before(act: Act, state: State) -> None:
    new, known = make_endpoint(state=state), make_health(endpoint=make_endpoint(state=state), version=4).endpoint
    version = ConfigVersion.current()
    act(Endpoint.objects.all())
    # A lane that knew of no row would have written its first one as version 0.
    assert (health_of(new).version, health_of(known).version) == (1, 5)
    assert ConfigVersion.current() > version


def test_it_moves_no_version_where_nothing_changes() -> None:
    endpoint = make_health(endpoint=make_endpoint(state=State.PAUSED)).endpoint
    version = ConfigVersion.current()
    assert pause(Endpoint.objects.all()) == []
    assert (ConfigVersion.current(), health_of(endpoint).version) == (version, 0)


@pytest.mark.parametrize(("act", "state"), [(endpoints.resume, State.PAUSED), (endpoints.enable, State.DISABLED), (endpoints.reset_breaker, State.ACTIVE)])
def test_it_starts_again_gently_and_with_a_clean_sheet(act: Act, state: State) -> None:
    now = timezone.now()
    endpoint = make_health(endpoint=make_endpoint(state=state), paused_until=now, paced_until=now, ordered_since=now, ramp=8).endpoint
    assert [row.pk for row in act(Endpoint.objects.all())] == [endpoint.pk]
    health = health_of(endpoint)
    assert (health.failures, health.trips, health.reason, health.ramp, health.version) == (0, 0, "", 1, 1)
    assert (health.failing_since, health.open_until, health.paused_until) == (None, None, None)
    assert (health.paced_until, health.ordered_since) == (now, now)
    assert endpoint.refreshed().state == State.ACTIVE


def test_it_keeps_what_is_known_of_an_endpoint_that_is_held() -> None:
    health = make_health()
    pause(Endpoint.objects.all())
    disable(Endpoint.objects.all())
    kept = health_of(health.endpoint)
    assert (kept.failures, kept.failing_since, kept.reason) == (7, health.failing_since, "503 Service Unavailable")


def test_it_resets_only_what_is_in_trouble_and_leaves_the_state() -> None:
    held = make_health(endpoint=make_endpoint(state=State.PAUSED)).endpoint
    waiting = make_health(failures=0, failing_since=None, trips=0, open_until=None, paused_until=timezone.now()).endpoint
    recovering = make_health(failures=0, failing_since=None, trips=0, open_until=None, ramp=4).endpoint
    make_endpoint()
    assert {row.pk for row in endpoints.reset_breaker(Endpoint.objects.all())} == {held.pk, waiting.pk}
    assert held.refreshed().state == State.PAUSED
    assert health_of(recovering).ramp == 4


def test_it_changes_those_that_were_chosen_however_they_were_chosen() -> None:
    chosen, other = make_endpoint(name="a"), make_endpoint(name="b")
    found = Endpoint.objects.select_related("tenant", "health").filter(name="a", tenant__slug="default").order_by("name").distinct()
    assert [row.pk for row in pause(found)] == [chosen.pk]
    assert other.refreshed().state == State.ACTIVE


def test_it_keeps_deliveries_of_an_endpoint_that_is_held() -> None:
    row = make_delivery()
    pause(Endpoint.objects.all())
    disable(Endpoint.objects.all())
    assert row.refreshed().state == Delivery.State.PENDING


# --- Deleting ----------------------------------------------------------------------------------------------------------


def test_it_deletes_for_good() -> None:
    endpoint = make_endpoint(bearer_token="a-token", extra_headers="X-Key: abc", previous_secret="whsec_old")
    subscription = make_subscription(endpoint=endpoint)
    version = ConfigVersion.current()
    assert endpoints.delete(endpoint, "deleted by ada") == (0, True)
    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.state_reason) == (State.DELETED, "deleted by ada")
    assert (endpoint.secret, endpoint.previous_secret, endpoint.bearer_token, endpoint.extra_headers) == ("", "", "", "")
    assert not subscription.refreshed().active
    assert health_of(endpoint).version == 1
    assert ConfigVersion.current() > version
    assert not Endpoint.objects.present().exists()


def test_a_deleted_endpoint_comes_back_by_nothing() -> None:
    endpoint = make_endpoint()
    endpoints.delete(endpoint)
    for act in (pause, endpoints.resume, disable, endpoints.enable, endpoints.reset_breaker):
        assert act(Endpoint.objects.all()) == []
    assert not endpoints.activate_verified(endpoint)
    assert endpoint.refreshed().state == State.DELETED


def test_it_cancels_what_is_pending_and_nothing_else() -> None:
    endpoint, now = make_endpoint(name="Gone"), timezone.now()
    owed = [make_delivery(endpoint=endpoint, due_at=now + timedelta(days=day)) for day in (-1, 0, 0, 9)]
    settled = [make_delivery(endpoint=endpoint, state=state) for state in (Delivery.State.DELIVERED, Delivery.State.DEAD)]
    other = make_delivery()
    assert endpoints.delete(endpoint) == (4, True)
    assert {row.refreshed().state for row in owed} == {Delivery.State.CANCELLED}
    assert [row.refreshed().state for row in settled] == [Delivery.State.DELIVERED, Delivery.State.DEAD]
    assert other.refreshed().state == Delivery.State.PENDING
    assert owed[0].endpoint.name == "Gone"


def test_it_owes_a_deleted_endpoint_nothing_more() -> None:
    source = make_source()
    endpoint = make_subscription(source=source).endpoint
    outbox = Outbox(source)
    outbox.publish([make_incoming()])
    endpoints.delete(endpoint)
    outbox.publish([make_incoming()])
    assert list(Delivery.objects.values_list("state", flat=True)) == [Delivery.State.CANCELLED]


def test_it_leaves_the_rest_of_a_large_backlog_to_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(endpoints, "DELETE_BUDGET_S", 0.0)
    monkeypatch.setattr(cancelling, "ask", lambda: asked.append(True))
    monkeypatch.setattr(type(engine()), "prune_chunk", 2)
    endpoint = make_endpoint()
    for _ in range(5):
        make_delivery(endpoint=endpoint)
    assert endpoints.delete(endpoint) == (2, False)
    assert asked == [True]
    assert cancelling.cancel_of_deleted(lambda _: False) == (3, True)


@pytest.mark.parametrize(
    ("origin", "url", "refused"),
    [("environment", "https://a.example/", True), ("environment", "", False), ("inbox", "", True), ("inbox", "https://a.example/", False)],
)
def test_it_keeps_an_endpoint_that_the_next_start_would_make_again(origin: str, url: str, refused: bool, settings: Settings) -> None:
    settings.WEBHOOK_URL = url
    endpoint = make_endpoint(origin=origin, bearer_token="a-token")
    if refused:
        with pytest.raises(NotDeletable, match="WEBHOOK_URL"):
            endpoints.delete(endpoint)
        assert (endpoint.refreshed().state, endpoint.bearer_token) == (State.ACTIVE, "a-token")
    else:
        endpoints.delete(endpoint)
        # There is room for another one of this origin.
        make_endpoint(origin=origin)


def test_it_deletes_nothing_of_others() -> None:
    endpoint = make_endpoint(bearer_token="a-token")
    subscription = make_subscription(endpoint=endpoint)
    endpoints.delete(make_endpoint())
    assert (endpoint.refreshed().state, endpoint.bearer_token, subscription.refreshed().active) == (State.ACTIVE, "a-token", True)


def make_unverified(**over: Any) -> Endpoint:
    return make_endpoint(state=State.UNVERIFIED, **over)


def test_it_activates_what_has_answered_unless_it_was_changed_meanwhile() -> None:
    endpoint, moved = make_unverified(), make_unverified()
    Endpoint.objects.filter(pk=moved.pk).update(url="https://elsewhere.example/")
    assert endpoints.activate_verified(endpoint)
    assert not endpoints.activate_verified(moved)
    assert [row.refreshed().state for row in (endpoint, moved)] == [State.ACTIVE, State.UNVERIFIED]
