"""The web server is killed while events are posted: what a client saw accepted is stored, with its delivery, and once."""

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from jetrelay.bench.processes import free_port
from jetrelay.management.commands.up import granian
from tests.whole import ROOT, engines

CLIENTS = 8
KILLS = 3
# Events that are accepted between two kills, at least.
BETWEEN = 150
PATIENCE_S = 60

_BUILD = (
    "from subscriptions.models import *; from jetrelay.api.sources import api_source_of;"
    " tenant = Tenant.objects.create(slug='crash', name='Crash');"
    " endpoint = Endpoint.objects.create(tenant=tenant, name='held', url='http://127.0.0.1:9/', state='paused');"
    " Subscription.objects.create(endpoint=endpoint, source=api_source_of(tenant), collections=['*'], kinds=['api'])"
)


def manage(env: Mapping[str, str], *argv: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *argv], env=dict(env), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Server:
    """The web server as `up` starts it, in a group of its own, so that its workers go with it."""

    def __init__(self, env: Mapping[str, str], port: int, log: Path) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(granian("127.0.0.1", port), env=dict(env), cwd=ROOT, stdout=output, stderr=output, start_new_session=True)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


class Clients:
    """Threads that post events with ids of their own, each id again until it is accepted, whatever happens to the server."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key
        self.accepted: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self._done = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.accepted) >= count, PATIENCE_S), f"{len(self.accepted)} of {count}, {self.statuses}"

    def _run(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        number = 0
        while not self._done.is_set():
            id = f"{client}-{number}"
            try:
                status, answer = post(connection, self.key, id)
            except (OSError, http.client.HTTPException):
                # Nobody knows whether it was stored: it goes again.
                connection.close()
                with self._changed:
                    self.broken += 1
                self._done.wait(0.02)
                continue
            with self._changed:
                self.statuses[status] += 1
                if status == 202:
                    self.accepted[id] = answer["id"]
                    self._changed.notify_all()
            number += status == 202
        connection.close()


def post(connection: http.client.HTTPConnection, key: str, id: str) -> tuple[int, dict[str, str]]:
    body = json.dumps({"type": "order.paid", "id": id, "data": {"id": id}})
    connection.request("POST", "/api/v1/events", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@contextlib.contextmanager
def database(env: Mapping[str, str], folder: Path) -> Iterator[psycopg.Connection | sqlite3.Connection]:
    if url := env.get("DATABASE_URL"):
        with psycopg.connect(url) as connection:
            yield connection
    else:
        (file,) = folder.glob("*.sqlite3")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            yield connection


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "servers"])
def test_what_was_accepted_survives_the_death_of_the_server(kind: str, tmp_path: Path) -> None:
    folder, port = tmp_path / "data", free_port()
    folder.mkdir()
    with engines(kind, folder) as env:
        env |= {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "SECRET_KEY": "crash", "PYTHONPATH": str(ROOT)}
        env |= {"JETRELAY_ENCRYPTION_KEYS": os.environ["JETRELAY_ENCRYPTION_KEYS"]}
        manage(env, "migrate", "-v0")
        manage(env, "shell", "--no-imports", "-c", _BUILD)
        key = manage(env, "create_api_key", "crash", "--rate-limit", "1000000").strip()
        server = Server(env, port, tmp_path / "web.log")
        try:
            with Clients(port, key) as clients:
                for _ in range(KILLS):
                    clients.wait_for(len(clients.accepted) + BETWEEN)
                    server.kill()
                    server = Server(env, port, tmp_path / "web.log")
                clients.wait_for(len(clients.accepted) + BETWEEN)
            # Nobody was refused for good, and the server did die under them.
            assert set(clients.statuses) <= {202, 503}
            assert clients.broken >= KILLS
            # Once more, all that was accepted: it is there.
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            for id in list(clients.accepted)[::10]:
                assert post(connection, key, id) == (202, {"id": clients.accepted[id], "status": "duplicate", "deliveries": 0})
            connection.close()
        finally:
            server.kill()
        with database(env, folder) as rows:
            stored = rows.execute("SELECT id, body FROM delivery_event").fetchall()
            owed = Counter(str(row[0]).replace("-", "") for row in rows.execute("SELECT event_id FROM delivery_delivery").fetchall())
    found = {json.loads(bytes(body))["id"]: str(id).replace("-", "") for id, body in stored}
    assert len(found) == len(stored), "an id was stored twice"
    lost = [id for id, event in clients.accepted.items() if found.get(id) != event.removeprefix("evt_")]
    assert lost == []
    # Each event and its delivery are one transaction, whether the client saw the answer or not.
    assert owed == Counter(found.values())
    # What was stored and not answered: at most what each client had under way at the end.
    assert len(found) <= len(clients.accepted) + CLIENTS
