"""A database that answers and takes no writes: readiness, doctor, pages, the API and commands say so, each in words."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client

from delivery.models import Lease
from jetrelay import readiness
from jetrelay.doctor import database, running
from jetrelay.doctor.finding import Finding, Level
from jetrelay.doctor.registry import Check
from tests.whole import ROOT


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    readiness.shared.forget()
    yield
    readiness.shared.forget()


def examined() -> list[Finding]:
    """As doctor does it: on a thread and a connection of its own."""
    return running.within_limit(Check("database", database.database))


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only_by_default() -> Iterator[None]:
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    connection.close()
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        connection.close()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_readiness_and_doctor_notice_that_it_is_read_only() -> None:
    assert readiness.database() is None
    assert Level.PROBLEM not in {finding.level for finding in examined()}
    with read_only_by_default():
        response = Client().get("/health/ready")
        part = response.json()["parts"]["database"]
        assert (response.status_code, part["problem"]) == (503, "takes no writes: it is read-only")
        assert "default_transaction_read_only" in part["do"]
        (problem,) = (finding for finding in examined() if finding.level is Level.PROBLEM)
        assert problem.found.endswith("takes no writes: it is read-only")
        # Pages and the API say it too, instead of failing.
        page = Client(raise_request_exception=False).post("/login/", {"username": "ada", "password": "x"})
        assert page.status_code in (200, 503)
    assert readiness.database() is None


@pytest.mark.django_db(transaction=True)
def test_the_trial_leaves_nothing_behind() -> None:
    assert readiness.database() is None
    assert all(finding.level != Level.PROBLEM for finding in examined())
    assert not Lease.objects.exists()
    assert list(connections) == ["default"]


# --- SQLite, on a disk of its own ------------------------------------------------------------------------------------


def manage(folder: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_DATA_DIR": str(folder), **more}
    return subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=110)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data directory of an installation, on a disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or not shutil.which("mount") or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False).returncode:
        pytest.skip("wants to mount a disk: run as root")
    try:
        assert manage(disk / "data", "migrate", "-v0").returncode == 0
        assert manage(disk / "data", "bootstrap").returncode == 0
        # As while processes run: the last one to leave takes the write-ahead log along, which then could not be made again.
        with contextlib.closing(sqlite3.connect(disk / "data" / "jetrelay.sqlite3")) as held:
            held.execute("SELECT count(*) FROM delivery_lease").fetchone()
            yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


ASK = """
import json, sys
import django
from django.conf import settings
django.setup()
from django.test import Client
client = Client(raise_request_exception=False, SERVER_NAME="localhost")
answers = {}
for method, path in json.loads(sys.argv[1]):
    response = client.generic(method, path, "username=admin&password=x", "application/x-www-form-urlencoded")
    answers[path] = (response.status_code, response.content.decode())
print(json.dumps(answers))
"""


def asked(folder: Path, *requests: tuple[str, str]) -> tuple[dict[str, Any], str]:
    env = {"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_DATA_DIR": str(folder)}
    env["DJANGO_SETTINGS_MODULE"] = "jetrelay.settings"
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(requests)], cwd=ROOT, env=env, check=True, capture_output=True, text=True, timeout=110)
    return json.loads(done.stdout), done.stderr


def test_a_full_disk_is_named_by_readiness_and_doctor(small_disk: Path) -> None:
    folder = small_disk / "data"
    fill(small_disk)
    answers, log = asked(folder, ("GET", "/health/ready"), ("GET", "/health"))
    parts = json.loads(answers["/health/ready"][1])["parts"]
    assert (answers["/health/ready"][0], parts["database"]["problem"]) == (503, "takes no writes: its disk is full")
    assert parts["broker"]["problem"] == "its folder cannot be written to: No space left on device"
    assert "Traceback" not in log
    # Reading goes on, and a supervisor that started it again would mend nothing.
    assert answers["/health"][0] == 200
    done = manage(folder, "doctor")
    assert "takes no writes: its disk is full" in done.stdout
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_disk_that_was_full_before_anybody_came_is_named_too(small_disk: Path) -> None:
    for beside in ("jetrelay.sqlite3-wal", "jetrelay.sqlite3-shm"):
        assert (small_disk / "data" / beside).exists()
    copy = small_disk / "data" / "alone.sqlite3"
    with contextlib.closing(sqlite3.connect(small_disk / "data" / "jetrelay.sqlite3")) as held:
        held.execute(f"VACUUM INTO '{copy}'")
        held.execute("SELECT 1")
    with contextlib.closing(sqlite3.connect(copy)) as held:
        held.execute("PRAGMA journal_mode=WAL")
    fill(small_disk)
    done = manage(small_disk / "data", "prune", DATABASE_URL=f"sqlite:///{copy}")
    assert (done.returncode, done.stderr.count("\n"), "its disk is full" in done.stderr) == (1, 1, True), done.stderr


def test_a_command_that_meets_a_full_disk_says_so_in_a_line(small_disk: Path) -> None:
    folder = small_disk / "data"
    fill(small_disk)
    for words in (("create_tenant", "acme"), ("bootstrap",), ("migrate", "subscriptions", "zero")):
        done = manage(folder, *words, WEBHOOK_URL="https://one.example/hook", JETSTREAM_COLLECTIONS="*")
        assert (words, done.returncode) == (words, 1)
        assert (words, done.stderr.startswith("jetrelay: "), done.stderr.count("\n"), "full" in done.stderr) == (words, True, 1, True), done.stderr
