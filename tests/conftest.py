"""Fixtures for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.cache import cache, caches
from django.db import connection
from django.utils import timezone

from delivery import crew, ingest, owing, tenure
from delivery.destinations import http
from jetrelay import askers, counting
from jetrelay.api import events, idempotency, limits
from jetrelay.front import threads as front_threads
from subscriptions import keys
from tests.draining import when
from tests.receiver import Receiver


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """A file, as users have it: SQLite in memory locks whole tables, and keeps the locks of connections that cannot be closed."""
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(Path(os.environ["JETRELAY_DATA_DIR"]) / "test.sqlite3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("django_db") or {"db", "transactional_db"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.database)
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
    if connection.vendor != "postgresql":
        skip = pytest.mark.skip(reason="about PostgreSQL alone: set TEST_DATABASE_URL")
        for item in items:
            if item.get_closest_marker("postgresql"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _nobody_has_tried() -> None:
    """No test pays for passwords that another one tried."""
    caches["tries"].clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A local endpoint that remembers what it got and can be told to misbehave."""
    with Receiver() as running:
        yield running


@pytest.fixture
def hanging() -> Iterator[Receiver]:
    """A receiver that answers nothing before it is told to, by `closing`."""
    with Receiver() as running:
        running.answer = when(running.closing)
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lanes that end soon after their last delivery, and notice at once when something was changed."""
    monkeypatch.setattr(tenure, "LINGER_S", 0.05)
    # As in production, where they stay for twice as long: nobody leaves without having looked once more.
    monkeypatch.setattr(crew, "MAX_POLL_S", 0.025)
    monkeypatch.setattr(crew, "CONFIG_EVERY_S", 0.02)
    yield
    tenure.stopping.clear()


@pytest.fixture(autouse=True)
def _no_tries_of_other_tests() -> None:
    """What was tried in another test is not counted in this one."""
    counting.clear()


@pytest.fixture
def one_window() -> Iterator[Any]:
    """A time at which no window in which guesses are counted ends."""
    with time_machine.travel(timezone.now().replace(hour=12, minute=0, second=0, microsecond=0), tick=False) as clock:
        yield clock


@pytest.fixture
def cheap_passwords(settings: Any) -> None:
    """Where many are tried: a password's digest is slow by design, and how slow is Django's matter."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _rested() -> None:
    """Nobody is busy because of the test before."""
    for part in (ingest.posting, crew.delivering, front_threads.answering):
        part.forget()


@pytest.fixture
def fresh_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The API of a process that has just started, whose posted events are stored in the test's own transaction."""
    monkeypatch.setattr(ingest, "publisher", ingest.OneByOne())

    def forget() -> None:
        keys.forget()
        askers.keys.clear()
        limits._windows.clear()
        idempotency._held.clear()
        owing.forget()
        events._sources.clear()
        cache.clear()

    forget()
    yield
    forget()


@pytest.fixture(scope="session", autouse=True)
def _end_senders() -> Iterator[None]:
    yield
    http.stop_senders()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("JETRELAY_TESTS_MUST_NOT_SKIP"):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped where none may be.", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and os.environ.get("JETRELAY_TESTS_MUST_NOT_SKIP"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
