"""Greed: a well-behaved tenant's latency from post to delivery, alone, and beside one tenant
after another that takes all it may.

Each greedy tenant (`greedy/roll.py`) has a row: the whole product is started afresh for it, on a
copy of an empty database. The well-behaved one posts 20 events a second and asks for `/health` and
a page each second: alone, and then, when the greedy one has made what it needs and its clients are
at work, beside it. `ratio` is the worst row's 95th percentile beside divided by the one alone.

A row holds when its ratio is at most 2, `/health` and the page come within a second, each process
stays below `--most-mb`, and nothing of the well-behaved one is refused or lost. A process that
grows to three times that ends its row, which does not hold.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any

from django.core.management.base import CommandError

from jetrelay.bench import proc
from jetrelay.bench.greedy.clients import NONE, OPEN
from jetrelay.bench.greedy.grounds import GREEDY as GREEDY_SLUG
from jetrelay.bench.greedy.grounds import WELL_BEHAVED
from jetrelay.bench.greedy.roll import GREEDY
from jetrelay.bench.greedy.tenant import Greedy, Reach
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.processes import MANAGE, delivering, django, python, run
from jetrelay.bench.scratch import scratch
from jetrelay.bench.spread import percentile
from jetrelay.bench.stage import LOOPBACK
from jetrelay.bench.web import TYPE, serving
from jetrelay.bench.witness import HEALTH, PAGE, Seen, Witness, receiving

MOST_RATIO = 2.0
MOST_MS = 1000.0
WARM_UP_S = 2.0
# Between the start of the greedy one's clients and the measuring.
LEAD_S = 3.0
_LOOK_EVERY_S = 0.25
_MB = 1024 * 1024
# Processes by whose memory a row is judged.
_ROLES = ("web", "worker")
_STOP_AT = 3
# What of the well-behaved one is counted, by the names that `Seen` has for it.
_WORDS = {"refused": "refused", "undelivered": "not delivered", "failed": "pages failed"}
_BUILD = "from jetrelay.bench.greedy.grounds import build; build({url!r}, {type!r})"


def measure(
    say: Say,
    *,
    seconds: Annotated[float, "how long each is measured beside the well-behaved one"] = 15.0,
    alone: Annotated[float, "how long the well-behaved one is measured alone, before each"] = 5.0,
    most_mb: Annotated[int, "MB that a process may have"] = 512,
    only: Annotated[
        str,
        "the greedy tenants to measure, separated by commas; without it all of them",
    ] = "",
) -> Figures:
    if not proc.available():
        raise CommandError("bench greed reads memory from /proc: it needs Linux.")
    chosen = choose(only)
    rows = dict[str, dict[str, Any]]()
    with scratch() as (_, base):
        run(python(MANAGE, "migrate", "-v0"), base)
        for kind in chosen:
            say(f"{kind.name}: {kind.__doc__}")
            rows[kind.name] = _Row(kind, most_mb).measure(base, alone, seconds)
            say(f"{kind.name}: {rows[kind.name]['verdict']}")
        engine = base["DATABASE_URL"].split(":")[0]
    return {
        "name": "greed",
        "ratio": max(row["ratio"] for row in rows.values()),
        "held": sum(row["verdict"] == "holds" for row in rows.values()),
        "greedy_tenants": len(rows),
        "phase_s": seconds,
        "alone_s": alone,
        "database": engine,
        "rows": rows,
    }


def choose(only: str) -> list[type[Greedy]]:
    """Those with these names, or all of them. Raises CommandError for a name that nobody has."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(GREEDY)
    if unknown := [name for name in names if name not in GREEDY]:
        known = ", ".join(GREEDY)
        raise CommandError(f"--only {unknown[0]}: there is no such greedy tenant. Use {known}.")
    return [GREEDY[name] for name in names]


class _Row:
    """One greedy tenant's turn."""

    def __init__(self, kind: type[Greedy], most_mb: int) -> None:
        self._kind, self._most_mb = kind, most_mb
        self._memory = dict.fromkeys(_ROLES, 0.0)
        self._looked_at = 0.0

    def measure(self, base: Mapping[str, str], alone_s: float, beside_s: float) -> dict[str, Any]:
        with scratch(like=base["DATABASE_URL"]) as (folder, env), receiving() as (port, arrivals):
            env |= LOOPBACK | {"JETRELAY_VERIFY_ENDPOINTS": "false"} | self._kind.env
            urls = [f"http://{host}:{port}/receiver" for host in self._kind.hosts]
            made = json.loads(run(django(_BUILD.format(url=urls[0], type=TYPE)), env))
            log = folder / "processes.log"
            with serving(env, log) as posts, delivering(env, log):
                site, mine = posts.removesuffix("/api/v1/events"), made[WELL_BEHAVED]
                witness = Witness(site, mine["key"], mine["session"], arrivals)
                witness.look(WARM_UP_S)
                alone = witness.look(alone_s)
                with self._at_work(site, made[GREEDY_SLUG], folder) as reach:
                    if len(urls) > 1:
                        witness.move(mine["endpoint"], urls[1])
                    beside = witness.look(beside_s, self._watch)
        return row(alone, beside, self._memory, self._most_mb, reach.answers)

    @contextlib.contextmanager
    def _at_work(self, site: str, mine: Mapping[str, str], folder: Path) -> Iterator[Reach]:
        """Give it its turn: it is prepared, and its clients have been asking for a while."""
        with contextlib.ExitStack() as ends:
            reach = Reach(site, mine["key"], mine["session"], folder, ends)
            tenant = self._kind(reach)
            tenant.prepare()
            with reach.asking(tenant.loads(), folder / "clients.log"):
                self._wait(LEAD_S)
                yield reach

    def _wait(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while monotonic() < deadline and self._watch():
            sleep(_LOOK_EVERY_S)

    def _watch(self) -> bool:
        """Look at memory now and then. False: a process has grown beyond what is borne here."""
        if monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = monotonic()
            for name, pid in proc.cast(os.getpid()).items():
                role = name.partition("/")[0]
                if role in self._memory:
                    self._memory[role] = max(self._memory[role], proc.peak(pid) / _MB)
        return max(self._memory.values()) < _STOP_AT * self._most_mb


def row(
    alone: Seen,
    beside: Seen,
    memory: Mapping[str, float],
    most_mb: int,
    answers: Counter[int],
) -> dict[str, Any]:
    """The figures of one greedy tenant, and whether the promises held beside it."""
    alone_ms, beside_ms = (percentile(seen.delivered_ms, 95) for seen in (alone, beside))
    found = {
        "alone_p50_ms": round(percentile(alone.delivered_ms, 50)),
        "alone_p95_ms": round(alone_ms),
        "beside_p50_ms": round(percentile(beside.delivered_ms, 50)),
        "beside_p95_ms": round(beside_ms),
        "ratio": round(beside_ms / alone_ms, 2),
        "stored_p95_ms": round(percentile(beside.stored_ms, 95)),
        "health_ms": round(beside.slowest_ms[HEALTH]),
        "page_ms": round(beside.slowest_ms[PAGE]),
        **{f"{role}_mb": round(memory[role]) for role in _ROLES},
        "answers": _told(answers),
    }
    found["verdict"] = "; ".join(_complaints(found, alone, beside, most_mb)) or "holds"
    return found


def _told(answers: Counter[int]) -> str:
    """How often the greedy one was told what."""
    words = {NONE: "none", OPEN: "open"}
    counted = sorted((status, number) for status, number in answers.items() if number)
    return " ".join(f"{words.get(status, status)}:{number}" for status, number in counted)


def _complaints(found: Mapping[str, Any], alone: Seen, beside: Seen, most_mb: int) -> Iterator[str]:
    if found["ratio"] > MOST_RATIO:
        yield f"{found['ratio']} times as slow"
    for name in ("health", "page"):
        if found[f"{name}_ms"] > MOST_MS:
            yield f"{name} took {found[f'{name}_ms'] / 1000:.1f} s"
    for role in _ROLES:
        if found[f"{role}_mb"] > most_mb:
            yield f"{role} had {found[f'{role}_mb']:,} MB"
    for when, seen in (("", beside), (" while alone", alone)):
        for name in ("refused", "undelivered", "failed"):
            if number := getattr(seen, name):
                yield f"{_WORDS[name]}{when}: {number}"
