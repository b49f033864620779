"""Made-up events: the shapes of the real stream, and every awkward text there is."""

import itertools
import json
import re
from collections import Counter

import pytest

from delivery.sources.jetstream import demo_events

START_US = 1_780_000_000_000_000


def made(count, seed=1):
    return list(itertools.islice(demo_events.make(seed, START_US), count))


@pytest.fixture(scope="module")
def events():
    return [json.loads(line) for line in made(20_000)]


def commits(events):
    return [event["commit"] for event in events if event["kind"] == "commit"]


def test_it_makes_the_same_bytes_from_the_same_seed():
    assert made(500) == made(500)
    assert made(500) != made(500, seed=2)


def test_it_gives_each_event_a_later_time(events):
    times = [event["time_us"] for event in events]
    assert times[0] == START_US
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


def test_it_orders_the_keys_as_the_wire_does():
    for line in made(200):
        assert re.match(rb'\{"did":"did:[^"]+","time_us":\d+,"kind":"(commit|identity|account)","', line)
        assert line == json.dumps(json.loads(line), ensure_ascii=False, separators=(",", ":")).encode()


def test_it_makes_every_kind_and_operation(events):
    assert {event["kind"] for event in events} == {"commit", "identity", "account"}
    assert {commit["operation"] for commit in commits(events)} == {"create", "update", "delete"}


def test_it_makes_one_event_in_five_a_profile(events):
    share = Counter(commit["collection"] for commit in commits(events))["app.bsky.actor.profile"] / len(events)
    assert 0.18 < share < 0.24


def test_it_leaves_record_and_cid_out_of_deletes_alone(events):
    for commit in commits(events):
        assert ("record" in commit) == ("cid" in commit) == (commit["operation"] != "delete")


def test_it_makes_well_formed_ids(events):
    tid = re.compile(r"[2-7a-j][2-7a-z]{12}\Z")
    for event in events:
        assert re.match(r"did:plc:[a-z2-7]{24}\Z|did:web:[a-z2-7]{7}\.orchard\.example\Z", event["did"])
    for commit in commits(events):
        assert tid.match(commit["rev"])
        assert commit["rkey"] == "self" or tid.match(commit["rkey"])
        assert re.match(r"bafyrei[a-h][a-z2-7]{50}[aeimquy4]\Z", commit.get("cid", "bafyrei" + "a" * 52))


def test_it_never_repeats_a_dedup_key(events):
    keys: Counter[tuple] = Counter()
    for event in events:
        match event:
            case {"kind": "commit", "did": did, "commit": commit}:
                keys[did, commit["rev"], commit["collection"], commit["rkey"], commit["operation"]] += 1
            case {"kind": kind, "did": did}:
                keys[kind, did, event[kind]["time"], event[kind].get("handle"), event[kind].get("active"), event[kind].get("status")] += 1
    assert max(keys.values()) == 1


def test_it_deletes_and_edits_only_what_was_there(events):
    there = set()
    for event in events:
        if event["kind"] != "commit":
            continue
        commit = event["commit"]
        record = (event["did"], commit["collection"], commit["rkey"])
        if commit["operation"] == "create":
            there.add(record)
        elif commit["operation"] == "delete":
            assert record in there
            there.remove(record)
        elif record[1] == "app.bsky.actor.profile":
            assert record in there


def test_it_uses_made_up_handles_only(events):
    handles = {event["identity"]["handle"] for event in events if "handle" in event.get("identity", {})}
    assert handles
    assert all(handle.endswith(".example") for handle in handles)


def test_it_writes_awkward_texts(events):
    text = json.dumps([commit["record"] for commit in commits(events) if "record" in commit], ensure_ascii=False)
    for awkward in ("\u200d", "\u0627", "\u05d4", "e\u0301", "\U0001f1fa", "\u2028", "\\\\", '\\"', "<b>"):
        assert awkward in text


def test_it_makes_a_record_of_12_kb_now_and_then(events):
    sizes = [len(json.dumps(commit.get("record"), ensure_ascii=False).encode()) for commit in commits(events)]
    large = [size for size in sizes if size > 12_000]
    assert 10 < len(large) < len(events) / 100
    assert max(large) < 14_000


def test_it_writes_a_file_of_so_many_events(tmp_path):
    path = tmp_path / "events.ndjson"
    demo_events.write(path, 1_234, seed=7, start_us=START_US)
    assert path.read_bytes() == b"".join(line + b"\n" for line in made(1_234, seed=7))
