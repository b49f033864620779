"""`/health/ready`: each part fails for a reason of its own, and says what to do."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from delivery.leases import Holding, listener_lease
from delivery.models import Lease
from jetrelay import readiness
from jetrelay.readiness import PARTS, shared
from subscriptions import versions
from subscriptions.models import Source
from tests.builders import make_delivery, make_endpoint, make_health, make_source, make_subscription, make_tenant

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    shared.forget()
    yield
    shared.forget()


def ready() -> tuple[int, dict[str, Any]]:
    """The status, and the problems by part."""
    shared.forget()
    response = Client().get("/health/ready")
    assert list(response.json()["parts"]) == list(PARTS)
    problems = {name: part for name, part in response.json()["parts"].items() if part["status"] != "ok"}
    assert response.json()["status"] == ("unavailable" if problems else "ok")
    return response.status_code, problems


def the_only_problem(part: str) -> str:
    status, problems = ready()
    assert (status, list(problems)) == (503, [part])
    assert problems[part]["status"] == "problem"
    assert problems[part]["do"]
    return str(problems[part]["problem"])


def test_all_is_well() -> None:
    source = make_source()
    make_subscription(source=source)
    assert Holding(listener_lease(source.pk), 60).take()
    make_delivery()
    assert ready() == (200, {})


# --- The broker ------------------------------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_misses_redis_where_nobody_listens(settings: Any, free_port: int) -> None:
    settings.CELERY_BROKER_URL = f"redis://:secret@127.0.0.1:{free_port}/0"
    assert the_only_problem("broker") == "does not answer"
    assert "secret" not in Client().get("/health/ready").content.decode()


def test_it_waits_no_longer_than_its_patience_for_a_broker_that_hangs(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "BROKER_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{hanging.getsockname()[1]}/0"
        assert the_only_problem("broker") == "does not answer"


@pytest.mark.skipif(not (os.environ.get("TEST_REDIS_URL") and shutil.which("redis-server")), reason="about Redis alone: set TEST_REDIS_URL")
def test_it_notices_that_redis_stops(settings: Any, free_port: int, tmp_path: Path) -> None:
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{free_port}/0"
    arguments = ["redis-server", "--port", str(free_port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert any("eady to accept connections" in line for line in server.stdout)
        try:
            assert ready() == (200, {})
        finally:
            server.terminate()
            server.wait(30)
    assert the_only_problem("broker") == "does not answer"


def test_it_writes_where_the_file_broker_does(settings: Any, tmp_path: Path) -> None:
    folders = {"data_folder_out": str(tmp_path / "messages"), "processed_folder": str(tmp_path / "taken")}
    settings.CELERY_BROKER_URL, settings.CELERY_BROKER_TRANSPORT_OPTIONS = "filesystem://localhost", folders
    assert the_only_problem("broker") == "its folder cannot be written to: No such file or directory"
    for folder in folders.values():
        Path(folder).mkdir()
    assert ready() == (200, {})
    assert [list(Path(folder).iterdir()) for folder in folders.values()] == [[], []]


# --- The database ----------------------------------------------------------------------------------------------------


def test_it_names_migrations_that_are_not_applied() -> None:
    recorder = MigrationRecorder(connection)
    newest = max(name for app, name in recorder.applied_migrations() if app == "delivery")
    recorder.record_unapplied("delivery", newest)
    try:
        assert the_only_problem("migrations") == f"1 not applied: delivery.{newest}"
    finally:
        recorder.record_applied("delivery", newest)


@pytest.mark.django_db(transaction=True)
def test_it_tells_a_database_without_tables_from_one_that_is_away() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE delivery_lease RENAME TO elsewhere")
    source = make_source()
    make_subscription(source=source)
    try:
        _, problems = ready()
        assert list(problems) == ["listener", "deliveries"]
        assert all(problem["problem"].startswith("cannot be told") for problem in problems.values())
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO delivery_lease")


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_it_says_that_the_database_is_away(free_port: int) -> None:
    known = connection.settings_dict["HOST"], connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["HOST"], connection.settings_dict["PORT"] = "127.0.0.1", str(free_port)
    try:
        status, problems = ready()
    finally:
        connection.settings_dict["HOST"], connection.settings_dict["PORT"] = known
    assert (status, set(problems)) == (503, set(PARTS) - {"broker"})
    assert problems["database"]["problem"] == "does not answer"
    assert str(free_port) not in str(problems)


# --- The listener ----------------------------------------------------------------------------------------------------


@pytest.fixture
def wanted() -> Source:
    source = make_source()
    make_subscription(source=source)
    return source


def test_it_misses_a_listener(wanted: Source) -> None:
    assert the_only_problem("listener") == "no listener reads the stream"
    lease = Lease.objects.create(name=listener_lease(wanted.pk), expires_at=timezone.now() - HOUR)
    assert the_only_problem("listener") == "no listener reads the stream"
    # As at a change from one to the other.
    Lease.objects.filter(pk=lease.pk).update(expires_at=timezone.now() - timedelta(seconds=2))
    assert ready() == (200, {})


def test_it_misses_none_where_nobody_wants_anything_of_the_stream() -> None:
    source = make_source()
    assert ready() == (200, {})
    make_subscription(source=source, active=False)
    make_subscription(source=source, endpoint=make_endpoint(state="deleted"))
    assert ready() == (200, {})


# --- Deliveries ------------------------------------------------------------------------------------------------------


def test_it_notices_that_nobody_delivers(settings: Any) -> None:
    settings.JETRELAY_READY_MAX_LAG_S = 600
    make_delivery(due_at=timezone.now() - timedelta(seconds=500))
    assert ready() == (200, {})
    make_delivery(due_at=timezone.now() - 2 * HOUR)
    problem = the_only_problem("deliveries")
    assert problem.startswith("the oldest has been due for 7,2")
    assert "600 s is the bound (JETRELAY_READY_MAX_LAG_S)" in problem


def test_what_waits_for_its_endpoint_is_nobodys_fault() -> None:
    now = timezone.now()
    endpoints = [
        *(make_endpoint(state=state) for state in ("paused", "disabled", "unverified", "deleted")),
        make_health(open_until=now + HOUR).endpoint,
        make_health(open_until=now - HOUR).endpoint,
        make_health(open_until=None, paused_until=now + HOUR).endpoint,
        make_health(open_until=None, ramp=4).endpoint,
        make_endpoint(rate_limit_per_s=0.01),
        make_endpoint(ordered=True),
    ]
    for endpoint in endpoints:
        make_delivery(endpoint=endpoint, due_at=now - 9 * HOUR)
    assert ready() == (200, {})


# --- Its cost --------------------------------------------------------------------------------------------------------


def test_those_who_ask_within_a_second_share_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look() -> dict[str, None]:
        looks.append(1)
        return dict.fromkeys(PARTS)

    monkeypatch.setattr(readiness, "look", look)
    for _ in range(3):
        assert Client().get("/health/ready").status_code == 200
    assert len(looks) == 1


def test_live_is_told_apart_from_ready(settings: Any, free_port: int) -> None:
    """A supervisor must not restart the web server because the broker is away."""
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{free_port}/0"
    assert [Client().get(path).status_code for path in ("/health", "/health/ready")] == [200, 503]


def test_it_knows_every_migration_of_this_version() -> None:
    call_command("migrate", "--check", verbosity=0)
    assert ("delivery", "0009_totals") in versions.known()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_it_names_a_session_that_holds_back_cleaning_up_and_is_ready_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetrelay.horizon.LONG_S", 0)
    there, over = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            make_tenant()
            there.set()
            over.wait(60)
            transaction.set_rollback(True)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert there.wait(30)
    shared.forget()
    answer = Client().get("/health/ready").json()
    over.set()
    holder.join()
    assert answer["parts"]["database"]["status"] == "ok"
    assert "nothing that was settled since can be cleaned up: a session's transaction" in answer["parts"]["database"]["note"]
