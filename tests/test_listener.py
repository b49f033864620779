"""The listener, with a real stream and a real database: what it stores, and what it survives."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import OuterRef, Subquery, Sum

from delivery import listener as module
from delivery.engines.base import EventCounts
from delivery.leases import Holding
from delivery.listener import Listener
from delivery.models import Delivery, Event, EventTally, Lease, StreamHost
from delivery.outbox import Outbox
from delivery.sources.incoming import moment
from delivery.sources.jetstream import reader
from delivery.sources.jetstream.position import OVERLAP_US
from delivery.sources.jetstream.reader import NOTHING_WANTED
from subscriptions.models import Subscription
from tests.builders import DID, POST, frame, make_source, make_subscription
from tests.hosts import Host, Visit, playing, refusing, sending
from tests.threads import Elsewhere, eventually, patiently
from tests.whole import SHARED

pytestmark = pytest.mark.django_db(transaction=True)

LIKE = "app.bsky.feed.like"
REFUSED = "did:plc:refused"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.05)
    monkeypatch.setattr(reader, "_FIRST_WAIT_S", 0.02)


@contextmanager
def listening(url: str) -> Iterator[Listener]:
    listener = Listener(make_source(), [url])
    run = Elsewhere(listener.run)
    try:
        yield listener
    finally:
        listener.stop()
        run.result()


def stored() -> int:
    return Event.objects.count()


def bodies() -> list[bytes]:
    return patiently(lambda: [bytes(body) for body in Event.objects.order_by("id").values_list("body", flat=True)])


def counts() -> dict[str, int]:
    names = ("received", "stored", "duplicate", "unmatched", "invalid")
    totals = EventTally.objects.aggregate(**{name: Sum(name, default=0) for name in names})
    return {name: totals[name] for name in names}


def identity(number: int) -> bytes:
    inner = {"did": DID, "seq": number, "time": f"2026-05-28T20:26:{number:02d}Z"}
    return json.dumps({"did": DID, "time_us": 1_780_000_000_000_000 + number, "kind": "identity", "identity": inner}).encode()


def account(number: int) -> bytes:
    inner = {"active": True, "did": DID, "seq": number, "time": f"2026-05-28T20:26:{number:02d}Z"}
    return json.dumps({"did": DID, "time_us": 1_780_000_000_000_000 + number, "kind": "account", "account": inner}).encode()


# --- Storing -----------------------------------------------------------------------------------------------------------


def test_it_stores_what_is_wanted_and_counts_the_rest() -> None:
    make_subscription(collections=[POST])
    lines = [frame(1), frame(2, commit={"collection": LIKE}), identity(3), b"garbage", account(4), frame(5), b"[]", b"\xff{}"]
    # Hosts filter by collection, and let identity and account events pass; this one filters nothing.
    with Host(sending(*lines)) as host, listening(host.url):
        eventually(lambda: counts()["received"] == len(lines))
    assert bodies() == [frame(1), frame(5)]
    assert counts() == {"received": 8, "stored": 2, "duplicate": 0, "unmatched": 3, "invalid": 3}
    assert Delivery.objects.pending().count() == 2


def test_it_stores_identity_and_account_events_for_those_who_ask() -> None:
    make_subscription(collections=[LIKE], kinds=["identity", "account"])
    with playing([frame(1), identity(2), account(3)]) as url, listening(url):
        eventually(lambda: counts()["received"] == 3)
    assert bodies() == [identity(2), account(3)]


def test_it_stores_a_recorded_stream_byte_for_byte() -> None:
    recorded = SHARED / "v1_golden.ndjson"
    if not recorded.exists():
        pytest.skip("wants the recorded streams, which are not part of the project")
    lines = [line for line in recorded.read_bytes().split(b"\n") if line]
    make_subscription(kinds=["commit", "identity", "account"])
    with playing(lines) as url, listening(url):
        eventually(lambda: counts()["received"] == len(lines))
    assert bodies() == lines
    assert set(Event.objects.values_list("origin", flat=True)) == {url}


def test_it_stores_a_lone_event_without_waiting_for_more() -> None:
    make_subscription()
    with Host(sending(frame(1))) as host, listening(host.url):
        eventually(lambda: stored() == 1)


def test_it_asks_the_host_for_what_the_subscriptions_want() -> None:
    make_subscription(collections=[POST, "app.bsky.graph.*"], dids=[DID])
    with Host(sending()) as host, listening(host.url):
        (visit,) = host.wait_for_visits(1)
    assert visit.query == {"wantedCollections": [POST, "app.bsky.graph.*"], "wantedDids": [DID]}


def test_it_hears_of_a_subscription_made_while_it_runs() -> None:
    make_subscription(collections=[LIKE])
    lines = [frame(number, commit={"collection": (POST, LIKE)[number % 2]}) for number in range(40_000)]
    with playing(lines, rate=1_000) as url, listening(url):
        eventually(lambda: stored() > 0)
        assert not patiently(Event.objects.filter(type=POST).exists)
        patiently(lambda: make_subscription(collections=[POST]))
        eventually(Event.objects.filter(type=POST).exists)


def test_it_stays_away_until_somebody_wants_something() -> None:
    with playing([frame(1)]) as url, listening(url):
        eventually(lambda: StreamHost.objects.filter(host=url, problem=NOTHING_WANTED).exists())
        patiently(make_subscription)
        eventually(lambda: stored() == 1)
        patiently(lambda: [one.delete() for one in Subscription.objects.all()])
        eventually(lambda: StreamHost.objects.filter(host=url, problem=NOTHING_WANTED, connected_since=None).exists())


def test_it_shows_how_its_connection_is_doing() -> None:
    make_subscription()

    def row() -> StreamHost:
        return StreamHost.objects.get(source=make_source())

    with Host(refusing("503 Service Unavailable", b"warming up"), sending(frame(1))) as host:
        with listening(host.url):
            eventually(lambda: stored() == 1)
            eventually(lambda: row().connected_since is not None and row().problem == "")
            assert patiently(row).seen_at is not None
            assert patiently(row).reached_at == moment(1_780_000_000_000_001)
        assert (row().connected_since, row().problem, row().host) == (None, "the listener was stopped", host.url)


def test_it_names_the_demo_when_nobody_answers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    make_subscription()
    with caplog.at_level(logging.WARNING, module.__name__), Host(refusing("503 Service Unavailable")) as host, listening(host.url):
        eventually(lambda: "`make demo` shows everything at work without a network." in caplog.text)
        assert f"({host.url}: the host answered 503)" in caplog.text
    assert caplog.text.count("make demo") == 1


# --- The cursor --------------------------------------------------------------------------------------------------------


def test_its_cursor_is_always_that_of_the_newest_stored_event() -> None:
    make_subscription()
    newest = Event.objects.filter(source=OuterRef("source")).order_by("-occurred_at").values("occurred_at")[:1]
    lines, seen = [frame(number * 1_000) for number in range(1_000)], set()
    with playing(lines, rate=1_000) as url, listening(url):

        def agrees() -> bool:
            # One statement, so one state of the database.
            row = StreamHost.objects.annotate(newest=Subquery(newest)).filter(host=url).first()
            if row is not None and row.cursor is not None:
                assert row.newest == moment(row.cursor)
                seen.add(row.cursor)
            return row is not None and row.cursor == 1_780_000_000_000_000 + 999_000

        eventually(agrees)
    assert len(seen) > 5


def test_it_resumes_where_it_was_and_stores_nothing_twice() -> None:
    make_subscription()
    lines = [frame(number) for number in range(1_500)]
    with playing(lines, rate=1_500) as url:
        with listening(url):
            eventually(lambda: stored() >= 300)
        assert stored() < len(lines)
        with listening(url):
            eventually(lambda: stored() == len(lines))
            eventually(lambda: counts()["duplicate"] > 0)
    assert sorted(bodies()) == sorted(lines)
    assert Delivery.objects.count() == len(lines)


def test_it_asks_for_what_follows_its_cursor() -> None:
    make_subscription()
    with Host(sending(frame(7_000_000)), sending()) as host:
        with listening(host.url):
            eventually(lambda: stored() == 1)
        with listening(host.url):
            visits = host.wait_for_visits(2)
    assert visits[1].query == {"cursor": [str(1_780_000_000_000_000 + 7_000_000 - OVERLAP_US)]}


def test_it_stores_what_it_has_read_before_it_stops() -> None:
    make_subscription()
    lines = [frame(number) for number in range(5_000)]
    with playing(lines) as url:
        with listening(url):
            eventually(lambda: stored() > 0)
        kept = stored()
        cursor = StreamHost.objects.get(host=url).cursor
    assert cursor == 1_780_000_000_000_000 + kept - 1
    assert bodies() == lines[:kept]


# --- One listener at a time --------------------------------------------------------------------------------------------


def test_a_second_one_stands_by_and_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    make_subscription()
    lines = [frame(number) for number in range(2_000)]
    with caplog.at_level(logging.INFO, module.__name__), playing(lines, rate=1_000) as url, listening(url) as first:
        eventually(lambda: stored() > 0)
        with listening(url) as second:
            eventually(lambda: "this one stands by" in caplog.text)
            assert not bool(second.hosts)
            before = patiently(stored)
            first.stop()
            eventually(lambda: stored() > before and bool(second.hosts))
            eventually(lambda: stored() == len(lines))
    assert sorted(bodies()) == sorted(lines)


def test_it_takes_over_from_one_that_died() -> None:
    make_subscription()
    name = Listener(make_source(), ["ws://x"]).holding.name
    assert Holding(name, 0.3).take()
    with playing([frame(1)]) as url, listening(url):
        eventually(lambda: stored() == 1)


def test_it_stands_by_once_its_lease_is_another_ones(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "LEASE_S", 0.6)
    make_subscription()
    lines = [frame(number) for number in range(40_000)]
    with caplog.at_level(logging.INFO, module.__name__), playing(lines, rate=1_000) as url, listening(url) as listener:
        eventually(lambda: stored() > 0)
        patiently(lambda: Lease.objects.filter(name=listener.holding.name).update(token=uuid4()))
        eventually(lambda: "Another listener has taken over" in caplog.text)
        before = patiently(stored)
        # Nobody renews the other one's lease: it runs out.
        eventually(lambda: stored() > before)


def test_it_gives_its_lease_back() -> None:
    make_subscription()
    with playing([frame(1)]) as url, listening(url) as listener:
        eventually(lambda: stored() == 1)
    assert Holding(listener.holding.name, 5).take()


# --- A host that misbehaves --------------------------------------------------------------------------------------------


def test_it_survives_whatever_a_host_does() -> None:
    make_subscription()

    def hangs_up(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(1))
        visit.sock.sendall(b"\x81\x7e\xff")
        visit.sock.shutdown(socket.SHUT_RDWR)

    def breaks_the_protocol(visit: Visit) -> None:
        visit.accept()
        visit.send(frame(2))
        visit.sock.sendall(b"\xc1\x05hello")
        visit.wait_until_gone()

    def sends_too_much(visit: Visit) -> None:
        visit.accept()
        visit.announce(5_000_000)
        visit.pour(5_000_000)
        visit.send(frame(3))
        visit.announce(2**40)
        visit.wait_until_gone()

    with Host(refusing("400 Bad Request"), hangs_up, breaks_the_protocol, sends_too_much, sending(b"{}", frame(4))) as host, listening(host.url):
        eventually(lambda: stored() == 4)
    assert bodies() == [frame(1), frame(2), frame(3), frame(4)]
    assert counts()["invalid"] == 2


# --- A database that misbehaves ----------------------------------------------------------------------------------------


@pytest.fixture
def refusal() -> Iterator[None]:
    """The database itself refuses events about REFUSED."""
    if connection.vendor == "postgresql":
        make = f"ALTER TABLE delivery_event ADD CONSTRAINT refusal CHECK (subject <> '{REFUSED}')"
        undo = "ALTER TABLE delivery_event DROP CONSTRAINT refusal"
    else:
        make = f"CREATE TRIGGER refusal BEFORE INSERT ON delivery_event WHEN NEW.subject = '{REFUSED}' BEGIN SELECT RAISE(ABORT, 'refused'); END"
        undo = "DROP TRIGGER refusal"
    execute(make)
    yield
    execute(undo)


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.usefixtures("refusal")
def test_it_counts_events_that_the_database_refuses_and_stores_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    make_subscription()
    refused = (0, 7, 8, 99)
    lines = [frame(number, did=REFUSED if number in refused else DID) for number in range(100)]
    with playing(lines) as url, listening(url):
        eventually(lambda: counts()["received"] == 100)
    assert bodies() == [line for number, line in enumerate(lines) if number not in refused]
    assert counts() == {"received": 100, "stored": 96, "duplicate": 0, "unmatched": 0, "invalid": 4}
    assert StreamHost.objects.get(host=url).cursor == 1_780_000_000_000_099
    assert caplog.text.count("The database refuses an event") == 4


@pytest.mark.parametrize("table", ["delivery_eventtally", "delivery_event", "delivery_streamhost", "subscriptions_configversion"])
def test_it_waits_for_a_database_that_is_not_ready(table: str, caplog: pytest.LogCaptureFixture) -> None:
    make_subscription()
    lines = [frame(number) for number in range(2_000)]
    with caplog.at_level(logging.WARNING, module.__name__), playing(lines, rate=2_000) as url, listening(url):
        eventually(lambda: stored() > 0)
        # As it is in the middle of a migration, or after a restore went wrong.
        patiently(lambda: execute(f"ALTER TABLE {table} RENAME TO somewhere_else"))
        try:
            eventually(lambda: "the listener waits for it" in caplog.text)
        finally:
            patiently(lambda: execute(f"ALTER TABLE somewhere_else RENAME TO {table}"))
        eventually(lambda: stored() == len(lines))
    assert sorted(bodies()) == sorted(lines)
    assert counts()["invalid"] == 0


@pytest.mark.postgresql
def test_it_goes_on_with_a_new_session_where_its_own_may_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a switchover to another server."""
    make_subscription(collections=[POST])
    publish, demoted = Outbox.publish, list[int]()

    def demoting(self: Outbox, *args: Any) -> EventCounts:
        if not demoted:
            connection.ensure_connection()
            demoted.append(connection.connection.info.backend_pid)
            connection.connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        return publish(self, *args)

    monkeypatch.setattr(Outbox, "publish", demoting)
    with Host(sending(frame(1), frame(2))) as host, listening(host.url):
        eventually(lambda: stored() == 2)
    assert demoted


def test_it_stops_cleanly_when_the_database_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    make_subscription()
    with playing([frame(1)]) as url:
        listener = Listener(make_source(), [url])
        run = Elsewhere(listener.run)
        eventually(lambda: stored() == 1)
        patiently(lambda: execute("ALTER TABLE delivery_lease RENAME TO somewhere_else"))
        try:
            listener.stop()
            run.result()
        finally:
            patiently(lambda: execute("ALTER TABLE somewhere_else RENAME TO delivery_lease"))
    assert "has stopped without giving its lease back" in caplog.text


def test_it_waits_no_longer_after_an_hour_of_trouble() -> None:
    listener = Listener(make_source(), ["ws://x"])
    listener._troubles = 5_000
    listener.stop()
    Elsewhere(lambda: listener._wait_for_database(OSError("gone"))).result()
    assert listener._troubles == 5_001
