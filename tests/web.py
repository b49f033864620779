"""The web process as `manage.py up` starts it, and clients that do what no library does."""

import contextlib
import resource
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from jetrelay.bench.processes import MANAGE, free_port, python, run
from jetrelay.front import served
from jetrelay.management.commands.up import granian
from subscriptions.ourselves import answers
from tests.whole import PATIENCE_S, Program

# As many files as a shell allows what it starts: the server has to ask for more by itself. (This process may have more.)
_AS_FROM_A_SHELL = """
import os, resource, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Web(NamedTuple):
    """A server that runs, and the port that it listens on."""

    program: Program
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, held: ExitStack) -> socket.socket:
        """A connection of a client, open until the end."""
        return held.enter_context(socket.create_connection(("127.0.0.1", self.port), 30))

    def ask(self, request: bytes) -> bytes:
        """The answer to these very bytes, until the server closes: so let them ask for that."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def resident_mb(self) -> float:
        """The memory of the process that serves."""
        status = Path(f"/proc/{self.program.child('granian')}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextlib.contextmanager
def serving(env: Mapping[str, str], log: Path, application: str = served.APPLICATION) -> Iterator[Web]:
    """The web process alone, on the database of this environment as it is."""
    port = free_port()
    argv = granian("127.0.0.1", port, application=application)[1:]
    settings = {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "SECRET_KEY": "only-for-tests" * 4}
    with Program("-c", _AS_FROM_A_SHELL, *argv, env={**settings, **env}, log=log) as program:
        deadline = monotonic() + PATIENCE_S
        while not answers("127.0.0.1", port):
            assert program.process.poll() is None, program.output
            assert monotonic() < deadline, program.output
            sleep(0.05)  # a port has no event to wait for
        yield Web(program, port)


@contextlib.contextmanager
def site(env: Mapping[str, str], log: Path) -> Iterator[Web]:
    """The web process on a database that has its tables."""
    env = {"SECRET_KEY": "only-for-tests" * 4, **env}
    run(python(MANAGE, "migrate", "-v0"), env)
    with serving(env, log) as web:
        yield web


def allow_files(number: int) -> bool:
    """Have this process open so many at once. Whether it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    return True


def is_open(client: socket.socket) -> bool:
    """Whether the other end has neither closed nor said anything yet."""
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK)) and False
    except BlockingIOError:
        return True
    except OSError:
        return False
