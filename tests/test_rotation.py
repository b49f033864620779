"""A new signing secret: both sign during the overlap, and what stands against it is said."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from delivery.endpoints import delete
from delivery.rotation import NotRotatable, rotate
from subscriptions.models import ConfigVersion, Endpoint, new_secret
from tests.builders import make_endpoint

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
Origin = Endpoint.Origin


def test_both_secrets_sign_during_the_overlap() -> None:
    endpoint = make_endpoint()
    old, version, before = endpoint.secret, ConfigVersion.current(), timezone.now()
    rotated = rotate(endpoint.pk, HOUR)
    endpoint.refresh_from_db()
    assert rotated.secret == endpoint.secret != old
    assert endpoint.secrets_at(timezone.now()) == [endpoint.secret, old]
    assert endpoint.previous_secret_expires_at
    assert HOUR <= endpoint.previous_secret_expires_at - before < 2 * HOUR
    assert endpoint.secrets_at(endpoint.previous_secret_expires_at) == [endpoint.secret]
    # Lanes are to sign with it from now on.
    assert ConfigVersion.current() > version


def test_a_secret_that_has_leaked_ends_at_once() -> None:
    endpoint = make_endpoint()
    rotate(endpoint.pk, timedelta(0))
    assert (endpoint.refreshed().previous_secret, endpoint.previous_secret_expires_at) == ("", None)


def test_it_changes_nothing_else() -> None:
    endpoint = make_endpoint(url="https://a.example/", bearer_token="a-token", extra_headers="X-A: b", state=Endpoint.State.PAUSED)
    stale = Endpoint.objects.get(pk=endpoint.pk)
    rotate(stale.pk, HOUR)
    endpoint.refresh_from_db()
    assert (endpoint.url, endpoint.bearer_token, endpoint.extra_headers, endpoint.state) == ("https://a.example/", "a-token", "X-A: b", "paused")


def test_a_rotation_under_way_is_waited_for_or_ended() -> None:
    endpoint = make_endpoint(name="Mine")
    first = rotate(endpoint.pk, HOUR)
    with pytest.raises(NotRotatable, match="rotation of Mine is under way until"):
        rotate(endpoint.pk, HOUR)
    assert endpoint.refreshed().secret == first.secret
    ended = rotate(endpoint.pk, timedelta(0))
    assert ended.secrets_at(timezone.now()) == [ended.secret]


def test_a_rotation_that_is_over_stands_in_nobodys_way() -> None:
    endpoint = make_endpoint(previous_secret=new_secret(), previous_secret_expires_at=timezone.now() - HOUR)
    old = endpoint.secret
    assert rotate(endpoint.pk, HOUR).previous_secret == old


@pytest.mark.parametrize(
    ("origin", "secret", "refused"),
    [(Origin.ENVIRONMENT, "whsec_x", True), (Origin.ENVIRONMENT, "", False), (Origin.PERSON, "whsec_x", False), (Origin.INBOX, "whsec_x", False)],
)
def test_the_secret_of_the_environment_is_changed_there(origin: str, secret: str, refused: bool, settings: Settings) -> None:
    settings.WEBHOOK_SECRET = secret
    endpoint = make_endpoint(origin=origin)
    if refused:
        with pytest.raises(NotRotatable, match="WEBHOOK_SECRET"):
            rotate(endpoint.pk, HOUR)
    else:
        rotate(endpoint.pk, HOUR)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=31)])
def test_an_overlap_is_bounded(overlap: timedelta) -> None:
    endpoint = make_endpoint()
    with pytest.raises(ValueError, match="0 to 30 days"):
        rotate(endpoint.pk, overlap)
    assert endpoint.refreshed().previous_secret == ""


def test_a_deleted_endpoint_has_no_secret_any_more() -> None:
    endpoint = make_endpoint()
    delete(endpoint)
    with pytest.raises(Endpoint.DoesNotExist):
        rotate(endpoint.pk, HOUR)
    assert endpoint.refreshed().secret == ""
