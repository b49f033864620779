"""`/health`, and the thread that looks for it."""

import threading
from unittest import mock

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client

from jetrelay import health
from jetrelay.health import Watch
from subscriptions.models import ConfigVersion
from tests.threads import eventually

pytestmark = pytest.mark.django_db


def test_it_says_ok_with_its_version(client: Client) -> None:
    response = client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": settings.VERSION})
    assert "no-store" in response["Cache-Control"]


def test_it_names_the_part_that_fails_and_keeps_the_details_to_itself(client: Client) -> None:
    with mock.patch.object(ConfigVersion, "current", side_effect=OperationalError("connection to 10.0.0.7 refused")):
        response = client.get("/health")
    assert response.status_code == 503
    assert list(response.json()["problems"]) == ["database"]
    assert "10.0.0.7" not in response.content.decode()


@pytest.mark.parametrize("place", ["_problems", "close_old_connections"])
def test_a_look_that_fails_for_whatever_reason_is_told_and_the_next_is_taken(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(health, "GOOD_S", 0.0)
    # What the watch's thread sees of the database is no matter here.
    monkeypatch.setattr(health, "_problems", dict)
    with monkeypatch.context() as patched:
        patched.setattr(health, place, mock.Mock(side_effect=ZeroDivisionError))
        eventually(lambda: "could not be looked at" in str(watch.problems()))
    eventually(lambda: watch.problems() == {})


def test_where_the_system_has_no_more_threads_the_next_one_who_asks_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(health, "_problems", dict)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            watch.problems()
    eventually(lambda: watch.problems() == {})


def test_it_takes_no_post(client: Client) -> None:
    assert client.post("/health").status_code == 405
