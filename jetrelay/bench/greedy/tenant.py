"""What a greedy tenant is, and what it has at hand: keys, a session, receivers and clients."""

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import requests

from delivery.sources import api
from jetrelay.api.endpoints import EndpointBody
from jetrelay.bench import neighbours
from jetrelay.bench.greedy.clients import ASKED, NONE
from jetrelay.bench.processes import free_port, python, run, running, wait_for_line, wait_for_port
from jetrelay.bench.sink import sink

# What its events are called, and what its endpoints want.
TYPE = "greed.order.paid"
# An answer that does not come in this time is none.
PATIENCE_S = 60
# Endpoints of one that makes many, where no quota ends it before.
MANY = 600


def largest(name: str, body: type[Any] = EndpointBody) -> Any:
    """The most that the API takes for this setting of an endpoint."""
    return body().fields[name].max_value


def batch(events: int, padding: int = 0, subject: str = "") -> str:
    """A batch of so many events, each with so much padding.

    In a subject `%i%` is the number of the event, and `%n%` another number each time.
    """
    each: dict[str, Any] = {"type": TYPE, "data": {"note": "x" * padding}}
    if subject:
        each["subject"] = subject
    text = json.dumps(each)
    texts = [text.replace("%i%", str(number)) if subject else text for number in range(events)]
    return f'{{"events":[{",".join(texts)}]}}'


@dataclass(frozen=True)
class Load:
    """Clients that all ask the same, each again as soon as it has its answer.

    `%n%` is another number each time.
    """

    path: str
    body: str = ""
    method: str = "POST"
    connections: int = 1
    # Header lines, each client's own in turn: an `Authorization` or a `Cookie`.
    credentials: Sequence[str] = ()
    # Header lines that all of them send.
    headers: Sequence[str] = ("Content-Type: application/json",)


class Reach:
    """What belongs to one greedy tenant while its turn lasts.

    `answers` counts what it got, by status.
    """

    def __init__(
        self,
        site: str,
        key: str,
        session: str,
        folder: Path,
        ends: contextlib.ExitStack,
    ) -> None:
        self.site, self.key, self.folder = site, key, folder
        self.cookie, self.bearer = f"Cookie: sessionid={session}", f"Authorization: Bearer {key}"
        self.answers = Counter[int]()
        self._ends, self._files = ends, 0
        self._client = requests.Session()
        self._client.trust_env = False
        self._client.headers["Authorization"] = f"Bearer {key}"

    # --- by hand ---

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's document; None where it was refused."""
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        try:
            answer = self._client.request(
                method,
                self.site + path,
                data=text,
                headers={"Content-Type": "application/json"},
                timeout=PATIENCE_S,
                allow_redirects=False,
            )
        except requests.RequestException:
            self.answers[NONE] += 1
            return None
        self.answers[answer.status_code] += 1
        return answer.json() if answer.ok else None

    def endpoints(self, count: int, url: Callable[[int], str], **terms: Any) -> list[str]:
        """Make so many endpoints that want every event, or as many as it may. Returns their ids."""
        made = list[str]()
        for number in range(count):
            wish = {"url": url(number), "subscriptions": [{"types": ["*"]}], **terms}
            if (answer := self.call("POST", "/api/v1/endpoints", wish)) is None:
                break
            made.append(answer["id"])
        return made

    def keys(self, count: int) -> list[str]:
        """Header lines with its own key and others that it makes: so many, or as many as it may."""
        lines = [self.bearer]
        while len(lines) < count:
            wish = {
                "name": f"key {len(lines)}",
                "scopes": ["events:write", "events:read", "deliveries:read"],
            }
            if (answer := self.call("POST", "/api/v1/keys", wish)) is None:
                break
            lines.append(f"Authorization: Bearer {answer['key']}")
        return lines

    # --- by others ---

    def ask(self, loads: Sequence[Load], requests: int) -> None:
        """Have clients ask until they have so many answers in all."""
        argv, counts = self._clients(loads, requests)
        run(argv, dict(os.environ))
        self._count(counts)

    @contextlib.contextmanager
    def asking(self, loads: Sequence[Load], log: Path) -> Iterator[None]:
        """Have clients ask all the while."""
        if not loads:
            yield
            return
        argv, counts = self._clients(loads, 0)
        with running(argv, dict(os.environ), log) as process:
            wait_for_line(ASKED, process, log)
            yield
        self._count(counts)

    def hanging(self) -> int:
        """The port of a receiver that never answers."""
        return self._ends.enter_context(neighbours.hanging())

    def refusing(self) -> int:
        """A port that nobody listens at."""
        return self._ends.enter_context(neighbours.refusing())

    def quick(self) -> int:
        """The port of a receiver that takes everything at once."""
        folder = self.folder / "greedy-sink"
        folder.mkdir()
        return urlsplit(self._ends.enter_context(sink(folder))[0]).port or 80

    def receiver(self, kind: str) -> int:
        """The port of one of `receivers.py`."""
        port, log = free_port(), self.folder / "receiver.log"
        process = self._ends.enter_context(
            running(
                python("-m", "jetrelay.bench.greedy.receivers", str(port), kind),
                dict(os.environ),
                log,
            ),
        )
        wait_for_port(port, process, log)
        return port

    def _clients(self, loads: Sequence[Load], requests: int) -> tuple[list[str], Path]:
        self._files += 1
        wish = self.folder / f"clients-{self._files}.json"
        counts = self.folder / f"answers-{self._files}.json"
        wish.write_text(json.dumps([asdict(load) for load in loads]))
        return [
            sys.executable,
            "-m",
            "jetrelay.bench.greedy.clients",
            self.site,
            str(wish),
            str(counts),
            str(requests),
        ], counts

    def _count(self, counts: Path) -> None:
        # Clients that were killed have written nothing.
        if counts.exists():
            self.answers.update(
                {int(status): number for status, number in json.loads(counts.read_text()).items()},
            )


def local(name: str, port: int) -> Callable[[int], str]:
    """URLs on this machine, each with a host name of its own that libcurl resolves by itself."""
    return lambda number: f"http://{name}-{number}.localhost:{port}/greedy"


class Greedy:
    """A tenant that takes as much of one thing as it may. Its docstring says of what."""

    name: ClassVar[str]
    # What the installation is set to for this one.
    env: ClassVar[dict[str, str]] = {}
    # The host of the well-behaved tenant's receiver; and another, where it moves beside this one.
    hosts: ClassVar[tuple[str, ...]] = ("well-behaved.localhost",)

    def __init__(self, reach: Reach) -> None:
        self.reach = reach

    def prepare(self) -> None:
        """Make what it needs."""

    def loads(self) -> Sequence[Load]:
        """What its clients ask for all the while."""
        return ()

    def posting(self, body: str, connections: int = 1, keys: Sequence[str] = ()) -> Load:
        return Load(
            "/api/v1/events/batch",
            body,
            connections=connections,
            credentials=keys or [self.reach.bearer],
        )

    def pour(self, batches: int, padding: int = 0, subject: str = "") -> None:
        """Post so many batches of the most events that one may hold."""
        self.reach.ask(
            [self.posting(batch(api.MAX_ITEMS, padding, subject), connections=4)],
            batches,
        )
