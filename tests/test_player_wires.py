"""The player's two wires from one log: conversion, numbers, clocks and copies, line by line."""

import itertools
import json

import pytest

from delivery.sources.jetstream import demo_events
from delivery.sources.jetstream.player.copies import fresh_copy
from delivery.sources.jetstream.player.edition import Edition, Terms
from delivery.sources.jetstream.player.live import LiveLog
from delivery.sources.jetstream.player.log import FileLog
from delivery.sources.jetstream.player.stretch import LENGTH
from delivery.sources.jetstream.player.wires import Event, NoEvent, info_frame, parse, rfc3339, to_v1, to_v2, unix_us
from tests.played import ANNA, BERT, START_US, commit, commits, identity, seqs, sync_frame
from tests.whole import SHARED

GARBAGE = [b"not json", b"[1,2]", b'{"kind":"commit"', b'{"did":7,"time_us":"x","kind":"commit"}', b"\xff\xfe", b'{"$type":"message"}', b'{"$type":7}']
CUT_SHORT = b'{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#commit","cid":"x"}}'


def recorded(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path.read_bytes().splitlines()


def edition(log, **terms):
    """All lines of a log as a host with these terms serves them."""
    made = Edition(log, Terms(**terms))
    found = []
    for position in range(len(log)):
        stretch, index = made.at(position)
        found.append(stretch.line(index))
    return found


def v1(lines, **terms):
    return edition(FileLog(lines), wire=1, **terms)


def v2(lines, **terms):
    return edition(FileLog(lines), wire=2, **terms)


# --- From one wire to the other --------------------------------------------------------------------------------------


def test_it_makes_recorded_frames_of_recorded_lines_and_back():
    lines, frames = recorded("v1_server_simulated.ndjson"), recorded("v2_server_simulated.ndjson")
    assert v2(lines) == frames
    assert v1(frames) == lines
    assert (v1(lines), v2(frames)) == (lines, frames)


@pytest.mark.parametrize("name", ["v1_live_2026-07-04.ndjson", "v1_golden.ndjson", "v1_jsonbench_10.ndjson", "malformed_old_wire.ndjson"])
def test_it_brings_recorded_lines_to_v2_and_back(name):
    lines = recorded(name)
    assert v1(lines) == lines
    for line, frame in zip(lines, v2(lines), strict=True):
        event = parse(frame)
        if isinstance(event, Event):
            assert to_v1(event, event.time_us, None) == line
        else:
            assert frame == line


def test_it_brings_made_up_lines_to_v2_and_back():
    lines = list(itertools.islice(demo_events.make(1, START_US), 2 * LENGTH + 5))
    frames = v2(lines)
    assert seqs(frames) == list(range(1, len(lines) + 1))
    assert [list(json.loads(frame)["payload"]) for frame in frames] == [sorted(json.loads(frame)["payload"]) for frame in frames]
    assert [json.loads(line) for line in v1(frames)] == [json.loads(line) | {"cursor": seq} for seq, line in enumerate(lines, 1)]


def test_it_keeps_the_bytes_of_records():
    odd = b'{"text" : "\\u00e9\\/\xc3\xa9", "n":1.50}'
    line = commit(0).replace('{"text":"né"}'.encode(), odd)
    assert odd in v2([line])[0]
    assert odd in v1(v2([line]))[0]


def test_it_shows_what_v1_calls_by_other_names():
    (frame,) = v2([commit(7, cursor=99)])
    assert frame.startswith(b'{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#commit","cid":"bafy","collection":')
    assert frame.endswith(b'"seq":99,"time":"2026-05-28T20:26:40.000007Z"}}')


def test_it_carries_unknown_kinds_and_fields_over():
    line = b'{"did":"did:web:x","time_us":1,"kind":"omen","omen":{"a":[1]},"weather":7}'
    (frame,) = v2([line])
    assert json.loads(frame)["payload"]["omen"] == {"a": [1]}
    assert json.loads(v1([frame])[0]) == json.loads(line) | {"cursor": 1}


def test_it_leaves_what_is_no_event_alone_on_both_wires():
    garbage = [*GARBAGE, CUT_SHORT, b'{"did":"did:web:x","time_us":999999999999999999,"kind":"identity","identity":{}}']
    assert v1(garbage) == v2(garbage) == garbage
    assert v1(garbage, skew_us=5, first_seq=9, number=True) == garbage


def test_it_has_syncs_and_advisories_on_v2_alone():
    lines = [sync_frame(7), info_frame("OutdatedCursor", "late"), commit(1)]
    assert v1(lines) == [b"", b"", commit(1)]
    assert v2(lines)[:2] == lines[:2]
    assert parse(lines[1]) is NoEvent.FOR_V2


def test_it_serves_the_frames_of_the_log_itself_when_nothing_changes():
    log = FileLog(commits(3))
    assert Edition(log, Terms()).at(1) == log.at(1)
    assert Edition(log, Terms()).at(1)[0] is log.at(1)[0]


def test_it_follows_a_log_that_grows_and_turns_to_v2():
    log = LiveLog(commits(2))
    plain, made = Edition(log, Terms()), Edition(log, Terms(wire=2))
    assert len(made.at(0)[0]) == 2
    log.append(sync_frame(9), commit(3))
    assert len(made.at(3)[0]) == len(plain.at(3)[0]) == 4
    assert plain.at(2)[0].lines() == [*commits(2), b"", commit(3)]


@pytest.mark.parametrize("time_us", [0, 1, START_US, -1, 999_999, 253_402_300_799_999_999])
def test_it_shows_times_to_the_microsecond(time_us):
    assert unix_us(rfc3339(time_us)) == time_us


# --- Numbers ---------------------------------------------------------------------------------------------------------


def test_it_numbers_lines_that_carry_no_number():
    assert seqs(v2(commits(3))) == [1, 2, 3]
    assert seqs(v2(commits(3), first_seq=500)) == [500, 501, 502]
    assert v1(commits(3), first_seq=500) == commits(3)


def test_it_shows_numbers_on_v1_where_a_newer_host_does():
    (line,) = v1([commit(0)], number=True, first_seq=500)
    assert line == commit(0, cursor=500)
    assert v1([commit(0, cursor=7)], first_seq=500) == [line]


def test_it_leaves_the_numbers_that_lines_carry():
    lines = [commit(0, cursor=70), commit(1, cursor=75)]
    assert v1(lines) == v1(lines, number=True) == lines
    assert seqs(v2(lines)) == [70, 75]
    assert v1(v2(lines)) == lines


def test_it_finds_numbers():
    plain, numbered = FileLog(commits(3)), FileLog([b"junk", commit(0, cursor=70), commit(1, cursor=75), commit(2)])
    assert [plain.find_seq(seq) for seq in (0, 1, 2, 4, 99)] == [0, 0, 1, 3, 3]
    assert [numbered.find_seq(seq) for seq in (1, 70, 71, 75, 76)] == [0, 0, 2, 2, 4]
    assert (plain.seq_at(0), plain.seq_at(3)) == (1, 4)
    assert (numbered.seq_at(0), numbered.seq_at(4)) == (70, 76)


# --- Clocks ----------------------------------------------------------------------------------------------------------


def times(lines):
    return [json.loads(line)["time_us"] for line in lines]


def test_it_moves_all_times_with_the_clock():
    lines = [commit(0), identity(1)]
    assert times(v1(lines, skew_us=3_500_000)) == [START_US + 3_500_000, START_US + 3_500_001]
    assert json.loads(v2(lines, skew_us=-40)[0])["payload"]["time"] == "2026-05-28T20:26:39.999960Z"
    assert v1(lines, skew_us=1)[0] == commit(0).replace(str(START_US).encode(), str(START_US + 1).encode())


def test_it_lets_times_go_back_across_dids_and_never_within_one():
    dids = [f"did:plc:{number:024}" for number in range(20)]
    lines = [commit(number, did=dids[number % 20]) for number in range(200)]
    shown = times(v1(lines, jitter_us=1_000))
    assert shown != sorted(shown)
    assert all(START_US + number - 1_000 <= time_us <= START_US + number for number, time_us in enumerate(shown))
    for first in range(20):
        assert shown[first::20] == sorted(shown[first::20])


def test_it_gives_every_nth_event_a_time_far_off():
    assert times(v1(commits(6), odd_time_every=3, odd_time_by_us=-5_000)) == [START_US + number - 5_000 * (number in (2, 5)) for number in range(6)]


# --- Copies ----------------------------------------------------------------------------------------------------------


def test_it_copies_numbers_that_go_on_rising():
    log = FileLog([commit(0, cursor=70), commit(1, did=BERT, cursor=75)], loop=True)
    rounds = [json.loads(log.at(position)[0].line(log.at(position)[1]))["cursor"] for position in range(6)]
    assert rounds == [70, 75, 76, 81, 82, 87]
    assert [log.find_seq(seq) for seq in (70, 75, 76, 77, 87, 88)] == [0, 1, 2, 3, 5, 6]
    assert [log.seq_at(position) for position in range(4)] == [70, 75, 76, 81]


def test_it_copies_frames_of_v2():
    (frame,) = v2([commit(0, cursor=70)])
    copy = fresh_copy(frame, 5_000_000, 10)
    assert copy == v2([fresh_copy(commit(0, cursor=70), 5_000_000, 10)])[0]
    assert seqs([copy]) == [80]


def test_it_copies_identities_and_syncs_of_v2_as_new_ones():
    frame = v2([identity(0)])[0]
    assert json.loads(fresh_copy(frame, 1_000_000))["payload"]["identity"] == {"did": ANNA, "seq": 1, "time": "2026-05-28T20:26:41.123Z"}
    sync = json.loads(fresh_copy(sync_frame(1), 1_000_000, 3))["payload"]
    assert (sync["seq"], sync["time"]) == (4, "2026-05-28T20:26:41.000007Z")
    assert sync["sync"]["rev"] != "3ke6kg3wrlz22"


def test_it_stamps_a_frame_of_v2_in_place():
    frame = v2([commit(0)])[0]
    witnessed = frame[:-2] + b',"witnessedAt":"2026-05-28T20:26:40.000000Z"}}'
    moved = json.loads(v2([witnessed], skew_us=1_000_000)[0])["payload"]
    assert moved["time"] == moved["witnessedAt"] == "2026-05-28T20:26:41.000000Z"
    event = parse(witnessed)
    assert isinstance(event, Event)
    assert to_v2(event, event.time_us, 1) == witnessed
