"""Files are for the user that Jetrelay runs as: from the first start, whatever the umask is, and mended where they were not."""

import contextlib
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetrelay import own_files
from jetrelay.doctor import disk
from jetrelay.doctor.finding import Level
from tests.whole import ROOT, Program, engines, up

UMASKS = (0o002, 0o022, 0o027, 0o077)
# What opens the files: with each a first start, and with each a later one.
COMMANDS = (
    ("manage.py", "migrate", "-v0"),
    ("manage.py", "shell", "-c", "from django.db import connection; connection.ensure_connection()"),
    ("manage.py", "doctor"),
    ("-c", "import jetrelay.wsgi"),
)
KEYS = {"SECRET_KEY": "x" * 60, "JETRELAY_ENCRYPTION_KEYS": "A" * 43 + "="}


def modes(folder: Path) -> dict[str, int]:
    """Of the folder and all that is in it."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            found[str(path.relative_to(folder))] = stat.S_IMODE(path.lstat().st_mode)
    return found


def too_open(folder: Path) -> dict[str, str]:
    return {name: f"{mode:04o}" for name, mode in modes(folder).items() if mode & 0o077}


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def run(*argv: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *argv], env=env | {"PYTHONDONTWRITEBYTECODE": "1"}, cwd=ROOT, capture_output=True, text=True, timeout=120)


def as_it_was(folder: Path) -> Path:
    """A data directory as version 0.1.0 left it under the umask 022."""
    for part in ("broker/messages", "broker/taken", "dictionaries", "demo/broker/messages"):
        (folder / part).mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / own_files.DATABASE)) as database:
        database.execute("CREATE TABLE kept (word TEXT)")
    names = ("secrets.json", "up.lock", "broker/messages/1.lanes.msg", "dictionaries/host.zstd-dictionary", "demo/up.lock", "demo/secrets.json")
    for name in (*names, *(f"{own_files.DATABASE}{suffix}" for suffix in ("-wal", "-shm", "-journal"))):
        (folder / name).touch()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def mend(folder: Path, database: str = "", *, default: bool = False) -> list[str]:
    return own_files.mend(folder, database, default=default)


# --- The first start ------------------------------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("mask", UMASKS)
def test_everything_that_up_makes_is_for_its_user_alone(mask: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with engines("embedded", data) as env, umask(mask), up(env, tmp_path / "log", "--demo") as program:
        program.wait_for_output(r"Jetrelay is running")
        program.wait_for_output(r"(?i)listening|connected|worker is ready|running:")
        # While it runs, so that the -wal and the messages under way are seen.
        seen = {name: each for _ in range(50) for name, each in modes(data).items()}
    assert {f"demo/{name}" for name in ("secrets.json", "up.lock", own_files.DATABASE, f"{own_files.DATABASE}-wal", "broker/messages")} <= set(seen)
    assert {name: f"{each:04o}" for name, each in (seen | modes(data)).items() if each & 0o077} == {}


@pytest.mark.whole
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_so_is_what_any_other_command_makes(command: tuple[str, ...], tmp_path: Path) -> None:
    data = tmp_path / "data"
    with engines("embedded", data) as env, umask(0):
        run(*command, env=env | KEYS | {"DATABASE_URL": f"sqlite:///{tmp_path}/elsewhere/own.sqlite3"})
        run(*command, env=env | KEYS)
    assert modes(data)
    assert too_open(data) == {}
    assert too_open(tmp_path / "elsewhere") == {}


@pytest.mark.whole
def test_a_dump_that_a_command_writes_is_nobody_elses(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env, umask(0o022):
        run("manage.py", "migrate", "-v0", env=env | KEYS)
        run("manage.py", "dumpdata", "auth", "--output", str(tmp_path / "dump.json"), env=env | KEYS)
    assert stat.S_IMODE((tmp_path / "dump.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("mask", UMASKS)
def test_a_database_is_made_private_whoever_opens_it_and_so_is_what_lies_beside_it(mask: int, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.sqlite3"
    with umask(mask):
        own_files.make_folder(path.parent)
        with contextlib.closing(sqlite3.connect(path, factory=own_files.Connection)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE kept (word TEXT)")
            assert set(modes(path.parent)) == {".", "b.sqlite3", "b.sqlite3-wal", "b.sqlite3-shm"}
            assert too_open(path.parent) == {}
    with contextlib.closing(sqlite3.connect(":memory:", factory=own_files.Connection)) as database:
        assert database.execute("SELECT 1").fetchone() == (1,)


# --- A later start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", [True, False])
def test_it_closes_what_an_earlier_version_left_open_and_says_so_once(default: bool, tmp_path: Path) -> None:
    data = as_it_was(tmp_path / "data")
    (said,) = mend(data, default=default)
    assert said.startswith(f"Other users of this machine could get at {data} (0755), {data}/secrets.json (0644), {data}/up.lock (0644)")
    assert "more: closed to all but the user that Jetrelay runs as" in said
    assert too_open(data) == {}
    assert mend(data, default=default) == []


@pytest.mark.whole
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_does(command: tuple[str, ...], tmp_path: Path) -> None:
    data = as_it_was(tmp_path / "data")
    (data / "secrets.json").write_text("{}")
    with engines("embedded", data) as env:
        first, second = run(*command, env=env | KEYS), run(*command, env=env | KEYS)
    assert too_open(data) == {}
    words = "Other users of this machine could get at"
    assert first.stderr.count(words) == 1, first.stderr
    assert words not in second.stderr


@pytest.mark.whole
def test_a_running_worker_and_beat_do(tmp_path: Path) -> None:
    for part in ("worker", "beat"):
        data = as_it_was(tmp_path / part)
        (data / "secrets.json").write_text("{}")
        with engines("embedded", data) as env:
            options = ("-P", "threads", "-Q", "default") if part == "worker" else ("--pidfile=",)
            with Program("-m", "celery", "-A", "jetrelay", part, *options, env=env | KEYS, log=tmp_path / f"{part}.log") as program:
                program.wait_for_output("Other users of this machine could get at")
                assert too_open(data) == {}


def test_a_database_elsewhere_is_closed_and_its_folder_is_left(tmp_path: Path) -> None:
    data, shared = tmp_path / "data", tmp_path / "srv"
    as_it_was(shared)
    database = shared / "db.sqlite3"
    for name in ("db.sqlite3", "db.sqlite3-wal", "other.sqlite3"):
        (shared / name).touch()
        (shared / name).chmod(0o644)
    assert len(mend(data, str(database))) == 1
    assert {name: modes(shared)[name] for name in (".", "db.sqlite3", "db.sqlite3-wal", "other.sqlite3")} == {
        ".": 0o755,
        "db.sqlite3": 0o600,
        "db.sqlite3-wal": 0o600,
        "other.sqlite3": 0o644,
    }


# --- What is not ours -----------------------------------------------------------------------------------------------------


def test_a_folder_with_other_things_in_it_is_left_and_named(tmp_path: Path) -> None:
    data = as_it_was(tmp_path / "etc")
    (data / "passwd").touch()
    (data / "passwd").chmod(0o644)
    mend(data)
    assert too_open(data) == {".": "0755", "passwd": "0644"}
    (left,) = own_files.too_open(data, "", default=False)
    assert (left.path, left.why_left) == (data, "it also holds passwd, which is not Jetrelay's")
    assert left.advice == f"chmod 700 {data}"


def test_a_folder_without_anything_of_ours_is_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "lost+found").mkdir()
    assert mend(tmp_path) == []
    assert modes(tmp_path)["."] == 0o755
    assert mend(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["secrets.json", "broker", "broker/messages/1.lanes.msg", "demo", own_files.DATABASE])
def test_it_follows_no_symbolic_link(name: str, tmp_path: Path) -> None:
    data, victim = as_it_was(tmp_path / "data"), tmp_path / "victim"
    (victim / "messages").mkdir(parents=True)
    (victim / "secrets.json").touch()
    for path in (victim, *victim.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = modes(victim)
    path = data / name
    path.rename(tmp_path / "away")
    path.symlink_to(victim if (tmp_path / "away").is_dir() else victim / "secrets.json")
    mend(data, str(data / own_files.DATABASE))
    assert modes(victim) == before
    if name in ("secrets.json", own_files.DATABASE):
        assert [each.why_left for each in own_files.too_open(data, "", default=False)] == ["it is a symbolic link"]


def test_the_data_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    disk_of_its_own = as_it_was(tmp_path / "disk")
    (tmp_path / "data").symlink_to(disk_of_its_own)
    assert len(mend(tmp_path / "data")) == 1
    assert too_open(disk_of_its_own) == {}


def test_a_file_with_another_name_elsewhere_is_left(tmp_path: Path) -> None:
    data = as_it_was(tmp_path / "data")
    os.link(data / "up.lock", tmp_path / "other")
    mend(data)
    assert too_open(data) == {"up.lock": "0644"}
    assert [each.why_left for each in own_files.too_open(data, "", default=False)] == ["it has another name as well"]


def test_pipes_and_sockets_hold_nobody_up(tmp_path: Path) -> None:
    data = as_it_was(tmp_path / "data")
    (data / "secrets.json").unlink()
    os.mkfifo(data / "secrets.json", 0o666)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(data / "broker" / "s"))
        mend(data)
    assert modes(data)["broker"] == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else, which root alone can")
def test_what_belongs_to_somebody_else_is_left_and_named(tmp_path: Path, settings: Any) -> None:
    data = as_it_was(tmp_path / "data")
    for path in (data, *data.rglob("*")):
        os.chown(path, 12345, 12345)
    before = modes(data)
    assert mend(data) == []
    assert modes(data) == before
    settings.JETRELAY_FILES = {"data_dir": data, "database": "", "default": False}
    said = [each.found for each in disk.modes()]
    assert any(f"{data}/secrets.json is open to other users of this machine (0644); it was left so, because it belongs to user 12345" in each for each in said)
    assert any("belongs to user 12345, and this is user 0" in each for each in said)


# --- Doctor ---------------------------------------------------------------------------------------------------------------


def test_doctor_names_what_is_open(tmp_path: Path, settings: Any) -> None:
    data = as_it_was(tmp_path / "data")
    settings.JETRELAY_FILES = {"data_dir": data, "database": "", "default": False}
    settings.BASE_DIR = tmp_path
    found = list(disk.modes())
    assert {each.level for each in found} == {Level.WARNING}
    assert found[0].found == f"{data} is open to other users of this machine (0755)"
    assert found[0].advice.endswith(f"chmod 700 {data}")
    assert len(found) <= disk.MOST_NAMED + 1
    mend(data)
    assert [each.level for each in disk.modes()] == [Level.OK]
    (tmp_path / ".env").touch()
    (tmp_path / ".env").chmod(0o644)
    assert [each.found for each in disk.modes()] == [f"{tmp_path}/.env can be read by others (0644)"]
