"""Two hosts with random faults, random kills of the listener, random changes of the filter: nothing is missing, nothing twice.

Small here; `TEST_EXAMPLES=200 make test ARGS=tests/test_faulty_hosts.py` looks longer and elsewhere each time.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic, sleep, time_ns

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from delivery.sources.jetstream.player.live import LiveLog
from delivery.sources.jetstream.player.misbehaviour import GOOD, HostOptions, Misbehaviour
from tests.builders import frame
from tests.played import PlayedHost, played
from tests.whole import ROOT, Program, engines

pytestmark = [pytest.mark.whole, pytest.mark.timeout(3600)]

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "0"))
PATIENCE_S = 60
# Always wanted; wanted now and then; never wanted.
ALWAYS, SOMETIMES, NEVER = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
PEOPLE = [f"did:plc:{letter * 24}" for letter in "abcdefg"]

KEY = "a" * 43 + "="

_numbers = count(1)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A migrated database with one endpoint and its subscriptions, made once and copied for each example."""
    with tempfile.TemporaryDirectory() as name, engines("embedded", Path(name)) as env:
        env |= {"SECRET_KEY": "faults", "JETRELAY_ENCRYPTION_KEYS": KEY, "WEBHOOK_URL": "http://127.0.0.1:9/", "JETSTREAM_COLLECTIONS": ALWAYS}
        make = (
            "from subscriptions.models import Endpoint, Source, Subscription;"
            f"Subscription.objects.create(endpoint=Endpoint.objects.get(), source=Source.objects.get(), collections=['{SOMETIMES}'], active=False)"
        )
        for argv in (["migrate", "-v0"], ["bootstrap"], ["shell", "-v0", "-c", make]):
            subprocess.run([sys.executable, "manage.py", *argv], env=env, cwd=ROOT, check=True, capture_output=True, timeout=60)
        yield Path(name) / "jetrelay.sqlite3"


@dataclass
class Stream:
    """The log that both hosts serve, and what of it must have been stored at the end."""

    log: LiveLog = field(default_factory=LiveLog)
    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)
    sometimes: bool = False

    def append(self, number: int) -> None:
        for _ in range(number):
            self.one((ALWAYS, ALWAYS, SOMETIMES, NEVER)[next(_numbers) % 4])

    def one(self, collection: str) -> str:
        number = next(_numbers)
        rkey = f"3k{number:011d}"
        if collection == ALWAYS or (collection == SOMETIMES and self.sometimes):
            self.must.add(rkey)
        elif collection == SOMETIMES:
            # Not wanted when it was sent; a replay may bring it again when it is.
            self.may.add(rkey)
        self.log.append(frame(number, did=PEOPLE[number % len(PEOPLE)], time_us=time_ns() // 1000, commit={"collection": collection}))
        return rkey


class Database:
    """The listener's database, as another process sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            return connection.execute(sql).fetchall()

    def stored(self) -> list[str]:
        return [str(rkey) for (rkey,) in self.rows("SELECT json_extract(CAST(body AS TEXT), '$.commit.rkey') FROM delivery_event")]

    def want_sometimes(self, *, wanted: bool) -> None:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            connection.execute("UPDATE subscriptions_subscription SET active = ? WHERE collections LIKE ?", (wanted, f"%{SOMETIMES}%"))
            connection.execute("UPDATE subscriptions_configversion SET value = value + 1")


@dataclass
class Play:
    """One example: the hosts, the listener and what happens to them."""

    stream: Stream
    hosts: list[PlayedHost]
    database: Database
    env: dict[str, str]
    log: Path

    def __post_init__(self) -> None:
        self.listener = self._program()

    def _program(self) -> Program:
        return Program(str(ROOT / "tests" / "impatient_listener.py"), env=self.env, log=self.log)

    def end(self, number: signal.Signals) -> None:
        if self.listener.process.poll() is None:
            self.listener.process.send_signal(number)
            self.listener.process.wait(30)

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = monotonic() + PATIENCE_S
        while not holds():
            assert self.listener.process.poll() is None, self.said()
            assert monotonic() < deadline, f"{what}:\n{self.said()}"
            sleep(0.05)  # another process's rows have no event to wait for

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-8000:]

    # --- what happens ---

    def append(self, number: int) -> None:
        self.stream.append(number)

    def kill(self) -> None:
        self.end(signal.SIGKILL)
        self.listener = self._program()

    def restart(self) -> None:
        self.end(signal.SIGTERM)
        self.listener = self._program()

    def drop(self, host: int) -> None:
        self.hosts[host].close_all()

    def misbehave(self, host: int, how: Misbehaviour) -> None:
        self.hosts[host].misbehaviour = how

    def pass_time(self, seconds: float) -> None:
        sleep(seconds)

    def change_filter(self) -> None:
        """Want or stop to want SOMETIMES. What is sent from the moment on in which both hosts are asked for it has to be stored."""
        wanted = not self.stream.sometimes
        self.stream.sometimes = False
        self.database.want_sometimes(wanted=wanted)
        if wanted:
            for host in self.hosts:
                host.misbehaviour = GOOD
            self.wait(lambda: all(SOMETIMES in host.wanted_collections for host in self.hosts), "the hosts are not asked for what is wanted now")
            self.stream.sometimes = True

    def settle(self) -> None:
        """All is well again: what had to be stored is, sooner or later."""
        for host in self.hosts:
            host.misbehaviour = GOOD
        self.stream.append(8)
        self.wait(lambda: self.stream.must <= set(self.database.stored()), f"{len(self.stream.must - set(self.database.stored()))} are missing")


Do = Callable[[Play], None]


def faults(*, plain_v1: bool, liar: bool) -> st.SearchStrategy[Misbehaviour]:
    """What a host may do wrong while the other one is honest; only the liar leaves out what it never brings later."""
    few = st.integers(1, 12)
    sorts: list[dict[str, st.SearchStrategy[object]]] = [
        {},
        {"silence_after": few},
        {"silence_after": few, "silence_for_s": st.floats(0.1, 2)},
        {"abort_after": st.integers(3, 30)},
        {"close_after": st.integers(3, 30), "close_code": st.sampled_from([1001, 1008, 1011]), "close_error": st.none() | st.just("ConsumerTooSlow")},
        {"duplicate_every": st.integers(2, 5), "garbage_every": few},
        {"damage_every": few},
        {"refuse_for_s": st.floats(0.1, 1), "retry_after_s": st.none() | st.just(1)},
        {"jitter_s": st.floats(0.1, 2), "odd_time_every": st.integers(3, 20), "odd_time_by_s": st.sampled_from([-3e8, 86_400.0])},
        {"no_pongs": st.just(True)},
        {"pong_after_s": st.floats(0.1, 2)},
    ]
    if plain_v1:
        # A fault of the legacy server alone.
        sorts += [{"seam_drop": st.integers(1, 4)}, {"seam_reorder": st.integers(2, 6)}]
    if liar:
        sorts += [
            {"withhold": st.sampled_from([ALWAYS, SOMETIMES])},
            {"keep_events": st.integers(1, 20)},
            {"reset_after": few, "reset_seq": st.integers(1, 9_999)},
        ]
    return st.sampled_from(sorts).flatmap(lambda sort: st.fixed_dictionaries(sort).map(lambda chosen: Misbehaviour(**chosen)))  # type: ignore[arg-type]


@st.composite
def plays(draw: st.DrawFn) -> tuple[list[tuple[str, HostOptions]], list[Do]]:
    """Two hosts, and what happens."""
    kinds = draw(st.lists(st.sampled_from(["v1", "numbered v1", "v2"]), min_size=2, max_size=2))
    skews = draw(st.lists(st.sampled_from([0.0, -2.0, 3.5, 3600.0]), min_size=2, max_size=2))
    hosts = [
        ("v2" if kind == "v2" else "v1", HostOptions(skew_s=skew, first_seq=first, number=kind == "numbered v1"))
        for kind, skew, first in zip(kinds, skews, (12_000, 700_000), strict=True)
    ]
    liar = draw(st.integers(0, 1))

    def misbehaviour(host: int) -> st.SearchStrategy[Do]:
        return faults(plain_v1=kinds[host] == "v1", liar=host == liar).map(lambda how: lambda play: play.misbehave(host, how))

    one = st.one_of(
        st.integers(1, 40).map(lambda number: lambda play: play.append(number)),
        misbehaviour(0),
        misbehaviour(1),
        st.sampled_from([0, 1]).map(lambda host: lambda play: play.drop(host)),
        st.floats(0, 1).map(lambda seconds: lambda play: play.pass_time(seconds)),
        st.sampled_from([Play.kill, Play.restart, Play.change_filter]),
    )
    return hosts, draw(st.lists(one, min_size=6, max_size=16))


@settings(
    max_examples=EXAMPLES or 6,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(play=plays())
def test_it_stores_what_the_hosts_served_and_nothing_twice(play: tuple[list[tuple[str, HostOptions]], list[Do]], template: Path) -> None:
    options, happenings = play
    stream = Stream()
    with (
        tempfile.TemporaryDirectory() as name,
        engines("embedded", Path(name)) as env,
        played(stream.log, [each for _, each in options]) as hosts,
    ):
        shutil.copy(template, Path(name) / template.name)
        urls = [host.v2 if wire == "v2" else host.v1 for (wire, _), host in zip(options, hosts, strict=True)]
        env |= {"SECRET_KEY": "faults", "JETRELAY_ENCRYPTION_KEYS": KEY, "JETSTREAM_HOSTS": ",".join(urls)}
        running = Play(stream, hosts, Database(Path(name) / template.name), env, Path(name) / "listener.log")
        try:
            for host in hosts:
                host.wait_for_connections(1)
            stream.append(4)
            # From here on every host has a place to go on from.
            known = "SELECT count(*) FROM delivery_streamhost WHERE cursor IS NOT NULL"
            running.wait(lambda: running.database.rows(known) == [(2,)], "the hosts have no cursor")
            for happens in happenings:
                happens(running)
                stream.append(2)
            running.settle()
        finally:
            running.end(signal.SIGTERM)
        stored = running.database.stored()
        assert len(stored) == len(set(stored))
        assert stream.must <= set(stored) <= stream.must | stream.may
        assert running.database.rows("SELECT count(*), count(DISTINCT event_id) FROM delivery_delivery") == [(len(stored), len(stored))]
