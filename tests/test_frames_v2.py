"""Frames of the v2 wire: the line that the same server sends on v1, or a reason why there is none."""

import contextlib
import json
from typing import Any

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream import frames
from delivery.sources.jetstream.frames import MAX_FRAME, InvalidFrame
from delivery.sources.jetstream.frames_v2 import PREFIX, HostError, Info, parse
from tests.builders import DID, POST
from tests.test_frames import recorded

TIME = "2026-05-28T20:26:40.000042Z"
TIME_US = 1_780_000_000_000_042
MANY = 200_000


def payload(kind: str, **over: Any) -> dict[str, Any]:
    return {"$type": PREFIX + kind, "did": DID, "seq": 77, "time": TIME} | over


def commit(**over: Any) -> dict[str, Any]:
    inner = {"rev": "3lrev", "operation": "create", "collection": POST, "rkey": "3lkey", "record": {"text": "hé"}, "cid": "bafy"}
    return payload("commit", **inner | over)


def identity(**over: Any) -> dict[str, Any]:
    return payload("identity", identity={"did": DID, "seq": 7, "time": "2026-05-28T20:26:40.123Z", "handle": "anna.example"} | over)


def account(**over: Any) -> dict[str, Any]:
    return payload("account", account={"active": False, "did": DID, "seq": 8, "time": "2026-05-28T20:26:40.123Z", "status": "takendown"} | over)


def sync(**over: Any) -> dict[str, Any]:
    return payload("sync", sync={"rev": "3lrev"} | over)


def wire(payload: Any, type: str = "message") -> bytes:
    return json.dumps({"$type": type, "payload": payload}, separators=(",", ":"), ensure_ascii=False).encode()


def event(frame: bytes) -> Incoming:
    found = parse(frame, "wss://host.example")
    assert isinstance(found, Incoming)
    return found


def without(payload: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in names}


# --- What becomes an event ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "kind", "type", "operation"),
    [
        (commit(), "commit", POST, "create"),
        (commit(operation="update"), "commit", POST, "update"),
        (without(commit(operation="delete"), "record", "cid"), "commit", POST, "delete"),
        (commit(operation="moved"), "commit", POST, "moved"),
        (identity(), "identity", "identity", ""),
        (account(), "account", "account", ""),
        (account(status="a status of next year"), "account", "account", ""),
        (sync(), "sync", "sync", ""),
        (payload("labels", labels=[1]), "labels", "labels", ""),
        (payload("bare"), "bare", "bare", ""),
    ],
)
def test_it_reads_every_kind(payload: dict[str, Any], kind: str, type: str, operation: str) -> None:
    found = event(wire(payload))
    assert (found.kind, found.type, found.operation, found.subject) == (kind, type, operation, DID)
    assert (found.time_us, found.cursor, found.origin) == (TIME_US, 77, "wss://host.example")
    assert json.loads(found.body)["kind"] == kind


@pytest.mark.parametrize("name", ["OutdatedCursor", "FutureCursor", "SomethingNew", ""])
def test_it_reads_what_the_host_says_about_the_stream(name: str) -> None:
    assert parse(wire({"$type": PREFIX + "info", "name": name, "message": "from here"})) == Info(name, "from here")


def test_it_reads_an_info_without_a_message() -> None:
    assert parse(wire({"$type": PREFIX + "info", "name": "OutdatedCursor"})) == Info("OutdatedCursor", "")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b'{"$type":"error","error":"ConsumerTooSlow","message":"read faster"}', "ConsumerTooSlow: read faster"),
        (b'{"$type":"error","error":"InternalError"}', "InternalError"),
        (b'{"$type":"error","error":"InternalError","message":"","new":[1]}', "InternalError"),
    ],
)
def test_it_raises_the_hosts_last_word(frame: bytes, words: str) -> None:
    with pytest.raises(HostError, match=f"^{words}$"):
        parse(frame)


def test_an_error_without_a_name_still_says_something() -> None:
    with pytest.raises(HostError) as caught:
        parse(b'{"$type":"error"}')
    assert str(caught.value)


def test_it_accepts_fields_that_it_does_not_know() -> None:
    told = event(b'{"v":2,"$type":"message","payload":' + json.dumps(commit(prev=None, blobs=[{"size": 10**30}])).encode() + b"}")
    assert told.dedup_key == event(wire(commit())).dedup_key


def test_it_keeps_everything_that_is_special_about_an_unknown_kind() -> None:
    found = event(b'{"$type":"message","payload":{"$type":"%blabels","did":"%b","labels":[1.50e+3],"seq":77,"src":"x","time":"%b"}}' % (
        PREFIX.encode(), DID.encode(), TIME.encode(),
    ))  # fmt: skip
    assert found.body == b'{"did":"%b","time_us":%d,"cursor":77,"kind":"labels","labels":{"labels":[1.50e+3],"src":"x"}}' % (DID.encode(), TIME_US)


def test_it_tells_two_events_of_an_unknown_kind_apart_by_what_is_special_about_them() -> None:
    first, again, other = (event(wire(payload("labels", n=n, seq=seq, time=TIME.replace("42Z", f"{seq}Z")))) for n, seq in ((1, 50), (1, 60), (2, 50)))
    assert first.dedup_key == again.dedup_key
    assert first.dedup_key != other.dedup_key


@pytest.mark.parametrize(
    ("time", "time_us"),
    [
        ("2026-05-28T20:26:40Z", 1_780_000_000_000_000),
        ("2026-05-28T20:26:40.5Z", 1_780_000_000_500_000),
        ("2026-05-28T22:26:40.000042+02:00", TIME_US),
        ("1999-12-31T23:59:59.999999Z", 946_684_799_999_999),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_it_reads_times_to_the_microsecond(time: str, time_us: int) -> None:
    assert event(wire(commit(time=time))).time_us == time_us


# --- The line that v1 would have had -----------------------------------------------------------------------------------

RECORDS = [
    b'{"text":"post"}',
    b"{}",
    b"null",
    b'{"n":[1.0e5,-0.0,1E+2,123456789012345678901234567890,0.10]}',
    b'{"text":"\\u00e9 \\/ \\ud83d\\udc69 \\u0000 \\" \\\\ \\n \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x8c\xbe \xe2\x80\xa8 \xd9\xa0"}',
    b'{ "spaced" : [ 1 ,\t2 ] }',
    b'{"b":1,"a":2,"b":3,"$type":"x","record":{"cid":"inner","seq":1,"time":"x"}}',
    b'{"deep":' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"html":"<a href=\\"x\\">&amp;</a>"}',
]


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("operation", [b"create", b"update"])
def test_it_composes_the_line_of_a_commit_byte_for_byte(record: bytes, operation: bytes) -> None:
    names = {b"did": DID.encode(), b"time": TIME.encode(), b"op": operation, b"record": record, b"type": PREFIX.encode()}
    v1 = (
        b'{"did":"%(did)b","time_us":1780000000000042,"cursor":77,"kind":"commit","commit":{"rev":"3lrev","operation":"%(op)b",'
        b'"collection":"app.bsky.feed.post","rkey":"3lkey","record":%(record)b,"cid":"bafy"}}' % names
    )
    v2 = (
        b'{"$type":"message","payload":{"$type":"%(type)bcommit","cid":"bafy","collection":"app.bsky.feed.post","did":"%(did)b",'
        b'"operation":"%(op)b","record":%(record)b,"rev":"3lrev","rkey":"3lkey","seq":77,"time":"%(time)b"}}' % names
    )
    assert event(v2).body == v1
    assert event(v2) == frames.parse(v1, "wss://host.example")


V1_HEAD = b'{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","time_us":1780000000000042,"cursor":77,"kind":'
V2_HEAD = b'{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#'
V2_TAIL = b'"seq":77,"time":"2026-05-28T20:26:40.000042Z"}}'
INNER_IDENTITY = b'{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","handle":"b\\u00fccher.example","seq":9,"time":"2026-05-28T20:26:39Z"}'
INNER_ACCOUNT = b'{"active":false,"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","seq":9,"status":"takendown","time":"2026-05-28T20:26:39Z"}'


@pytest.mark.parametrize(
    ("v1", "v2"),
    [
        (
            b'"commit","commit":{"rev":"3lrev","operation":"delete","collection":"app.bsky.feed.post","rkey":"3lkey"}}',
            b'commit","collection":"app.bsky.feed.post","did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","operation":"delete","rev":"3lrev","rkey":"3lkey",',
        ),
        (b'"identity","identity":%b}' % INNER_IDENTITY, b'identity","did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","identity":%b,' % INNER_IDENTITY),
        (b'"account","account":%b}' % INNER_ACCOUNT, b'account","account":%b,"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa",' % INNER_ACCOUNT),
        (b'"sync","sync":{"rev":"3lrev","blocks":"AA=="}}', b'sync","did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","sync":{"rev":"3lrev","blocks":"AA=="},'),
    ],
    ids=["delete", "identity", "account", "sync"],
)
def test_it_composes_the_line_of_every_kind_byte_for_byte(v1: bytes, v2: bytes) -> None:
    found = event(V2_HEAD + v2 + V2_TAIL)
    assert found.body == V1_HEAD + v1
    assert found == frames.parse(V1_HEAD + v1, "wss://host.example")


@pytest.mark.parametrize("make", [commit, identity, account, sync])
def test_it_knows_an_event_by_whichever_wire_it_came(make: Any) -> None:
    found = event(wire(make()))
    on_v1 = json.loads(found.body)
    del on_v1["cursor"]
    other = frames.parse(json.dumps(on_v1 | {"time_us": 1_780_000_077_000_000}, ensure_ascii=False).encode())
    assert other.dedup_key == found.dedup_key == event(wire(make() | {"seq": 1, "time": "2026-05-28T21:00:00Z"})).dedup_key


def test_it_reads_large_records() -> None:
    found = event(wire(commit(record={"text": "ü" * 500_000})))
    assert frames.parse(found.body).dedup_key == found.dedup_key


# --- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        b"", b" ", b"not json", b"{", b"null", b"7", b"[]", b"{}", b"\xff", b"\x28\xb5\x2f\xfd\x04\x00",
        b'{"$type":"message"}', b'{"$type":"message","payload":null}', b'{"$type":"message","payload":[]}', b'{"$type":"message","payload":{}}',
        b'{"$type":7}', b'{"payload":{}}', b'{"$type":"error","error":7}', b'{"$type":"error","error":"x","message":[]}',
        wire(commit(), "massage"), wire(commit(), ""), wire(commit())[:-1], wire(commit()) + b"x", wire(commit()) * 2, b"\xef\xbb\xbf" + wire(commit()),
        wire(commit()).replace(b'"bafy"', b"NaN"), wire(commit()).decode().encode("utf-16"),
        b'{"did":"did:plc:a","time_us":5,"kind":"commit","commit":{"rev":"a","operation":"create","collection":"a.b.c","rkey":"x"}}',
    ],
)  # fmt: skip
def test_it_refuses_what_is_no_frame(frame: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(frame)


@pytest.mark.parametrize("make", [commit, identity, account, sync])
@pytest.mark.parametrize("name", ["$type", "did", "seq", "time"])
def test_it_refuses_an_event_of_any_kind_without(name: str, make: Any) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(without(make(), name)))


@pytest.mark.parametrize(
    "payload",
    [
        without(commit(), "rev"), without(commit(), "operation"), without(commit(), "collection"), without(commit(), "rkey"),
        without(identity(), "identity"), without(account(), "account"), without(sync(), "sync"),
        commit(rev=""), commit(operation=""), commit(collection=""), commit(rkey=""), commit(did=""),
        commit(rev=7), commit(rkey=None), commit(did=None), commit(collection=["x"]),
        identity(time=5), identity(handle=5), account(active="yes"), account(status=1), sync(rev=5),
        identity() | {"identity": None}, account() | {"account": []}, sync() | {"sync": "x"},
        {"$type": PREFIX + "info", "name": 5}, {"$type": PREFIX + "info", "name": "x", "message": {}},
    ],
)  # fmt: skip
def test_it_refuses_missing_and_wrong_fields(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(payload))


@pytest.mark.parametrize("type", ["", "commit", "#commit", "com.example.other#commit", PREFIX, PREFIX[:-1], PREFIX + "k" * 33, PREFIX + "a\u0000b"])
def test_it_refuses_the_wrong_lexicon(type: str) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit() | {"$type": type}))


@pytest.mark.parametrize(
    "time",
    ["2026-05-28T20:26:40.000042", "2026-05-28", "20:26:40Z", "yesterday", "", "2026-02-30T00:00:00Z",
     "10000-01-01T00:00:00Z", 5, None, 1.5],
)  # fmt: skip
def test_it_refuses_what_is_no_time_with_a_zone(time: object) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit(time=time)))


@pytest.mark.parametrize("seq", [-1, 2**63, 10**40, 1.5, "77", True, None])
def test_it_refuses_what_is_no_number_of_an_event(seq: object) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit(seq=seq)))


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"])
@pytest.mark.parametrize("place", ["hé".encode(), b"3lkey", b"did:plc", b"bafy", b"payload", b"record"])
def test_it_refuses_bytes_that_are_not_utf8_wherever_they_are(place: bytes, bad: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit()).replace(place, place + bad, 1))


@pytest.mark.parametrize("bad", ["\\u0000", "\\ud800", "\\n", "\\u202e"])
@pytest.mark.parametrize("place", ["did:plc", "app.bsky", "create"])
def test_it_refuses_what_no_column_should_hold(place: str, bad: str) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit()).decode().replace(f':"{place}', f':"{place}{bad}', 1).encode())


@pytest.mark.parametrize(
    "payload", [commit(did="did:plc:" + "x" * 2041), commit(collection="a." * 159), commit(operation="o" * 33)], ids=["did", "collection", "operation"]
)
def test_it_refuses_what_no_column_could_hold(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(payload))


@pytest.mark.parametrize("nest", [b"[" * MANY + b"]" * MANY, b'{"a":' * MANY + b"1" + b"}" * MANY, b"[" * MANY])
@pytest.mark.parametrize("make", [commit, lambda: payload("labels", cid="bafy")])
def test_it_refuses_what_is_nested_too_deeply(make: Any, nest: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(make()).replace(b'"bafy"', nest))


def test_it_refuses_what_is_too_large() -> None:
    with pytest.raises(InvalidFrame, match="more than 2,097,152 bytes"):
        parse(wire(commit(record="x" * MAX_FRAME)))


# --- Recorded streams --------------------------------------------------------------------------------------------------


def test_it_composes_every_recorded_line_as_the_server_sends_it_on_v1() -> None:
    v1, v2 = recorded("v1_server_simulated.ndjson"), recorded("v2_server_simulated.ndjson")
    assert [event(line).body for line in v2] == v1
    assert [event(line) for line in v2] == [frames.parse(line, "wss://host.example") for line in v1]


@pytest.mark.parametrize("name", ["v2_frames_spliced.ndjson", "malformed_old_wire.ndjson", "v1_golden.ndjson"])
def test_garbled_lines_are_events_or_refused(name: str) -> None:
    for line in recorded(name):
        with contextlib.suppress(InvalidFrame):
            found = event(line)
            assert frames.parse(found.body).dedup_key == found.dedup_key


def test_every_recorded_line_cut_short_is_refused() -> None:
    for line in recorded("v2_server_simulated.ndjson")[:50]:
        for end in range(0, len(line), 7):
            with pytest.raises(InvalidFrame):
                parse(line[:end])
