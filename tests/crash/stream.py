"""What the player serves, and who is owed which of it: worked out here once more, apart from the product's own matching."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delivery.sources.jetstream.demo_events import Storyteller


@dataclass(frozen=True)
class Wish:
    """An endpoint and its one subscription, to commits."""

    name: str
    lane: int
    collections: tuple[str, ...] = ("*",)
    operations: tuple[str, ...] = ()
    flaky: bool = False

    def wants(self, event: dict[str, Any]) -> bool:
        if event["kind"] != "commit":
            return False
        commit = event["commit"]
        if self.operations and commit["operation"] not in self.operations:
            return False
        return any(commit["collection"] == each or (each.endswith("*") and commit["collection"].startswith(each[:-1])) for each in self.collections)


# Two share a lane, one of which misbehaves.
WISHES = (
    Wish("everything", 0),
    Wish("posts", 1, ("app.bsky.feed.post",)),
    Wish("likes", 2, ("app.bsky.feed.like",), ("create",)),
    Wish("graph", 3, ("app.bsky.graph.*",)),
    Wish("profiles", 4, ("app.bsky.actor.profile",)),
    Wish("flaky", 0, ("app.bsky.feed.*",), flaky=True),
)


@dataclass(frozen=True)
class Line:
    """One event of the stream. `at_s` is when it is due, from the beginning of the play."""

    digest: bytes
    at_s: float
    owed: tuple[str, ...]


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def write(path: Path, count: int, rate: float, seed: int, start_us: int, *, numbered: bool) -> list[Line]:
    """Write an NDJSON file whose times fit the pace. `numbered`: with a cursor in each line, so that both wires carry the same bytes."""
    storyteller, lines = Storyteller(seed), []
    with path.open("wb") as file:
        for number in range(count):
            at_s = (number + 1) / rate
            time_us = start_us + int(at_s * 1_000_000)
            body = storyteller.tell(time_us)
            if numbered:
                body = body.replace(b'"time_us":%d,' % time_us, b'"time_us":%d,"cursor":%d,' % (time_us, number + 1), 1)
            file.write(body + b"\n")
            lines.append(Line(digest(body), at_s, _owed(body)))
    return lines


def _owed(body: bytes, wishes: Sequence[Wish] = WISHES) -> tuple[str, ...]:
    event = json.loads(body)
    return tuple(wish.name for wish in wishes if wish.wants(event))
