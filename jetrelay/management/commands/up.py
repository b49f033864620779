"""`manage.py up`: the whole of Jetrelay in one terminal.

It makes missing secrets, prepares the database, and keeps web, listener, worker and beat running until Ctrl-C.
"""

import fcntl
import http.client
import logging
import os
import socket
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from jetrelay import environment, generated_secrets
from jetrelay.child_output import for_programs, print_line
from jetrelay.logs import masking
from jetrelay.logs.rendering import BAR
from jetrelay.places import SERVER_THREADS
from jetrelay.supervisor import Child, Supervisor
from subscriptions.validation import V1_PATH, V2_PATH

logger = logging.getLogger(__name__)

# What a demo must not take from the operator's own settings: it would show, or send, the wrong things.
NOT_IN_A_DEMO = ("DATABASE_URL", "BROKER_URL", "WEBHOOK_URL", "WEBHOOK_SECRET", "WEBHOOK_BEARER_TOKEN", "JETSTREAM_DIDS", "JETSTREAM_ZSTD_DICTIONARY")


class Command(BaseCommand):
    help = "Run all of Jetrelay: prepares the database, then runs web, listener, worker and beat. Ctrl-C stops it."
    # SECRET_KEY may not exist yet. The children that follow run the checks.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=port_number, default=settings.PORT, help="where the dashboard listens (PORT, else 8000)")
        parser.add_argument("--host", default=settings.HOST, help="the address it listens on (JETRELAY_HOST, else 127.0.0.1)")
        parser.add_argument("--demo", action="store_true", help="play made-up events into a database of its own, in <data dir>/demo")

    def handle(self, *, host: str, port: int, demo: bool, **_: Any) -> None:
        check_port_is_free(host, port)
        as_json = settings.JETRELAY_LOG_FORMAT == "json"
        for name in environment.unknown():
            logger.warning("%s is set, but nothing reads it: is it misspelt?", name)
        stream_port = free_port() if demo else None
        env = child_environment(os.environ, settings.DATA_DIR, host, port, stream_port)
        try:
            masking.know(generated_secrets.ensure(Path(env["JETRELAY_DATA_DIR"])).values())
        except (OSError, ValueError) as error:
            raise CommandError(f"The data directory cannot be used (JETRELAY_DATA_DIR): {error}") from error
        lock = only_one(Path(env["JETRELAY_DATA_DIR"]))
        check_broker(env.get("BROKER_URL", ""))
        try:
            prepare(env, as_json)
        except KeyboardInterrupt:
            raise CommandError("stopped while the database was being prepared; run it again to go on", returncode=130) from None
        supervisor = Supervisor(children(env, host, port, stream_port), json=as_json)
        supervisor.probe = announcement(supervisor.say, host, port, demo)
        code = supervisor.run()
        lock.close()
        sys.exit(code)


def port_number(value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or not 1 <= int(value) <= 65535:
        raise ArgumentTypeError(f"{value!r} is not a port: use a whole number from 1 to 65535")
    return int(value)


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]


def celery(*arguments: str) -> list[str]:
    # Quiet, or every start shows a page of banner.
    return [sys.executable, "-m", "celery", "--quiet", "-A", "jetrelay", *arguments, "-l", "WARNING"]


def children(env: Mapping[str, str], host: str, port: int, stream_port: int | None) -> list[Child]:
    """The processes that make up Jetrelay; with a `stream_port`, a made-up Jetstream too."""
    found = [
        Child("web", granian(host, port), env),
        Child("listener", manage("run_jetstream"), env),
        Child("worker", celery("worker", "-P", "threads", "-Q", "lanes,default", "--without-gossip", "--without-mingle", "--without-heartbeat"), env),
        # The schedule is in the database, and one supervisor has one beat: it needs no file of its own.
        Child("beat", celery("beat", "--pidfile="), env),
    ]
    if stream_port is not None:
        found.insert(0, Child("stream", manage("play_jetstream", "--demo", "--port", str(stream_port)), env))
    return found


def granian(host: str, port: int, *, workers: int = 1, threads: int = SERVER_THREADS, application: str = "jetrelay.wsgi:application") -> list[str]:
    # Nearly all of its threads wait, and granian warns of more than it takes for work: only its errors are shown.
    options = ["--interface", "wsgi", "--host", host, "--port", str(port), "--workers", str(workers), "--no-ws"]
    # Shorter than the supervisor's grace, so that a request that hangs is not what makes a stop look unclean.
    options += ["--blocking-threads", str(threads), "--workers-kill-timeout", "10", "--log-level", "error", "--no-access-log"]
    # The server itself logs before it has the application, and its settings.
    options += ["--log-config", str(settings.BASE_DIR / "jetrelay" / "logs" / "granian.json")]
    return [sys.executable, "-m", "granian", *options, application]


def child_environment(own: Mapping[str, str], data_dir: Path, host: str, port: int, stream_port: int | None) -> dict[str, str]:
    """What the children see: this process's environment, with nothing left to where they were started from."""
    env = dict(own)
    if stream_port is not None:
        data_dir = data_dir / "demo"
        for name in NOT_IN_A_DEMO:
            env.pop(name, None)
        # Both wires of one server stand for two hosts.
        env["JETSTREAM_HOSTS"] = ",".join(f"ws://127.0.0.1:{stream_port}{path}" for path in (V1_PATH, V2_PATH))
        env["JETSTREAM_COLLECTIONS"] = env.get("JETSTREAM_COLLECTIONS") or "*"
        env["JETSTREAM_KINDS"] = env.get("JETSTREAM_KINDS") or "commit,identity,account"
    return env | {
        "DJANGO_SETTINGS_MODULE": "jetrelay.settings",
        "JETRELAY_DATA_DIR": str(data_dir),
        "JETRELAY_HOST": host,
        "PORT": str(port),
        # `python -m` looks for modules in the working directory, which need not be ours.
        "PYTHONPATH": os.pathsep.join([str(settings.BASE_DIR), *filter(None, [own.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
    }


def prepare(env: Mapping[str, str], as_json: bool = False) -> None:
    """Bring the database up to date and make what a first start needs.

    In processes of their own: this one read its settings before the secrets existed.
    """
    migrated = subprocess.run(
        manage("migrate", "--no-input", "-v0"),
        # What it prints is read by `reason`.
        env={**env, "JETRELAY_LOG_FORMAT": "console"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if migrated.returncode:
        raise CommandError(f"The database could not be prepared. Is it running, and is DATABASE_URL right?\n\n{reason(migrated.stdout)}")
    # Straight to the terminal: it prints the admin's password, once. In JSON its lines go where logs are kept, and say no secret.
    output = subprocess.PIPE if as_json else None
    made = subprocess.run(manage("bootstrap"), env=env, stdin=subprocess.DEVNULL, stdout=output, text=True, errors="replace", check=False)
    for line in (made.stdout or "").splitlines():
        print_line(for_programs("bootstrap", line))
    if made.returncode:
        raise CommandError("The first tenant, source and endpoint could not be made; the reason is above.")


def reason(output: str) -> str:
    """The error at the end of a traceback, without the way there."""
    lines = [line.removeprefix(BAR) for line in output.strip().splitlines()]
    starts = [number for number, line in enumerate(lines) if line and not line[0].isspace() and "Error" in line.partition(":")[0]]
    return "\n".join(lines[starts[-1] :] if starts else lines[-20:])


def only_one(data_dir: Path) -> IO[str]:
    """Hold the data directory for this process; the lock ends with it, however it ends. Raises CommandError if it is taken."""
    file = (data_dir / "up.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise CommandError(
            f"Nothing was started: another `up` (process {holder}) uses {data_dir}. Stop it, or set JETRELAY_DATA_DIR to another directory."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def check_broker(url: str) -> None:
    """Raise CommandError if a Redis is configured and does not answer."""
    if url:
        try:
            with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
                client.ping()
        except redis.RedisError as error:
            raise CommandError(f"BROKER_URL: Redis does not answer ({error}). Is it running, and is the URL right?") from error


def check_port_is_free(host: str, port: int) -> None:
    """Raise CommandError, with what to do, if nothing can listen there."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise CommandError(f"--host {host!r} is not an address of this machine: {error}") from error
    with socket.socket(address[0], address[1]) as probe:
        # Connections of an earlier run that are still closing do not count; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address[4])
        except OSError as error:
            raise CommandError(f"Nothing was started: port {port} on {host} cannot be used ({error.strerror}). Choose another with --port or PORT.") from error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def announcement(say: Callable[[str], None], host: str, port: int, demo: bool) -> Callable[[], bool]:
    """A probe that says where the dashboard is as soon as it answers."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{local}]" if ":" in local else local

    def probe() -> bool:
        if not answers(local, port):
            return False
        say("")
        say(f"Jetrelay is running: http://{shown}:{port}/" + (" with made-up events" if demo else ""))
        say("Ctrl-C stops it.")
        say("")
        return True

    return probe


def answers(host: str, port: int) -> bool:
    """Whether the web process is up and well. Takes a second at most."""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        # Named so that it is allowed, whatever address the web process listens on.
        connection.request("GET", "/health", headers={"Host": "localhost"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
