"""In which state an endpoint was when: what it left is kept, with why and how long."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from delivery import endpoints
from subscriptions.models import Endpoint, EndpointPastState
from tests.builders import make_endpoint

pytestmark = pytest.mark.django_db

State = Endpoint.State
HOUR = timedelta(hours=1)


def state_at(endpoint: Endpoint, moment: datetime) -> tuple[str, str] | None:
    return Endpoint.objects.filter(pk=endpoint.pk).state_at(moment)[endpoint.pk]


def made(ago: timedelta) -> Endpoint:
    moment = timezone.now() - ago
    return make_endpoint(created_at=moment, state_changed_at=moment)


def test_it_is_in_its_present_state_since_that_began() -> None:
    endpoint = made(HOUR)
    assert state_at(endpoint, timezone.now()) == state_at(endpoint, endpoint.created_at) == (State.ACTIVE, "")
    assert state_at(endpoint, endpoint.created_at - timedelta(microseconds=1)) is None


def test_every_state_is_found_again_at_its_time() -> None:
    endpoint = made(HOUR)
    moments = [timezone.now()]
    for act in (lambda rows: endpoints.pause(rows, "for lunch"), endpoints.resume, lambda rows: endpoints.disable(rows, "for good"), endpoints.enable):
        act(Endpoint.objects.all())
        moments.append(timezone.now())
    endpoints.delete(endpoint, "deleted by ada")
    moments.append(timezone.now())
    assert [state_at(endpoint, moment) for moment in moments] == [
        (State.ACTIVE, ""),
        (State.PAUSED, "for lunch"),
        (State.ACTIVE, ""),
        (State.DISABLED, "for good"),
        (State.ACTIVE, ""),
        (State.DELETED, "deleted by ada"),
    ]
    ends = list(EndpointPastState.objects.values_list("from_at", "to_at"))
    # Without a hole between them.
    assert [end for _, end in ends] == [*(start for start, _ in ends[1:]), endpoint.refreshed().state_changed_at]


def test_a_state_ends_where_the_next_one_begins() -> None:
    endpoint = made(HOUR)
    endpoints.pause(Endpoint.objects.all(), "for lunch")
    changed = endpoint.refreshed().state_changed_at
    assert state_at(endpoint, changed) == (State.PAUSED, "for lunch")
    assert state_at(endpoint, changed - timedelta(microseconds=1)) == (State.ACTIVE, "")


def test_what_was_not_written_down_was_most_likely_active() -> None:
    endpoint = made(HOUR)
    Endpoint.objects.update(state=State.DISABLED, state_reason="long ago", state_changed_at=timezone.now())
    assert state_at(endpoint, timezone.now() - timedelta(minutes=30)) == (State.ACTIVE, "")


def test_nothing_is_written_down_where_nothing_changes() -> None:
    made(HOUR)
    endpoints.resume(Endpoint.objects.all())
    Endpoint.objects.all().set_state(State.ACTIVE, "again")
    assert not EndpointPastState.objects.exists()


def test_it_answers_for_each_of_many() -> None:
    old, new = made(HOUR), make_endpoint()
    endpoints.pause(Endpoint.objects.filter(pk=old.pk), "for lunch")
    assert Endpoint.objects.all().state_at(timezone.now() - timedelta(minutes=30)) == {old.pk: (State.ACTIVE, ""), new.pk: None}
