"""The whole system as a user starts it: `manage.py up`, real processes, a real stream, real engines."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from jetrelay.bench.processes import free_port

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data" / "jetstream"
PATIENCE_S = 60


@contextlib.contextmanager
def engines(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of an installation on engines of this kind, fresh and its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TEST_", "JETRELAY_", "WEBHOOK_", "JETSTREAM_"))}
    env = {name: value for name, value in env.items() if name not in ("SECRET_KEY", "DATABASE_URL", "BROKER_URL", "PORT")}
    env |= {"JETRELAY_DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
    if kind == "embedded":
        yield env
        return
    server, broker = os.environ.get("TEST_DATABASE_URL", ""), os.environ.get("TEST_REDIS_URL", "")
    if not (server.startswith("postgres") and broker):
        pytest.skip("wants PostgreSQL and Redis: set TEST_DATABASE_URL and TEST_REDIS_URL")
    name = f"jetrelay_whole_{secrets.token_hex(4)}"
    broker = urlunsplit(urlsplit(broker)._replace(path="/7"))
    with psycopg.connect(server, autocommit=True) as connection, redis.Redis.from_url(broker) as client:
        connection.execute(f"CREATE DATABASE {name}")
        client.flushdb()
        try:
            yield env | {"DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}")), "BROKER_URL": broker}
        finally:
            client.flushdb()
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class Program:
    """A process whose output is kept, and which is gone at the end."""

    def __init__(self, *argv: str, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen([sys.executable, *argv], env=dict(env), cwd=ROOT, stdout=output, stderr=output, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_output(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until the output matches. Raises AssertionError with the output when the program ends first."""
        deadline = monotonic() + PATIENCE_S
        while monotonic() < deadline:
            found = list(re.finditer(pattern, self.output))
            if len(found) >= times:
                return found[-1]
            if self.process.poll() is not None:
                break
            sleep(0.05)  # a file has no event to wait for
        raise AssertionError(f"no {pattern!r} in:\n{self.output}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def child(self, words: str) -> int:
        """The id of the process below this one whose command line holds these words."""
        listing = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
        (found,) = [int(pid) for pid, parent, args in rows if int(parent) == self.process.pid and words in args]
        return found


@contextlib.contextmanager
def playing(stream: Path, env: dict[str, str], log: Path, *options: str) -> Iterator[str]:
    """A Jetstream that serves this file; gives its URL."""
    with Program("manage.py", "play_jetstream", str(stream), "--port", "0", *options, env=env | {"SECRET_KEY": "player"}, log=log) as player:
        yield player.wait_for_output(r"listening on (ws://\S+)")[1]


@contextlib.contextmanager
def up(env: Mapping[str, str], log: Path, *options: str) -> Iterator[Program]:
    """`manage.py up` on a free port."""
    with Program("manage.py", "up", "--port", str(free_port()), *options, env=env, log=log) as program:
        yield program
