"""Data directories that are none, cannot be read, written to or are full: each program ends in words that name the path."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from jetrelay.bench.processes import BEAT, WORKER, free_port
from tests.crash.servers import Redis, Unavailable
from tests.test_refusing_database import fill
from tests.threads import eventually
from tests.whole import ROOT, Program

pytestmark = pytest.mark.whole

COMMANDS = (["up"], ["migrate"], ["prune"], ["run_jetstream"], ["bootstrap"], ["rotate_encryption_keys", "--check"])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("wants to mount a disk: run as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def run(folder: Path, *argv: str, stdout: Any = subprocess.PIPE, **more: Any) -> tuple[int, str]:
    env = {"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_DATA_DIR": str(folder)} | more
    argv = argv if argv[0].endswith(".py") or argv[0] == "-m" else ("manage.py", *argv)
    ran = subprocess.run(
        [sys.executable, *argv], cwd=ROOT, env=env | {"PORT": str(free_port())}, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=100, check=False
    )
    return ran.returncode, (ran.stdout or "") + ran.stderr


def in_a_line(said: tuple[int, str], *words: str) -> None:
    code, text = said
    assert (code, text.count("\n"), text.startswith(("jetrelay: ", "CommandError: "))) == (1, 1, True), text
    for each in words:
        assert each in text, text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_data_directory_that_is_a_file(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    in_a_line(run(tmp_path / "data", *command), str(tmp_path / "data"), "Not a directory", "JETRELAY_DATA_DIR")


@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[2]], ids=" ".join)
def test_a_disk_that_takes_no_writes(command: list[str], disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    in_a_line(run(disk / "data", *command), str(disk / "data"), "Read-only file system", "JETRELAY_DATA_DIR")
    # Where nothing is kept in files, only `up` wants some: its secrets and its lock.
    if command == ["up"]:
        where = {"DATABASE_URL": "postgres://jetrelay@127.0.0.1:1/x", "BROKER_URL": "redis://127.0.0.1:1/0"}
        in_a_line(run(disk, *command, **where), f"{disk}/secrets.json cannot be written to: Read-only file system", "JETRELAY_DATA_DIR")


@pytest.mark.parametrize("program", [["migrate"], BEAT, WORKER], ids=["migrate", "beat", "worker"])
@pytest.mark.parametrize(("holds", "said"), [(None, "Is a directory"), ("{", "holds no JSON"), ("[]", "must hold a JSON object")])
def test_secrets_that_cannot_be_read(program: list[str], holds: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    if holds is None:
        path.mkdir()
    else:
        path.write_text(holds)
    in_a_line(run(tmp_path, *program), str(path), said)


def test_a_database_in_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    in_a_line(run(tmp_path, "migrate", DATABASE_URL=f"sqlite:///{tmp_path}/file/a/b.sqlite3"), "DATABASE_URL: ", f"{tmp_path}/file/a", "cannot be made")


@pytest.mark.parametrize("command", [["up"], ["migrate"]], ids=" ".join)
def test_a_disk_that_is_full_from_the_start(command: list[str], disk: Path) -> None:
    fill(disk)
    code, said = run(disk / "data", *command)
    assert (code, "Traceback" in said) == (1, False), said
    assert "full" in said or "No space left on device" in said
    assert str(disk) in said or "database" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="wants /dev/full")
@pytest.mark.parametrize("command", [["doctor"], ["migrate", "--plan"]], ids=" ".join)
def test_an_output_that_is_full(command: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        in_a_line(run(tmp_path, *command, stdout=full.fileno()), "The output cannot be written: No space left on device")


def test_beat_and_worker_say_once_that_redis_takes_nothing(tmp_path: Path) -> None:
    try:
        server = Redis(tmp_path)
    except Unavailable as missing:
        pytest.skip(f"wants {missing}")
    env = {"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 50, "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_DATA_DIR": str(tmp_path / "data")}
    with server, redis.Redis.from_url(server.url) as client:
        env |= {"BROKER_URL": server.url, "PYTHONUNBUFFERED": "1"}
        for command in ("migrate", "bootstrap"):
            assert run(tmp_path / "data", command, BROKER_URL=server.url)[0] == 0
        with Program(*WORKER, env=env, log=tmp_path / "worker.log") as worker, Program(*BEAT, env=env, log=tmp_path / "beat.log") as beat:
            worker.wait_for_output(" ready")
            refused_before = refusals(client)
            client.config_set("maxmemory", "1")
            beat.wait_for_output("Beat cannot send")
            worker.wait_for_output("This worker looks for due deliveries itself")
            # However often it is tried: a task a second, each of them several times.
            eventually(lambda: refusals(client) - refused_before > 8)
            client.config_set("maxmemory", "0")
            beat.wait_for_output("Beat can send again")
            assert (worker.process.poll(), beat.process.poll()) == (None, None)
            assert beat.output.count("Beat cannot send") == 1
            assert [len(each.output) < 3_000 for each in (worker, beat)] == [True, True], beat.output + worker.output
            assert "Traceback" not in beat.output + worker.output


def refusals(client: "redis.Redis") -> int:
    return int(client.info("errorstats").get("errorstat_OOM", {}).get("count", 0))
