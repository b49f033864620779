"""Sessions that may only read from some moment on, as when another server has become the primary: they are let go of, and new ones made.

A session of its own that is made read-only stands for that: only a new one can write.
"""

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, InternalError, connection
from django.test import Client

from delivery import crew
from delivery.destinations.exchange import Inbox
from jetrelay import patience
from jetrelay.away import is_demoted, refusal
from subscriptions.models import ConfigVersion
from tests.builders import make_api_key, make_endpoint, make_member, make_tenant

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


def demote() -> None:
    connection.ensure_connection()
    connection.connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")


def write() -> None:
    ConfigVersion.bump()


def end_of_request() -> None:
    """What Django does then, and its test client does not."""
    connection.close_if_unusable_or_obsolete()


def test_it_is_known_by_its_code() -> None:
    demote()
    with pytest.raises(InternalError) as caught:
        write()
    assert is_demoted(caught.value)
    assert refusal(caught.value)
    assert not is_demoted(DatabaseError("another"))
    connection.close()


def test_pages_and_the_api_say_when_to_come_again_and_the_next_request_finds_the_primary() -> None:
    tenant = make_tenant()
    endpoint, (_, key) = make_endpoint(tenant=tenant), make_api_key(tenant=tenant)
    client = Client(raise_request_exception=False)
    client.force_login(make_member(tenant, "owner"))

    def by_api() -> Any:
        path = f"/api/v1/endpoints/{endpoint.public_id}/pause"
        return client.post(path, "{}", content_type="application/json", headers={"authorization": f"Bearer {key}"})

    def by_page() -> Any:
        return client.post(f"/endpoints/{endpoint.public_id}/resume/")

    for ask in (by_api, by_page):
        demote()
        answer = ask()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert b"takes no writes" in answer.content
        end_of_request()
        assert connection.connection is None
        assert ask().status_code in (200, 302)
        end_of_request()
        assert connection.connection is not None, "one that can write is kept"


def test_other_errors_of_a_request_cost_no_connection() -> None:
    with patience.patience(5), pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")
    assert connection.close_at is None or connection.close_at > monotonic()


def test_the_crew_goes_on_with_a_new_session() -> None:
    tenure: Any = SimpleNamespace(keep_lease=write, sends=False, lines={}, note_business=lambda: None)
    work = crew._Work(Inbox())
    demote()
    work.do([tenure])
    assert connection.connection is None
    before = ConfigVersion.current()
    work.do([tenure])
    assert ConfigVersion.current() == before + 1
