"""Which errors say that the database cannot be reached: real ones, of both engines."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connection, transaction

from jetrelay.away import is_away, is_passing
from jetrelay.bench.processes import free_port
from tests.whole import ROOT


def caused_by(deed: Callable[[], object], as_: type[DatabaseError | InterfaceError] = OperationalError) -> Exception:
    """The error as Django passes it on."""
    try:
        deed()
    except (psycopg.Error, sqlite3.Error) as error:
        found = as_(*error.args)
        found.__cause__ = error
        return found
    raise AssertionError("it went well")


def test_a_closed_port() -> None:
    assert is_away(caused_by(lambda: psycopg.connect(f"postgres://127.0.0.1:{free_port()}/x")))


def test_sqlite_out_of_reach_held_by_others_or_without_a_table(tmp_path: Path) -> None:
    assert is_away(caused_by(lambda: sqlite3.connect(tmp_path).execute("SELECT 1")))
    with (
        sqlite3.connect(tmp_path / "a", timeout=0.01, isolation_level=None) as one,
        sqlite3.connect(tmp_path / "a", timeout=0.01, isolation_level=None) as other,
    ):
        one.execute("BEGIN EXCLUSIVE")
        assert is_away(caused_by(lambda: other.execute("BEGIN EXCLUSIVE")))
        one.execute("ROLLBACK")
        missing = caused_by(lambda: other.execute("SELECT * FROM nothing"))
    one.close()
    other.close()
    assert (is_away(missing), is_passing(missing)) == (False, False)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_was_ended_and_a_lock_that_was_not_to_be_had() -> None:
    def end_it() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError) as ended:
        end_it()
    connection.close()
    assert is_away(ended.value)

    def lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE delivery_lease NOWAIT")

    with transaction.atomic():
        lock()
        refused: list[Exception] = []

        def other() -> None:
            try:
                with transaction.atomic():
                    lock()
            except OperationalError as error:
                refused.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert [(is_away(error), is_passing(error)) for error in refused] == [(False, True)]


def test_other_errors_are_none() -> None:
    assert not any(is_away(error) for error in (None, KeyError(), IntegrityError(), DatabaseError()))


@pytest.mark.whole
@pytest.mark.parametrize("command", ["bootstrap", "prune --dry-run", "rotate_encryption_keys --check", "migrate --check"])
def test_a_command_says_in_a_line_what_is_wrong_with_the_database(command: str, tmp_path: Path) -> None:
    def said(url: str) -> str:
        env = {"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "JETRELAY_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": url}
        ran = subprocess.run([sys.executable, "manage.py", *command.split()], cwd=ROOT, env=env, check=False, capture_output=True, text=True)
        assert ran.returncode
        return ran.stderr.strip()

    away = said(f"postgres://jetrelay@127.0.0.1:{free_port()}/x")
    assert away.startswith("jetrelay: The database does not answer: ")
    assert away.endswith("Check DATABASE_URL, and whether the database runs.")
    assert "\n" not in away
    if not command.startswith("migrate"):
        assert re.fullmatch(
            r"jetrelay: There is no installation of this version here: no such table: \w+\. Migrate it \(python manage.py migrate\), .*",
            said(f"sqlite:///{tmp_path}/empty.sqlite3"),
        )
