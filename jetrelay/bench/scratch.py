"""A database and a broker of the configured kinds that belong to one benchmark and vanish with it."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from jetrelay.bench.interruption import unbroken


@unbroken
@contextlib.contextmanager
def scratch(like: str = "") -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder, and the environment of processes that work on a fresh database and broker. Nothing of it remains.

    The database is empty, or a copy of the one with the URL `like`, of a benchmark whose processes have left it.
    """
    with tempfile.TemporaryDirectory(prefix="jetrelay-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("WEBHOOK_", "JETSTREAM_"))}
        env |= {
            "JETRELAY_DATA_DIR": name,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "JETRELAY_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "PYTHONUNBUFFERED": "1",
        }
        if connection.vendor == "postgresql":
            env["DATABASE_URL"] = stack.enter_context(database(like))
        else:
            env["DATABASE_URL"] = f"sqlite:///{folder / 'bench.sqlite3'}"
            if like:
                shutil.copyfile(like.removeprefix("sqlite:///"), folder / "bench.sqlite3")
        env["BROKER_URL"] = stack.enter_context(_redis()) if settings.CELERY_BROKER_URL.startswith("redis") else ""
        yield folder, env


@unbroken
@contextlib.contextmanager
def database(like: str = "") -> Iterator[str]:
    """The URL of another database on the configured PostgreSQL server: empty, or a copy of the one with this URL."""
    url, template = os.environ["DATABASE_URL"], urlsplit(like).path.removeprefix("/") or "template1"
    # With this process's number: what a kill -9 leaves says whose it was.
    name = f"jetrelay_bench_{os.getpid()}_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as server:
        try:
            server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        except psycopg.errors.InsufficientPrivilege as error:
            raise CommandError("DATABASE_URL: this role may not make databases, and a benchmark needs one of its own: ALTER ROLE … CREATEDB.") from error
        try:
            yield beside(name)
        finally:
            _drop(server, name)


def beside(name: str) -> str:
    """The URL of another database on the configured server."""
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))


def _drop(server: psycopg.Connection[Any], name: str) -> None:
    """Drop the database once its last visitor has left: autovacuum may be in it, and is not ours to end."""
    deadline = monotonic() + 30
    while True:
        try:
            server.execute(f"DROP DATABASE {name}")
            return
        except psycopg.errors.ObjectInUse:
            if monotonic() > deadline:
                raise
            # A process that was ended in the middle of a statement: the server goes on with it for as long as it takes.
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user", [name])
            sleep(0.2)


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    """An empty database of the same server: the benchmark's wakes must not reach live workers."""
    for number in range(15, 0, -1):
        url = urlunsplit(urlsplit(settings.CELERY_BROKER_URL)._replace(path=f"/{number}"))
        client = redis.Redis.from_url(url)
        try:
            empty = client.dbsize() == 0
        except redis.RedisError as error:
            raise CommandError(f"BROKER_URL: Redis does not answer: {error}") from error
        if empty:
            try:
                yield url
            finally:
                client.flushdb()
                client.close()
            return
        client.close()
    raise CommandError("BROKER_URL: no database of this Redis is empty; a benchmark needs one for itself.")
