"""One greedy tenant, or one stranger, at a real web process: others' pages, calls and `/health` are answered meanwhile."""

import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from jetrelay.front.places import CALLS
from subscriptions.models import Membership
from tests.api import Api, api_of
from tests.builders import make_api_source, make_endpoint, make_tenant
from tests.crowd import Crowd, ask, database_url, serving

pytestmark = [pytest.mark.whole, pytest.mark.django_db(transaction=True)]

# Larger than what the system itself takes in for a client that reads nothing.
LARGE = "/static/drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js.map"


@contextmanager
def locked(statement: str) -> Iterator[None]:
    """The database with a lock on it that whoever writes waits for."""
    if connection.vendor == "sqlite":
        held = sqlite3.connect(str(connection.settings_dict["NAME"]), isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            held.close()
        return
    with psycopg.connect(database_url()) as session:
        session.execute(statement)
        yield
        session.rollback()


class Others:
    """Another tenant's program and one of its people, and the operator's probes."""

    def __init__(self, port: int) -> None:
        self.port = port
        tenant = make_tenant(slug="modest")
        self.api = api_of(tenant)
        client, user = Client(), User.objects.create_user("ada")
        Membership.objects.create(user=user, tenant=tenant, role=Membership.Role.MEMBER)
        client.force_login(user)
        self._cookie = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"}
        self.are_answered()

    def are_answered(self) -> None:
        # Twice as many as there are threads: what stands in a queue behind somebody would be seen.
        for _ in range(10):
            assert ask(self.port, "GET", "/health")[0] == 200
            assert ask(self.port, "GET", "/api/v1/endpoints", headers=bearer(self.api))[0] == 200
            assert ask(self.port, "GET", "/endpoints/", headers=self._cookie)[0] == 200
        assert ask(self.port, "GET", "/login/")[0] == 200
        assert "parts" in ask(self.port, "GET", "/health/ready")[1]


def bearer(api: Api) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.text}"}


def test_sixty_slow_calls_of_one_tenant_keep_nobody_else_waiting(tmp_path: Path) -> None:
    greedy = api_of(make_tenant(slug="greedy"))
    assert greedy.key
    endpoint = make_endpoint(tenant=greedy.key.tenant)
    with serving(tmp_path / "web.log") as port:
        others = Others(port)
        path = f"/api/v1/endpoints/{endpoint.public_id}"
        assert ask(port, "GET", path, headers=bearer(greedy))[0] == 200
        with ExitStack() as stack:
            lock = stack.enter_context(ExitStack())
            lock.enter_context(locked(f"SELECT 1 FROM subscriptions_endpoint WHERE id = '{endpoint.pk}' FOR UPDATE"))
            crowd = stack.enter_context(Crowd(port, 60, "PATCH", path, {"name": "b"}, bearer(greedy)))
            others.are_answered()
            # And of those that are more than a share some are told so at once.
            more = stack.enter_context(Crowd(port, CALLS // 2, "PATCH", path, {"name": "c"}, bearer(greedy)))
            more.wait_for(60)
            others.are_answered()
            lock.close()
        assert crowd.answers
        assert {status for status, _ in crowd.answers} <= {200, 503}
        refused = [body for status, body in more.answers if status == 503]
        assert refused
        assert {body["code"] for body in refused} <= {"busy", "unavailable"}


def test_posts_of_one_tenant_that_wait_for_the_database_keep_nobody_else_waiting(tmp_path: Path) -> None:
    greedy = api_of(make_tenant(slug="greedy"))
    make_api_source()
    with serving(tmp_path / "web.log") as port:
        others = Others(port)
        event = {"type": "a.b", "data": 1}
        assert ask(port, "POST", "/api/v1/events", event, bearer(greedy))[0] == 202
        with ExitStack() as stack:
            lock = stack.enter_context(ExitStack())
            lock.enter_context(locked("LOCK TABLE delivery_event IN EXCLUSIVE MODE"))
            crowd = stack.enter_context(Crowd(port, 160, "POST", "/api/v1/events", event, bearer(greedy)))
            others.are_answered()
            lock.close()
        found = Counter(status for status, _ in crowd.answers)
        assert found.total() == 160
        assert set(found) <= {202, 503}
        assert found[202] >= 50


def test_clients_that_read_nothing_of_a_large_file_keep_nobody_else_waiting(tmp_path: Path) -> None:
    with serving(tmp_path / "web.log") as port, ExitStack() as clients:
        others = Others(port)
        for _ in range(80):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(f"GET {LARGE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        others.are_answered()
        clients.close()
        assert ask(port, "GET", LARGE)[0] == 200
