"""A host that misbehaves, one way at a time and several at once, as a plain client sees it."""

import json
import socket as sockets

import pytest
import zstandard
from websockets.exceptions import ConnectionClosed

from delivery.sources.jetstream.player.dictionaries import Dictionaries, train
from delivery.sources.jetstream.player.garbage import LONG_BYTES, SORTS
from delivery.sources.jetstream.player.live import LiveLog
from delivery.sources.jetstream.player.misbehaviour import HostOptions, Misbehaviour
from tests.played import (
    ANNA,
    BERT,
    LIKE,
    POST,
    START_US,
    client,
    commit,
    commits,
    payloads,
    played,
    read,
    read_all,
    read_until_closed,
    refusal,
    seqs,
)

LINES = commits(10)
HANDSHAKE = (
    b"GET /subscribe HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
OFF = Misbehaviour()


def misbehaving(log=LINES, rate=None, dictionaries=Dictionaries, **how):
    """One host that does so."""
    return played(log, [HostOptions(number=how.pop("number", False), misbehaviour=Misbehaviour(**how))], rate, dictionaries)


def numbers(lines):
    """Which of LINES these are."""
    return [json.loads(line)["time_us"] - START_US for line in lines]


# --- Silence ---------------------------------------------------------------------------------------------------------


def test_it_falls_silent_for_good_but_answers_pings():
    with misbehaving(silence_after=3) as (host,), client(host.v1) as socket:
        assert read(socket, 3) == LINES[:3]
        assert read_all(socket) == []
        host.misbehaviour = OFF
        assert read(socket, 7) == LINES[3:]


def test_it_is_silent_for_a_while():
    with misbehaving(silence_after=3, silence_for_s=0.05) as (host,), client(host.v1) as socket:
        assert read(socket, 10) == LINES


def test_it_is_silent_on_the_first_connections_only():
    with misbehaving(silence_after=0, silence_connections=1) as (host,):
        with client(host.v2) as socket:
            assert read_all(socket) == []
        with client(host.v1) as socket:
            assert read(socket, 10) == LINES


def test_it_counts_the_events_that_a_client_wants():
    lines = [commit(number, collection=(POST, LIKE)[number % 2]) for number in range(10)]
    with misbehaving(lines, silence_after=2) as (host,), client(host.v1, wantedCollections=LIKE) as socket:
        assert read_all(socket) == [lines[1], lines[3]]


# --- Leaving ---------------------------------------------------------------------------------------------------------


def test_it_drops_the_connection_without_a_close_frame():
    with misbehaving(abort_after=4, abort_connections=2) as (host,):
        for url in (host.v1, host.v2):
            with client(url) as socket:
                got, close = read_until_closed(socket)
            assert (len(got), close) == (4, None)
        with client(host.v1) as socket:
            assert read(socket, 10) == LINES


def test_it_sends_all_that_comes_before_it_drops_a_slow_client():
    lines = [commit(number, rest="x" * 100_000) for number in range(100)]
    with misbehaving(lines, abort_after=90) as (host,), client(host.v1) as socket:
        got, close = read_until_closed(socket)
    assert (got, close) == (lines[:90], None)


def test_it_closes_with_a_code_and_a_reason():
    with misbehaving(close_after=2, close_code=1001, close_reason="gone for tea", close_connections=1, close_error="ConsumerTooSlow") as (host,):
        with client(host.v1) as socket:
            got, close = read_until_closed(socket)
        assert (got, close.code, close.reason) == (LINES[:2], 1001, "gone for tea")
        with client(host.v1) as socket:
            assert read(socket, 10) == LINES


def test_it_sends_an_error_frame_before_it_closes_on_v2():
    with misbehaving(close_after=2, close_error="ConsumerTooSlow") as (host,), client(host.v2) as socket:
        got, close = read_until_closed(socket)
    assert seqs(got[:2]) == [1, 2]
    error = json.loads(got[2])
    assert (error["$type"], error["error"], sorted(error)) == ("error", "ConsumerTooSlow", ["$type", "error", "message"])
    assert (len(got), close.code) == (3, 1000)


# --- Handshakes ------------------------------------------------------------------------------------------------------


def test_it_refuses_the_first_handshakes():
    with misbehaving(refuse_connections=2, retry_after_s=7) as (host,):
        for url in (host.v1, host.v2):
            refused = refusal(url)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
        with client(host.v1) as socket:
            assert read(socket, 10) == LINES
        assert (host.handshakes, host.connections) == (3, 1)


def test_it_refuses_for_a_while():
    with misbehaving(refuse_for_s=3600) as (host,):
        refused = refusal(host.v1)
        assert refused.status_code == 503
        assert "Retry-After" not in refused.headers
        host.misbehaviour = Misbehaviour(refuse_for_s=0)
        with client(host.v1) as socket:
            assert read(socket, 10) == LINES


def test_it_never_answers_a_handshake():
    with misbehaving(handshake_never=True, handshake_connections=1) as (host,), sockets.create_connection(("127.0.0.1", host.port)) as waiting:
        waiting.sendall(HANDSHAKE)
        host.wait_for_handshakes(1)
        with client(host.v1) as socket:
            assert read(socket, 10) == LINES
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)


def test_it_ends_though_handshakes_are_not_answered(monkeypatch):
    monkeypatch.setattr("delivery.sources.jetstream.player.server.CLOSE_TIMEOUT_S", 0.1)
    with sockets.socket() as waiting:
        with misbehaving(handshake_never=True) as (host,):
            waiting.connect(("127.0.0.1", host.port))
            waiting.sendall(HANDSHAKE)
            host.wait_for_handshakes(1)
        waiting.settimeout(20)
        assert waiting.recv(1) == b""


def test_it_answers_a_handshake_byte_by_byte():
    with misbehaving(handshake_byte_every_s=0.0) as (host,), client(host.v1) as socket:
        assert read(socket, 10) == LINES


# --- Pongs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"no_pongs": True}, {"pong_after_s": 3600}])
def test_it_answers_no_ping_or_not_yet(how):
    with misbehaving(**how) as (host,), client(host.v1) as socket:
        read(socket, 10)
        unanswered = socket.ping()
        socket.send("{not json")
        # The close comes after all that was said before.
        _, close = read_until_closed(socket)
        assert (close.code, unanswered.is_set()) == (1007, False)


def test_it_answers_a_ping_late():
    with misbehaving(pong_after_s=0.05) as (host,), client(host.v1) as socket:
        assert socket.ping().wait(20)


# --- Events ----------------------------------------------------------------------------------------------------------


def test_it_sends_every_nth_event_twice():
    with misbehaving(duplicate_every=4) as (host,), client(host.v1) as socket:
        assert numbers(read(socket, 12)) == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9]


def test_it_withholds_a_collection():
    lines = [commit(number, collection=(POST, LIKE)[number % 2]) for number in range(6)]
    with misbehaving(lines, withhold=LIKE) as (host,), client(host.v1) as old, client(host.v2, kinds="commit") as new:
        assert numbers(read_all(old)) == [0, 2, 4]
        assert seqs(read_all(new)) == [1, 3, 5]


def test_it_withholds_from_a_connection_on():
    lines = [commit(number, collection=(POST, LIKE)[number % 2]) for number in range(6)]
    with misbehaving(lines, withhold=LIKE, withhold_from=2) as (host,):
        for expected in (6, 3, 3):
            with client(host.v1) as socket:
                assert len(read_all(socket)) == expected


def test_it_withholds_for_a_while():
    log = LiveLog()
    with misbehaving(log, withhold=POST, withhold_for_s=3600) as (host,), client(host.v1) as socket:
        log.append(*LINES)
        assert read_all(socket) == []
        host.misbehaviour = Misbehaviour(withhold=POST, withhold_for_s=0)
        log.append(commit(10))
        assert numbers(read(socket, 1)) == [10]


def test_it_sends_garbage_of_every_sort():
    with misbehaving(commits(8), garbage_every=1) as (host,), client(host.v1) as socket:
        got = read(socket, 16)
    assert got[1::2] == commits(8)
    garbage = dict(zip([sort.name for sort in SORTS], got[::2], strict=False))
    with pytest.raises(json.JSONDecodeError):
        json.loads(garbage["bad JSON"])
    assert isinstance(json.loads(garbage["wrong types"])["did"], int)
    with pytest.raises(RecursionError):
        json.loads(garbage["too deep"])
    with pytest.raises(UnicodeDecodeError):
        garbage["invalid UTF-8"].decode()
    assert garbage["a fragmented message"] == b'{"in":"three parts"}'
    assert len(garbage["over-long"]) > LONG_BYTES
    assert json.loads(garbage["unknown kind"])["kind"] == "omen"
    assert got[14] == got[0]


def test_it_fragments_a_message():
    with misbehaving(commits(5), garbage_every=1) as (host,), client(host.v2) as socket:
        read(socket, 8)
        assert list(socket.recv_streaming(decode=False)) == [b'{"in":"', b"three p", b'arts"}']


def test_it_damages_compressed_frames():
    given = train([])
    decompress = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(given.data)).decompress
    with misbehaving(commits(7), damage_every=3, garbage_every=7, dictionaries=lambda log: Dictionaries(log, given, given)) as (host,):
        for url in (f"{host.v1}?compress=true", f"{host.v2}?zstdDictionary={given.id}"):
            with client(url) as socket:
                got = read(socket, 8)
            for number, message in enumerate(got[:6], 1):
                if number % 3:
                    assert json.loads(decompress(message))
                else:
                    with pytest.raises(zstandard.ZstdError):
                        decompress(message)
            with pytest.raises(json.JSONDecodeError):
                json.loads(decompress(got[6]))
        with client(host.v1) as socket:
            assert read(socket, 6) == commits(6)


def test_it_mixes_misbehaviours():
    with misbehaving(duplicate_every=2, garbage_every=3, abort_after=6, withhold=LIKE) as (host,), client(host.v1) as socket:
        got, close = read_until_closed(socket)
    assert close is None
    assert [message for message in got if message in LINES] == [LINES[number] for number in (0, 1, 1, 2, 3, 3, 4, 5, 5)]
    assert len(got) == 11


def test_it_changes_its_ways_while_clients_are_connected():
    log = LiveLog()
    with misbehaving(log) as (host,), client(host.v1) as socket:
        log.append(*LINES[:2])
        assert read(socket, 2) == LINES[:2]
        host.misbehaviour = Misbehaviour(duplicate_every=1)
        log.append(LINES[2])
        assert read(socket, 2) == [LINES[2]] * 2
        host.close_all()
        with pytest.raises(ConnectionClosed):
            read(socket, 1)


# --- The seam --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"seam_drop": 4}, [5, 6, 7, 12, 13]),
        ({"seam_drop": 1}, [5, 6, 7, 8, 10, 11, 12, 13]),  # the tip is at 10, as ten events have happened
        ({"seam_reorder": 4}, [5, 6, 7, 11, 10, 9, 8, 12, 13]),
        ({"seam_reorder": 4, "seam_drop": 2}, [5, 6, 7, 11, 8, 12, 13]),
        ({"seam_drop": 100}, []),
    ],
)
@pytest.mark.parametrize("wire", ["v1", "v2"])
def test_it_loses_and_reorders_events_where_a_replay_meets_the_live_tip(how, expected, wire):
    log = LiveLog(LINES)
    with misbehaving(log, **how) as (host,), client(getattr(host, wire)) as fresh, client(getattr(host, wire), cursor=START_US + 5) as replaying:
        log.append(*[commit(number) for number in range(10, 14)])
        assert len(read(fresh, 4)) == 4
        got = read_all(replaying)
        found = numbers(got) if wire == "v1" else [seq - 1 for seq in seqs(got)]
        assert found == expected


def test_it_leaves_a_client_without_a_replay_alone():
    log = LiveLog(LINES)
    with misbehaving(log, seam_drop=6) as (host,), client(host.v1) as fresh, client(host.v1, cursor=START_US + 99) as ahead:
        log.append(commit(10), commit(11))
        assert numbers(read(fresh, 2)) == numbers(read(ahead, 2)) == [10, 11]


def test_it_has_a_seam_at_a_given_rate():
    lines = commits(400)
    with misbehaving(lines, rate=1_000, seam_drop=10) as (host,), client(host.v1) as first:
        read(first, 50)
        with client(host.v1, cursor=START_US) as replaying:
            got = numbers(read(replaying, 300))
        missing = sorted(set(range(got[-1])) - set(got))
        assert len(missing) == 10
        assert missing == list(range(missing[0], missing[0] + 10))
        assert missing[0] >= 40


# --- Times and numbers -----------------------------------------------------------------------------------------------


def test_it_takes_cursors_by_its_own_clock():
    with played(LINES, [HostOptions(skew_s=3.5), HostOptions(skew_s=-2)]) as (fast, slow):
        for host, skew_us in ((fast, 3_500_000), (slow, -2_000_000)):
            with client(host.v1, cursor=START_US + skew_us + 4) as socket:
                assert numbers(read_all(socket)) == [number + skew_us for number in range(4, 10)]
            with client(host.v2, cursor=START_US + skew_us + 4) as socket:
                assert len(read_all(socket)) == 6


def test_it_jitters_and_imports():
    lines = [commit(number, did=(ANNA, BERT)[number % 2]) for number in range(10)]
    with misbehaving(lines, jitter_s=1, odd_time_every=5, odd_time_by_s=3600) as (host,), client(host.v1) as socket:
        shown = numbers(read(socket, 10))
    assert [number for number, time_us in enumerate(shown) if time_us > 3_000_000_000] == [4, 9]
    rest = [time_us for number, time_us in enumerate(shown) if number not in (4, 9)]
    assert rest != sorted(rest)
    assert min(rest) >= -1_000_000


def test_imported_records_are_years_old_unless_told_otherwise():
    with misbehaving(odd_time_every=10) as (host,), client(host.v1) as socket:
        assert numbers(read(socket, 10))[9] < -9 * 365 * 86_400_000_000


@pytest.mark.parametrize("how", [{"keep_events": 3}, {"keep_for_s": 0.000002}])
def test_it_keeps_the_last_events_only(how):
    with misbehaving(**how) as (host,):
        for cursor in ("", START_US, START_US + 7):
            with client(host.v1, cursor=cursor) as socket:
                assert numbers(read_all(socket)) == [7, 8, 9]
        with client(host.v2, cursor=START_US) as socket:
            info, *events = payloads(read_all(socket))
            assert (info["name"], [event["seq"] for event in events]) == ("OutdatedCursor", [8, 9, 10])
        refused = json.loads(refusal(host.v2, cursor=7).body)
        assert refused["error"] == "CursorTooOld"
        with client(host.v2, cursor=8) as socket:
            assert seqs(read_all(socket)) == [8, 9, 10]


def test_it_numbers_anew_after_so_many_connections():
    with misbehaving(reset_after=1, reset_seq=900, number=True) as (host,):
        with client(host.v2) as first, client(host.v2, cursor=905) as second, client(host.v1, cursor=908) as third:
            assert seqs(read_all(first)) == list(range(1, 11))
            assert seqs(read_all(second)) == [905, 906, 907, 908, 909]
            assert [json.loads(line)["cursor"] for line in read_all(third)] == [908, 909]
        assert json.loads(refusal(host.v2, cursor=10).body)["error"] == "CursorTooOld"


# --- What makes no sense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"silence_after": -1}, "silence_after: -1 is below 0"),
        ({"duplicate_every": 0}, "duplicate_every: 0 is below 1"),
        ({"silence_for_s": 3}, "silence_for_s: says nothing without silence_after"),
        ({"retry_after_s": 3}, "retry_after_s: says nothing without refuse_connections or refuse_for_s"),
        ({"close_after": 1, "close_code": 1006}, "close_code: 1006"),
        ({"close_after": 1, "close_reason": "ü" * 62}, "close_reason"),
        ({"handshake_connections": 1}, "handshake_connections"),
    ],
)
def test_it_says_what_makes_no_sense(how, said):
    with pytest.raises(ValueError, match=said):
        Misbehaviour(**how)
