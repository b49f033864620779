"""Processes of a benchmark, ended by the handle they were started with."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep

from django.conf import settings
from django.core.management.base import CommandError

from jetrelay.bench.interruption import unbroken

MANAGE = str(Path(settings.BASE_DIR) / "manage.py")
WORKER = ["-m", "celery", "-A", "jetrelay", "worker", "-P", "threads", "-Q", "lanes,default", "--without-gossip", "--without-mingle", "--without-heartbeat"]
BEAT = ["-m", "celery", "-A", "jetrelay", "beat", "--pidfile="]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python(*args: str) -> list[str]:
    return [sys.executable, *args]


def django(code: str) -> list[str]:
    """Runs this code with Django set up; on another database than this process, if its environment says so."""
    return python(MANAGE, "shell", "-v0", "-c", code)


def run(argv: Sequence[str], env: Mapping[str, str], patience_s: float = 300) -> str:
    """Run to the end, and give what it printed. Raises CommandError with that when it fails or takes too long."""
    try:
        done = subprocess.run(argv, env=env, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=patience_s)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(argv)} did not end within {patience_s:.0f} s.") from error
    if done.returncode:
        raise CommandError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@unbroken
@contextlib.contextmanager
def running(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the background, its output in a file, stopped at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(argv, env=env, cwd=settings.BASE_DIR, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def delivering(env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready, and beat beside it. Gives the worker."""
    with running(python(*WORKER), env, log) as worker, running(python(*BEAT), env, log):
        wait_for_line(" ready.", worker, log)
        yield worker


def wait_for_line(text: str, process: subprocess.Popen[bytes], log: Path, patience_s: float = 30) -> None:
    """Wait until the text stands in the log. Raises CommandError with the log when the process ends first."""
    deadline = monotonic() + patience_s
    while monotonic() < deadline and process.poll() is None:
        if text in log.read_text(errors="replace"):
            return
        sleep(0.05)
    raise CommandError(f"{process.args!r} did not say {text!r}:\n{log.read_text(errors='replace')[-2000:]}")


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, patience_s: float = 30) -> None:
    """Wait until something listens. Raises CommandError with the log when the process ends first."""
    deadline = monotonic() + patience_s
    while monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        sleep(0.05)
    raise CommandError(f"{process.args!r} did not start to listen:\n{log.read_text(errors='replace')[-2000:]}")
