"""Code and database of different versions: nothing starts, and each program says in a line which migrations and what to do."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from jetrelay import readiness
from jetrelay.bench.processes import BEAT, WORKER, free_port
from subscriptions import versions
from tests.whole import ROOT

NEWER, MISSING = "delivery.9999_from_the_future", "delivery.0009_totals"
PROGRAMS = {
    "listener": ["manage.py", "run_jetstream"],
    "worker": WORKER,
    "beat": BEAT,
    "web": ["-m", "granian", "--interface", "wsgi", "--log-config", "jetrelay/logs/granian.json", "jetrelay.wsgi:application"],
    "bootstrap": ["manage.py", "bootstrap"],
    "up": ["manage.py", "up"],
}


@pytest.mark.django_db
def test_it_objects_to_both_and_to_nothing_else(settings: Settings) -> None:
    recorder = MigrationRecorder(connection)
    assert versions.objection() is None
    # Somebody else's migrations are not ours to judge.
    recorder.record_applied("auth", "9999_of_a_newer_django")
    assert (versions.objection(), readiness.migrations()) == (None, None)
    recorder.record_applied(*NEWER.split("."))
    why = versions.objection()
    assert why is not None
    assert why.startswith(f"A newer Jetrelay than {settings.VERSION} has migrated this database: {NEWER}. Start that version")
    problem = readiness.migrations()
    assert problem is not None
    assert problem.problem == f"a newer version has applied {NEWER}"
    settings.JETRELAY_ACCEPT_NEWER_DATABASE = True
    assert (versions.objection(), readiness.migrations()) == (None, None)
    recorder.record_unapplied(*MISSING.split("."))
    why = versions.objection()
    assert why is not None
    assert why.endswith(f"not applied: {MISSING}. Make a backup and run: python manage.py migrate")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installation")
    for command in ("migrate", "bootstrap"):
        assert run(folder, "manage.py", command).returncode == 0
    return folder


def run(folder: Path, *argv: str, **more: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_DATA_DIR": str(folder), **more}
    env["PORT"] = env["GRANIAN_PORT"] = str(free_port())
    return subprocess.run([sys.executable, *argv], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.whole
# `up` migrates what is behind: nothing is wrong with that.
@pytest.mark.parametrize(("program", "which"), [(name, which) for name in PROGRAMS for which in ("newer", "behind") if (name, which) != ("up", "behind")])
def test_no_program_starts(program: str, which: str, installation: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(installation / "jetrelay.sqlite3")) as source, closing(sqlite3.connect(tmp_path / "jetrelay.sqlite3")) as copy:
        source.backup(copy)
        app, name = (NEWER if which == "newer" else MISSING).split(".")
        statement = (
            "INSERT INTO django_migrations (app, name, applied) VALUES (?, ?, '2030-01-01')"
            if which == "newer"
            else "DELETE FROM django_migrations WHERE app = ? AND name = ?"
        )
        copy.execute(statement, (app, name))
        copy.commit()
    done = run(tmp_path, *PROGRAMS[program])
    said = done.stdout + done.stderr
    assert done.returncode not in (0, None), said
    assert (NEWER if which == "newer" else MISSING) in said
    assert "Traceback" not in said
