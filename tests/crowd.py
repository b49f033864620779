"""The web process alone, on the test's own database, and clients that are many at once."""

import http.client
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.db import connection

from tests import web
from tests.whole import PATIENCE_S


def database_url() -> str:
    """The test database, as another process reaches it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlunsplit(urlsplit(os.environ["TEST_DATABASE_URL"])._replace(path=f"/{name}"))


@contextmanager
def serving(log: Path) -> Iterator[int]:
    """The web process on the test's own database. Gives its port."""
    with web.serving({**os.environ, "DATABASE_URL": database_url()}, log) as running:
        yield running.port


def ask(port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float = 10) -> tuple[int, Any]:
    """Status and body; JSON as its value."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        content = None if body is None else json.dumps(body)
        client.request(method, path, content, {**({"Content-Type": "application/json"} if content else {}), **(headers or {})})
        response = client.getresponse()
        text = response.read()
        return response.status, json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
    finally:
        client.close()


class Crowd:
    """So many clients that each send one request at once, and wait for its answer."""

    def __init__(self, port: int, number: int, method: str, path: str, body: Any, headers: Mapping[str, str]) -> None:
        self.answers: list[tuple[int, Any]] = []
        self._sent = threading.Semaphore(0)
        self._changed = threading.Condition()
        self._request = (method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for _ in range(number)]

    def __enter__(self) -> "Crowd":
        """All of them have sent theirs."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._sent.acquire(timeout=PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def wait_for(self, number: int) -> None:
        """Until so many have their answers."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.answers) >= number, PATIENCE_S), len(self.answers)

    def _run(self, port: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        client.request(*self._request)
        self._sent.release()
        response = client.getresponse()
        text = response.read()
        with self._changed:
            self.answers.append((response.status, json.loads(text)))
            self._changed.notify_all()
        client.close()
