"""Several hosts at once, with a real database: merged, compared, steered, and nothing lost where one of them fails."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import time_ns

import pytest
from django.db.models import QuerySet
from django.utils import timezone

from delivery import listener as module
from delivery import outbox, stream
from delivery.listener import Listener
from delivery.models import MAX_REJECTED, Delivery, Event, EventTally, RejectedFrame, StreamGap, StreamHost
from delivery.sources.incoming import microseconds, moment
from delivery.sources.jetstream import comparison, reader, seam
from delivery.sources.jetstream.frames import InvalidFrame, parse
from delivery.sources.jetstream.player.live import LiveLog
from delivery.sources.jetstream.player.misbehaviour import HostOptions, Misbehaviour
from delivery.sources.jetstream.rejects import Reject
from delivery.sources.jetstream.resuming import LEAPT, TOO_OLD, Gap
from subscriptions.models import ConfigVersion, Subscription
from tests.builders import POST, frame, make_source, make_subscription
from tests.hosts import Host, Script, refusing, sending
from tests.played import PlayedHost, played
from tests.test_listener import bodies, counts, execute, stored
from tests.threads import Elsewhere, eventually, patiently
from tests.whole import SHARED

pytestmark = pytest.mark.django_db(transaction=True)

LIKE = "app.bsky.feed.like"
NUMBERED = HostOptions(first_seq=12_000)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.05)
    monkeypatch.setattr(reader, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(reader, "SETTLED_S", 0.2)
    monkeypatch.setattr(seam, "DELAY_S", 0.1)
    monkeypatch.setattr(seam, "_QUIET_S", 0.2)


@contextmanager
def listening(*urls: str) -> Iterator[Listener]:
    listener = Listener(make_source(), urls)
    run = Elsewhere(listener.run)
    try:
        yield listener
    finally:
        listener.stop()
        run.result()


def now_frame(number: int, **over: object) -> bytes:
    return frame(number, time_us=time_ns() // 1000, **over)


def row(url: str) -> StreamHost:
    return patiently(lambda: StreamHost.objects.get(host=url))


def rows(*urls: str) -> list[StreamHost]:
    return patiently(lambda: [StreamHost.objects.get(host=url) for url in urls])


def connected(*urls: str) -> bool:
    found = patiently(lambda: list(StreamHost.objects.filter(host__in=urls)))
    return len(found) == len(urls) and all(each.connected_since for each in found)


def mixed(hosts: Sequence[PlayedHost]) -> tuple[str, str]:
    """The first on the v1 wire, the second on v2."""
    return hosts[0].v1, hosts[1].v2


# --- Merging -----------------------------------------------------------------------------------------------------------


def test_it_stores_each_event_once_whichever_host_brings_it() -> None:
    make_subscription()
    lines = [frame(number) for number in range(3_000)]
    with played(lines, [HostOptions(), NUMBERED]) as hosts, listening(*mixed(hosts)):
        eventually(lambda: counts()["received"] == 2 * len(lines))
    assert sorted(parse(body).dedup_key for body in bodies()) == sorted(parse(line).dedup_key for line in lines)
    assert counts() == {"received": 6_000, "stored": 3_000, "duplicate": 3_000, "unmatched": 0, "invalid": 0}
    assert Delivery.objects.count() == len(lines)


def test_each_host_has_its_own_cursor() -> None:
    make_subscription()
    lines = [frame(number) for number in range(100)]
    with played(lines, [HostOptions(skew_s=7), NUMBERED]) as hosts:
        v1, v2 = mixed(hosts)
        with listening(v1, v2):
            eventually(lambda: counts()["received"] == 200)
        assert [each.cursor for each in rows(v1, v2)] == [1_780_000_007_000_099, 12_099]
        assert row(v2).reached_at == moment(1_780_000_000_000_099)


def test_it_goes_on_with_one_host_while_the_other_is_away() -> None:
    make_subscription()
    with Host(refusing("503 Service Unavailable")) as away, played([frame(1), frame(2)]) as (host,), listening(away.url, host.v2):
        eventually(lambda: stored() == 2)
        eventually(lambda: row(away.url).problem.startswith("the host answered 503") and connected(host.v2))


def test_a_host_that_joins_starts_a_little_before_the_others() -> None:
    make_subscription()
    lines = [frame(number * 1_000_000) for number in range(1_000)]
    with played(lines, [HostOptions(), HostOptions()]) as hosts:
        with listening(hosts[0].v1):
            eventually(lambda: stored() == len(lines))
        with listening(*mixed(hosts)):
            eventually(StreamHost.objects.filter(host=hosts[1].v2, cursor=1_000).exists)
        joined = row(hosts[1].v2)
    # 999 s less 90: nothing before was asked for.
    assert joined.covered_from == moment(1_780_000_000_000_000) + timedelta(seconds=909)
    assert patiently(lambda: counts()["received"]) < 1_300


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_it_stores_the_recorded_streams_through_both_wires(wire: str) -> None:
    v1, v2 = SHARED / "v1_server_simulated.ndjson", SHARED / "v2_server_simulated.ndjson"
    if not v1.exists():
        pytest.skip("wants the recorded streams, which are not part of the project")
    make_subscription(kinds=["commit", "identity", "account", "sync"])
    lines = v1.read_bytes().splitlines()
    source = v1 if wire == "v1" else v2
    with played(source.read_bytes().splitlines()) as (host,), listening(host.v1 if wire == "v1" else host.v2):
        eventually(lambda: counts()["received"] == 500)
    assert bodies() == lines


def test_it_stores_the_recorded_stream_of_two_hosts_once() -> None:
    v1, v2 = SHARED / "v1_server_simulated.ndjson", SHARED / "v2_server_simulated.ndjson"
    if not v1.exists():
        pytest.skip("wants the recorded streams, which are not part of the project")
    make_subscription(kinds=["commit", "identity", "account", "sync"])
    with played(v1.read_bytes().splitlines()) as (first,), played(v2.read_bytes().splitlines()) as (second,), listening(first.v1, second.v2):
        eventually(lambda: counts()["received"] == 1_000)
    assert sorted(bodies()) == sorted(v1.read_bytes().splitlines())


@pytest.mark.parametrize("name", ["v1_live_2026-07-04", "v1_golden", "v1_jsonbench_10", "malformed_old_wire", "v2_frames_spliced"])
def test_every_recorded_line_is_stored_or_kept_as_rejected(name: str) -> None:
    source = SHARED / f"{name}.ndjson"
    if not source.exists():
        pytest.skip("wants the recorded streams, which are not part of the project")
    make_subscription(kinds=["commit", "identity", "account", "sync"])
    lines = [line for line in source.read_bytes().splitlines() if line]
    good, bad = [], []
    for line in lines:
        try:
            parse(line)
            good.append(line)
        except InvalidFrame:
            bad.append(line)
    with Host(sending(*lines)) as host, listening(host.url):
        eventually(lambda: counts()["received"] == len(lines))
    assert set(bodies()) == set(good)
    assert [bytes(each.head) for each in RejectedFrame.objects.order_by("id")] == [line[:4096] for line in bad]


# --- How hosts are doing -----------------------------------------------------------------------------------------------


def test_it_shows_how_each_host_is_doing() -> None:
    make_subscription()
    log = LiveLog()
    with played(log, [HostOptions(skew_s=-100), NUMBERED]) as hosts, listening(*mixed(hosts)):
        v1, v2 = mixed(hosts)
        eventually(lambda: connected(v1, v2))
        log.append(*[now_frame(number) for number in range(20)], b"garbage")
        eventually(lambda: all(each.events == 20 and each.rejected == 1 for each in rows(v1, v2)))
        eventually(lambda: all(each.events_per_s > 0 and each.bytes_per_s > 0 for each in rows(v1, v2)))
        hosts[0].close_all()
        eventually(lambda: row(v1).reconnects == 1 and connected(v1))
        old, new = rows(v1, v2)
        assert (new.reconnects, new.wire, old.wire) == (0, "v2", "v1")
        assert old.lag_s is not None
        assert new.lag_s is not None
        assert 99 < old.lag_s - new.lag_s < 101
        assert old.last_event_at is not None
        assert abs((timezone.now() - old.last_event_at).total_seconds()) < 60
        assert new.compressed


def test_it_keeps_the_last_rejected_frames() -> None:
    source = make_source()
    at = timezone.now()
    for start in range(0, 2_500, 500):
        rejects = [Reject("ws://x", at, f"reason {number}", 10_000, b"\xff\0head") for number in range(start, start + 500)]
        stream.record_rejects(source, rejects)
    kept = RejectedFrame.objects.order_by("id")
    assert (kept.count(), kept[0].reason, kept.last().reason) == (MAX_REJECTED, "reason 1500", "reason 2499")  # type: ignore[union-attr]
    assert (bytes(kept[0].head), kept[0].size, kept[0].text()) == (b"\xff\0head", 10_000, "\ufffd\0head")


def test_it_says_which_host_leaves_out_which_collection(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(comparison, "GRACE_S", 0.5)
    make_subscription()
    log = LiveLog()
    with (
        caplog.at_level(logging.WARNING, module.__name__),
        played(log, [HostOptions(misbehaviour=Misbehaviour(withhold=LIKE)), NUMBERED]) as hosts,
        listening(*mixed(hosts)) as listener,
    ):
        v1, v2 = mixed(hosts)
        eventually(lambda: len(listener.hosts) == 2 and all(host.reader.liveness.live for host in listener.hosts))
        log.append(*[now_frame(number, commit={"collection": (POST, LIKE)[number % 2]}) for number in range(10)])
        eventually(lambda: len(row(v1).partial) == 1)
        (alarm,) = row(v1).partial
        assert (alarm["collection"], alarm["brought_by"], alarm["missed"]) == (LIKE, v2, 5)
        assert datetime.fromisoformat(alarm["since"]) <= timezone.now()
        assert row(v2).partial == []
        assert caplog.messages.count(f"{v1} leaves out {LIKE}, which {v2} brings.") == 1
    assert stored() == 10


def test_a_restart_raises_no_alarm(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(comparison, "GRACE_S", 0.3)
    make_subscription()
    log = LiveLog()
    with played(log, [HostOptions(), NUMBERED]) as hosts, caplog.at_level(logging.WARNING, module.__name__):
        v1, v2 = mixed(hosts)
        with listening(v1, v2):
            eventually(lambda: connected(v1, v2))
            log.append(*[now_frame(number) for number in range(50)])
            eventually(lambda: counts()["received"] == 100)
        # What the first host brings again, the second one, resumed at its number, does not owe.
        with listening(v1, v2) as listener:
            log.append(now_frame(50))
            eventually(lambda: len(listener.hosts) == 2 and all(host.reader.liveness.live for host in listener.hosts))
            log.append(*[now_frame(number) for number in range(51, 60)])
            eventually(lambda: stored() == 60)
            eventually(lambda: not any(listener._comparison._awaited.values()))
            assert [each.partial for each in rows(v1, v2)] == [[], []]
    assert "leaves out" not in caplog.text


# --- What hosts say ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        lambda visit: (visit.accept(), visit.close(1008, "go\0away\nWARNING forged line"), visit.wait_until_gone()),
        lambda visit: (visit.accept(), visit.send(b'{"$type":"error","error":"Odd\\u0000","message":"' + b"x" * 100_000 + b'"}'), visit.wait_until_gone()),
        refusing("503 Service Unavailable", b"warm\0ing\nup"),
    ],
    ids=["close", "error", "refusal"],
)
def test_odd_words_of_one_host_hide_nothing_of_another(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    make_subscription()
    with caplog.at_level(logging.INFO), Host(script, http=refusing("404 Not Found")) as odd, played([frame(1)]) as (good,), listening(odd.v2_url, good.v1):
        eventually(lambda: stored() == 1)
        eventually(lambda: connected(good.v1) and row(good.v1).events == 1 and "not connected yet" not in row(odd.v2_url).problem)
        eventually(lambda: len(row(odd.v2_url).problem) > 15)
        assert row(odd.v2_url).problem.isprintable()
    assert "cannot be used" not in caplog.text
    assert all(record.getMessage().isprintable() and len(record.getMessage()) < 1_000 for record in caplog.records)


def test_it_stops_while_its_rows_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    make_subscription()
    patiently(lambda: execute("ALTER TABLE delivery_streamhost RENAME TO somewhere_else"))
    try:
        with caplog.at_level(logging.WARNING, module.__name__), listening("ws://127.0.0.1:9/subscribe"):
            eventually(lambda: "the listener waits for it" in caplog.text)
    finally:
        patiently(lambda: execute("ALTER TABLE somewhere_else RENAME TO delivery_streamhost"))


def test_invented_collections_are_counted_as_one_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_TYPES", 5)
    make_subscription()
    lines = [frame(number, commit={"collection": f"com.example.n{number}"}) for number in range(20)]
    with played(lines) as (host,), listening(host.v1):
        eventually(lambda: stored() == 20)
    assert counts()["received"] == 20
    # Whatever minute it is by now.
    assert EventTally.objects.count() <= 12
    assert EventTally.objects.filter(type=outbox.OTHER_TYPES).exists()


# --- Gaps --------------------------------------------------------------------------------------------------------------


def lose_place(url: str, **over: object) -> StreamHost:
    """The host was read up to the beginning of the log, long ago."""
    then = moment(1_780_000_000_000_000)
    fields = {"cursor": 1, "reached_at": then, "covered_from": then, "cursor_saved_at": then} | over
    return StreamHost.objects.create(source=make_source(), host=url, **fields)


@pytest.mark.parametrize("cursor", [1, 1_780_000_000_000_000])
def test_what_a_v2_host_no_longer_has_is_a_gap(cursor: int) -> None:
    make_subscription()
    lines = [frame(number * 1_000_000) for number in range(1_000)]
    with played(lines, [HostOptions(misbehaviour=Misbehaviour(keep_events=10))]) as (host,):
        lose_place(host.v2, cursor=cursor)
        with listening(host.v2):
            eventually(lambda: stored() == 10)
            eventually(lambda: StreamGap.objects.exists())
    gap = StreamGap.objects.get()
    assert (gap.host, gap.reason, gap.filled_by) == (host.v2, TOO_OLD, "")
    assert (gap.from_at, gap.to_at) == (moment(1_780_000_000_000_000), moment(1_780_000_990_000_000))


def test_what_a_v1_host_no_longer_has_is_a_gap() -> None:
    make_subscription()
    lines = [frame(number * 1_000_000) for number in range(1_000)]
    with played(lines, [HostOptions(misbehaviour=Misbehaviour(keep_events=10))]) as (host,):
        lose_place(host.v1, cursor=1_780_000_000_000_000)
        with listening(host.v1):
            eventually(lambda: stored() == 10)
            eventually(lambda: StreamGap.objects.filter(reason=LEAPT, to_at=moment(1_780_000_990_000_000)).exists())


def test_a_gap_is_filled_by_a_host_that_has_it() -> None:
    make_subscription()
    lines = [frame(number * 1_000_000) for number in range(1_000)]
    with played(lines, [HostOptions(misbehaviour=Misbehaviour(keep_events=10)), HostOptions()]) as hosts:
        v1, v2 = hosts[0].v2, hosts[1].v1
        lose_place(v1)
        lose_place(v2, cursor=1_780_000_000_000_000)
        with listening(v1, v2):
            eventually(lambda: StreamGap.objects.filter(filled_by=v2).exists())
            eventually(lambda: stored() == len(lines))
    gap = StreamGap.objects.get()
    assert (gap.host, gap.filled_by) == (v1, v2)
    assert gap.filled_at is not None


def test_a_gap_is_kept_once_and_may_grow() -> None:
    source = make_source()
    stream.record_gap(source, "ws://x", Gap(10, 20, LEAPT))
    StreamGap.objects.update(filled_by="ws://y")
    stream.record_gap(source, "ws://x", Gap(10, 30, LEAPT))
    gap = StreamGap.objects.get()
    assert (gap.to_at, gap.filled_by) == (moment(30), "")


@pytest.mark.parametrize(
    ("covered", "reached", "filled"),
    [((-1, 101), None, True), ((0, 100), None, True), ((1, 200), None, False), ((-1, 99), None, False)],
)
def test_only_an_unbroken_stretch_fills_a_gap(covered: tuple[int, int], reached: None, filled: bool) -> None:
    source, start = make_source(), datetime(2026, 11, 1, tzinfo=UTC)
    gap = stream.record_gap(source, "ws://x", Gap(microseconds(start), microseconds(start + timedelta(seconds=100)), LEAPT))
    first, last = (start + timedelta(seconds=seconds) for seconds in covered)
    lose_place("ws://y", covered_from=first, reached_at=last)
    lose_place("ws://x", covered_from=start - timedelta(days=1), reached_at=start + timedelta(days=1))
    assert stream.fill_gaps(source) == ([gap] if filled else [])


def test_a_host_that_was_asked_for_less_fills_no_gap() -> None:
    subscription = make_subscription(collections=[POST])
    log = LiveLog()
    with played(log) as (host,), listening(host.v1):
        eventually(lambda: connected(host.v1))
        log.append(now_frame(1))
        eventually(lambda: row(host.v1).covered_from is not None and stored() == 1)
        before = row(host.v1).covered_from
        change(subscription, collections=[POST, LIKE])
        eventually(lambda: row(host.v1).covered_from > before)  # type: ignore[operator]
        assert before is not None
        patiently(lambda: stream.record_gap(make_source(), "ws://x", Gap(microseconds(before), microseconds(before) + 1, LEAPT)))
        log.append(now_frame(2))
        eventually(lambda: stored() == 2)
    assert stream.fill_gaps(make_source()) == []


def test_what_an_imported_record_says_of_its_age_is_no_coverage() -> None:
    make_subscription()
    log = LiveLog()
    with played(log) as (host,), listening(host.v1):
        eventually(lambda: connected(host.v1))
        log.append(frame(1, time_us=1_400_000_000_000_000), now_frame(2))
        eventually(lambda: stored() == 2)
        covered_from = row(host.v1).covered_from
    assert covered_from is not None
    assert (timezone.now() - covered_from).total_seconds() < 60


# --- Filters -----------------------------------------------------------------------------------------------------------


def change(subscription: Subscription, **over: object) -> None:
    for name, value in over.items():
        setattr(subscription, name, value)
    patiently(subscription.save)


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_a_changed_filter_loses_nothing_on_what_stays(wire: str) -> None:
    stays = make_subscription(collections=[POST])
    log = LiveLog()
    with played(log) as (host,), listening(url := getattr(host, wire)):
        eventually(lambda: connected(url))
        log.append(*[now_frame(number, commit={"collection": (POST, LIKE)[number % 2]}) for number in range(100)])
        eventually(lambda: stored() > 0)
        added = patiently(lambda: make_subscription(collections=[LIKE]))
        log.append(*[now_frame(number, commit={"collection": POST}) for number in range(100, 200)])
        eventually(lambda: LIKE in host.wanted_collections)
        log.append(*[now_frame(number, commit={"collection": (POST, LIKE)[number % 2]}) for number in range(200, 300)])
        eventually(lambda: Event.objects.filter(type=LIKE).count() >= 50)
        change(added, active=False)
        log.append(*[now_frame(number) for number in range(300, 400)])
        eventually(lambda: host.wanted_collections == {POST})
        log.append(now_frame(400))
        eventually(lambda: Event.objects.filter(type=POST).count() == 301)
    assert stays.active
    if wire == "v1":
        assert host.connections == 1


def test_more_collections_than_a_host_takes_are_filtered_here() -> None:
    make_subscription(collections=[f"com.example.n{number}" for number in range(99)] + [POST])
    log = LiveLog()
    with played(log, [HostOptions(), HostOptions()]) as hosts, listening(*mixed(hosts)):
        eventually(lambda: connected(*mixed(hosts)))
        assert all(len(host.wanted_collections) == 100 for host in hosts)
        make = patiently(lambda: make_subscription(collections=["com.example.one.more", "com.example.two.more"]))
        for host in hosts:
            eventually(lambda host=host: host.wanted_collections == set() and connected(host.v1 if host is hosts[0] else host.v2))  # type: ignore[misc]
        log.append(now_frame(1), now_frame(2, commit={"collection": LIKE}), now_frame(3, commit={"collection": "com.example.one.more"}))
        eventually(lambda: counts()["received"] == 6)
    assert make.active
    assert [parse(body).type for body in bodies()] == [POST, "com.example.one.more"]
    assert ConfigVersion.current() > 0


# --- Quiet filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_a_quiet_filter_moves_its_cursor_and_does_not_connect_in_a_loop(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "QUIET_S", 1.5)
    make_subscription(collections=["com.example.never"])
    with played(LiveLog([frame(number) for number in range(50)])) as (host,):
        url, began = getattr(host, wire), timezone.now()
        with listening(url) as listener:
            # Once for the first connection, and once more for the one that shows what there was meanwhile.
            eventually(StreamHost.objects.filter(cursor__isnull=False).exists)
            first = row(url).cursor
            assert listener.hosts[0].reader.connections == 1
            eventually(StreamHost.objects.filter(cursor__gt=first).exists)
            assert listener.hosts[0].reader.connections <= 3
        found = row(url)
    assert found.cursor is not None
    assert moment(found.cursor) <= began
    assert timezone.now() - moment(found.cursor) < timedelta(seconds=90)
    assert found.reached_at is not None
    assert not StreamGap.objects.exists()


# --- Controls ----------------------------------------------------------------------------------------------------------


def all_hosts() -> "QuerySet[StreamHost]":
    return StreamHost.objects.all()


def test_it_connects_again_when_asked() -> None:
    make_subscription()
    log = LiveLog()
    with played(log, [HostOptions(), NUMBERED]) as hosts, listening(*mixed(hosts)):
        v1, v2 = mixed(hosts)
        eventually(lambda: connected(v1, v2))
        assert patiently(lambda: stream.reconnect(StreamHost.objects.filter(host=v2))) == 1
        eventually(lambda: row(v2).reconnects == 1 and connected(v2))
        log.append(now_frame(1))
        eventually(lambda: stored() == 1)
        assert row(v1).reconnects == 0


def test_it_reads_again_from_a_time_and_stores_nothing_twice() -> None:
    make_subscription(collections=[POST])
    lines = [frame(number * 1_000_000, commit={"collection": (POST, LIKE)[number % 2]}) for number in range(200)]
    with played(lines, [HostOptions(), NUMBERED]) as hosts, listening(*mixed(hosts)):
        eventually(lambda: counts()["received"] == 200)
        patiently(lambda: make_subscription(collections=[LIKE]))
        assert patiently(lambda: stream.rewind(all_hosts(), moment(1_780_000_100_000_000))) == 2
        # A subscription made since gets what it missed, from that time on.
        eventually(lambda: Event.objects.filter(type=LIKE).count() >= 50)
        eventually(lambda: all(each.rewind_to is None for each in rows(*mixed(hosts))))
        eventually(lambda: all(each.reached_at == moment(1_780_000_199_000_000) for each in rows(*mixed(hosts))))
    assert Event.objects.filter(type=POST).count() == 100
    assert 50 <= Event.objects.filter(type=LIKE).count() <= 55
    assert Delivery.objects.count() == Event.objects.count()


def test_it_reads_again_when_it_starts_if_that_was_asked_before() -> None:
    make_subscription()
    lines = [frame(number * 1_000_000) for number in range(100)]
    with played(lines) as (host,):
        last = moment(1_780_000_099_000_000)
        lose_place(host.v2, cursor=100, reached_at=last, rewind_to=moment(1_780_000_000_000_000))
        with listening(host.v2):
            eventually(lambda: stored() == len(lines))
            eventually(lambda: row(host.v2).cursor == 100)
    assert row(host.v2).rewind_to is None


def test_it_moves_no_cursor_ahead() -> None:
    lose_place("ws://x")
    with pytest.raises(stream.InvalidRewind, match="in the future"):
        stream.rewind(all_hosts(), timezone.now() + timedelta(minutes=1))
    with pytest.raises(stream.InvalidRewind, match="ws://x has only come to 2026-05-28 20:26:40 UTC"):
        stream.rewind(all_hosts(), timezone.now())
    assert row("ws://x").rewind_to is None


def test_it_counts_from_now_on_when_asked() -> None:
    make_subscription()
    log = LiveLog()
    with played(log) as (host,), listening(host.v1):
        eventually(lambda: connected(host.v1))
        log.append(now_frame(1), b"garbage")
        eventually(lambda: row(host.v1).rejected == 1 and row(host.v1).events == 1)
        before = timezone.now()
        assert patiently(lambda: stream.reset_counters(all_hosts())) == 1
        log.append(now_frame(2))
        eventually(lambda: row(host.v1).events == 1)
        found = row(host.v1)
    assert (found.rejected, found.reconnects) == (0, 0)
    assert found.counted_since >= before
