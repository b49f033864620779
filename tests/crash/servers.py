"""A PostgreSQL and a Redis of our own, because they are killed and started again. Nothing else on the machine is touched."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import psycopg
import redis

PATIENCE_S = 60
# Below the range from which systems take the ports of outgoing connections: while a server is away, nobody else may get its port.
_PORTS = range(20_000, 32_000)


class Unavailable(Exception):
    """This machine lacks what the servers need; the message says what."""


def quiet_port() -> int:
    """A port that stays free while its server is down."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(f"a free port from {_PORTS.start} to {_PORTS.stop - 1}")


class Server:
    """A server process that can be ended in any way and started again on the same port."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.port = quiet_port()
        self.log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self.fast)

    # What ends it soon and in good order.
    fast = signal.SIGTERM

    @abstractmethod
    def command(self) -> Sequence[str]: ...

    @abstractmethod
    def answers(self) -> bool: ...

    def start(self) -> None:
        """Raises TimeoutError with its log when it does not come up."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(self.command(), stdout=output, stderr=output, start_new_session=True)
        deadline = monotonic() + PATIENCE_S
        while not self.answers():
            if monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            sleep(0.05)

    def end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class Postgres(Server):
    name = "postgres"
    # Does not wait for clients.
    fast = signal.SIGINT
    # `pg_ctl stop -m immediate`: everybody quits at once, and the next start recovers from the log.
    immediate = signal.SIGQUIT

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._bin = _newest_postgres()
        self._data = folder / "postgres"
        self._data.mkdir()
        if os.getuid() == 0:
            account = _postgres_account()
            os.chown(self._data, account.pw_uid, account.pw_gid)
        self._run("initdb", f"--pgdata={self._data}", "--username=jetrelay", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgres://jetrelay@127.0.0.1:{self.port}/postgres"

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def crash(self) -> None:
        """Kill one of its processes that is at work for somebody: the server ends all of them and recovers."""
        with self.connect() as server:
            found = server.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1").fetchone()
        if found:
            os.kill(int(str(found[0])), signal.SIGKILL)

    def command(self) -> Sequence[str]:
        # What the operating system has taken survives the death of a process: fsync is for power cuts. A commit is still a commit.
        options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=off")
        return [*_as_postgres(), str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port), *(word for each in options for word in ("-c", each))]

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run([*_as_postgres(), str(self._bin / program), *words], capture_output=True, text=True, cwd="/", timeout=300)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


class Redis(Server):
    name = "redis"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder
        self._program = shutil.which("redis-server")
        if self._program is None:
            raise Unavailable("redis-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def command(self) -> Sequence[str]:
        assert self._program is not None
        return [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self._folder)]

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _newest_postgres() -> Path:
    """The folder of its programs."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: [int(part) for part in path.parent.name.split(".")])
    initdb = shutil.which("initdb")
    if initdb is None:
        raise Unavailable("PostgreSQL's initdb")
    return Path(initdb).parent


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root. setpriv becomes the program that it starts, so that its id is the server's own."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise Unavailable("setpriv, to run PostgreSQL as another user than root")
    account = _postgres_account()
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--"]


def _postgres_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise Unavailable("a user called postgres, to run PostgreSQL as another user than root") from None
