"""How long the database works for a request: a statement ends in time, and whoever asked is told in words."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import Client

from jetrelay import patience
from jetrelay.api import problems
from jetrelay.away import TookTooLong, is_away, is_held, is_passing, took_too_long
from subscriptions.models import Endpoint
from tests.builders import make_api_key, make_endpoint, make_member, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)

# What nobody waits for, in the tongue of either engine.
ENDLESS = (
    "SELECT pg_sleep(600)" if connection.vendor == "postgresql"
    else "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n"
)  # fmt: skip


def ask(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        cursor.fetchall()


def setting(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


def test_a_statement_without_end_is_ended() -> None:
    with patience.patience(0.2), pytest.raises(OperationalError) as ended:
        ask(ENDLESS)
    assert (took_too_long(ended.value), is_held(ended.value), is_away(ended.value), is_passing(ended.value)) == (True, False, False, True)
    ask("SELECT 1")


def test_one_in_a_transaction_leaves_a_connection_that_can_go_on() -> None:
    with patience.patience(0.2), pytest.raises(OperationalError), transaction.atomic():
        ask(ENDLESS)
    assert Endpoint.objects.count() == 0


def test_a_new_connection_has_the_limit_from_its_first_statement_on() -> None:
    connection.close()
    with patience.patience(0.2), pytest.raises(OperationalError) as ended:
        ask(ENDLESS)
    assert took_too_long(ended.value)
    connection.close()


def test_many_statements_of_one_request_have_a_limit_together() -> None:
    def go_on() -> None:
        while True:
            ask("SELECT 1")

    with patience.patience(0.02), pytest.raises(TookTooLong) as ended:
        go_on()
    assert (took_too_long(ended.value), is_away(ended.value)) == (True, False)


@pytest.mark.postgresql
def test_a_connection_that_was_there_before_has_no_limit_afterwards() -> None:
    ask("SELECT 1")
    with patience.patience(2):
        assert (setting("statement_timeout"), setting("lock_timeout")) == ("2s", "2s")
    assert (setting("statement_timeout"), setting("lock_timeout")) == ("0", "0")


@pytest.mark.postgresql
def test_a_transaction_of_ours_that_stands_still_is_ended_by_the_server() -> None:
    connection.close()
    assert setting("idle_in_transaction_session_timeout") == "5min"
    assert setting("statement_timeout") == "0", "and whoever is no request takes as long as it needs"


# --- pages and calls -------------------------------------------------------------------------------------------------


def browser() -> tuple[Client, dict[str, str]]:
    client, (_, key) = Client(raise_request_exception=False), make_api_key()
    client.force_login(make_member(make_tenant(), "owner", is_staff=True, is_superuser=True))
    return client, {"authorization": f"Bearer {key}"}


PATHS = ("/", "/deliveries/", "/endpoints/", "/events/", "/replays/new/?action=replay&delivery_state=dead", "/members/", "/audit/", "/admin/delivery/delivery/")
CALLS = ("/api/v1/deliveries", "/api/v1/endpoints", "/api/v1/stats")


def test_a_page_or_call_that_takes_too_long_says_so(settings: Any) -> None:
    client, key = browser()
    settings.JETRELAY_REQUEST_LIMIT_S = 1e-6
    for path in PATHS:
        answer = client.get(path)
        assert (path, answer.status_code, answer.headers["Retry-After"]) == (path, 503, "5")
        assert "This took too long" in answer.content.decode()
    for path in CALLS:
        answer = client.get(path, headers=key)
        assert (path, answer.status_code, answer.json()["code"], answer.json()["detail"]) == (path, 503, "took_too_long", problems.TOO_LONG)
    settings.JETRELAY_REQUEST_LIMIT_S = 60
    assert {client.get(path, headers=key).status_code for path in CALLS} == {200}


@contextmanager
def held(sql: str) -> Iterator[None]:
    """Somebody else's transaction has done this, and goes on."""
    there, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(sql)
                there.set()
                over.wait(60)
                transaction.set_rollback(True)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert there.wait(30)
    try:
        yield
    finally:
        over.set()
        holder.join()


@pytest.mark.postgresql
def test_a_page_does_not_wait_for_a_row_that_somebody_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LOCK_S", 0.1)
    client, key = browser()
    endpoint = make_endpoint()
    with held(f"SELECT 1 FROM subscriptions_endpoint WHERE id = '{endpoint.pk}' FOR UPDATE"):
        began = monotonic()
        page = client.post(f"/endpoints/{endpoint.public_id}/pause/")
        call = client.post(f"/api/v1/endpoints/{endpoint.public_id}/pause", "{}", content_type="application/json", headers=key)
        assert monotonic() - began < 20
    assert (page.status_code, problems.HELD in page.content.decode()) == (503, True)
    assert (call.status_code, call.json()["code"]) == (503, "held")
    endpoint.refresh_from_db()
    assert endpoint.state == Endpoint.State.ACTIVE
