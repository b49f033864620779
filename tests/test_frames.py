"""Frames of the v1 wire: what becomes an event, what is refused, and what makes two copies the same."""

import json
from typing import Any

import pytest

from delivery.sources.jetstream.frames import MAX_FRAME, InvalidFrame, parse
from tests.builders import DID, POST, frame
from tests.whole import SHARED

BOB = "did:plc:" + "b" * 24
MANY = 200_000


def commit(**over: Any) -> dict[str, Any]:
    inner = {"rev": "3lrev", "operation": "create", "collection": POST, "rkey": "3lkey", "record": {"text": "hé"}, "cid": "bafy"}
    return {"did": DID, "time_us": 1_780_000_000_000_000, "kind": "commit", "commit": inner | over.pop("commit", {})} | over


def identity(**over: Any) -> dict[str, Any]:
    inner = {"did": DID, "seq": 7, "time": "2026-05-28T20:26:40.123Z", "handle": "anna.example"}
    return {"did": DID, "time_us": 1_780_000_000_000_001, "kind": "identity", "identity": inner | over.pop("identity", {})} | over


def account(**over: Any) -> dict[str, Any]:
    inner = {"active": False, "did": DID, "seq": 8, "time": "2026-05-28T20:26:40.123Z", "status": "takendown"}
    return {"did": DID, "time_us": 1_780_000_000_000_002, "kind": "account", "account": inner | over.pop("account", {})} | over


def sync(**over: Any) -> dict[str, Any]:
    return {"did": DID, "time_us": 1_780_000_000_000_003, "kind": "sync", "sync": {"rev": "3lrev"} | over.pop("sync", {})} | over


def wire(event: Any) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def key(event: dict[str, Any]) -> bytes:
    return parse(wire(event)).dedup_key


def without(event: dict[str, Any], *path: str) -> dict[str, Any]:
    """The event with the field at the end of the path gone."""
    inner = event
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return event


# --- What becomes an event ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind", "type", "operation"),
    [
        (commit(), "commit", POST, "create"),
        (commit(commit={"operation": "update"}), "commit", POST, "update"),
        (without(without(commit(commit={"operation": "delete"}), "commit", "record"), "commit", "cid"), "commit", POST, "delete"),
        (identity(), "identity", "identity", ""),
        (without(identity(), "identity", "handle"), "identity", "identity", ""),
        (account(), "account", "account", ""),
        (account(account={"status": "a status of next year"}), "account", "account", ""),
        (sync(), "sync", "sync", ""),
        ({"did": DID, "time_us": 5, "kind": "labels", "labels": [1]}, "labels", "labels", ""),
        (commit(commit={"operation": "moved"}), "commit", POST, "moved"),
    ],
)
def test_it_reads_every_kind(event: dict[str, Any], kind: str, type: str, operation: str) -> None:
    found = parse(wire(event))
    assert (found.kind, found.type, found.operation, found.subject) == (kind, type, operation, DID)
    assert (found.time_us, found.cursor) == (event["time_us"], None)


def test_it_reads_the_cursor_of_hosts_that_number_their_events() -> None:
    assert parse(wire(commit(cursor=12_345))).cursor == 12_345


def test_it_keeps_the_body_byte_for_byte() -> None:
    body = b'  { "kind":"commit", "new":[1.50e+3, {"deep":"\\u00e9 \\/ \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x8c\xbe"}],\t' + wire(commit())[1:] + b"\r"
    assert parse(body).body == body


def test_it_accepts_fields_that_it_does_not_know() -> None:
    event = commit(labels=["x"], commit={"prev": None, "blobs": [{"size": 10**30}]})
    assert parse(wire(event)).dedup_key == key(commit())


@pytest.mark.parametrize("size", [12_000, 1_000_000])
def test_it_reads_large_records(size: int) -> None:
    body = wire(commit(commit={"record": {"text": "ü" * (size // 2)}}))
    assert parse(body).body == body


# --- What makes two copies the same ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [commit, identity, account, sync])
def test_it_knows_an_event_from_another_host(make: Any) -> None:
    assert key(make()) == key(make(time_us=1_780_000_077_000_000, cursor=42))


@pytest.mark.parametrize("make", [identity, account])
def test_it_ignores_the_numbers_of_a_host_inside_an_event(make: Any) -> None:
    kind = make()["kind"]
    assert key(make()) == key(make(**{kind: {"seq": 99}}))


@pytest.mark.parametrize(
    "others",
    [
        [
            commit(),
            commit(did=BOB),
            commit(commit={"rev": "3lother"}),
            commit(commit={"collection": "app.bsky.feed.like"}),
            commit(commit={"rkey": "3lother"}),
            commit(commit={"operation": "delete"}),
        ],
        [
            identity(),
            identity(did=BOB),
            identity(identity={"time": "2026-05-28T20:26:41Z"}),
            identity(identity={"handle": "bob.example"}),
            identity(identity={"handle": ""}),
            without(identity(), "identity", "handle"),
        ],
        [
            account(),
            account(did=BOB),
            account(account={"time": "2026-05-28T20:26:41Z"}),
            account(account={"active": True}),
            account(account={"status": "suspended"}),
            without(account(), "account", "status"),
        ],
        [sync(), sync(did=BOB), sync(sync={"rev": "3lother"}), commit(), identity(), account()],
        [{"did": DID, "time_us": 5, "kind": "labels", "n": 1}, {"did": DID, "time_us": 5, "kind": "labels", "n": 2}],
        [commit(did="did:plc:a", commit={"rev": "bc"}), commit(did="did:plc:ab", commit={"rev": "c"})],
    ],
    ids=["commit", "identity", "account", "kinds", "unknown", "borders"],
)
def test_it_tells_events_apart_by_every_part(others: list[dict[str, Any]]) -> None:
    assert len({key(other) for other in others}) == len(others)


def test_it_tells_the_operations_of_one_commit_apart() -> None:
    shared = [commit(commit={"rkey": f"3lkey{number}"}) for number in range(5)]
    assert len({key(one) for one in shared}) == 5


def test_its_keys_are_sixteen_bytes_and_stay_what_they_are() -> None:
    # Stored in databases: another key for the same event would deliver it again after an upgrade.
    assert key(commit()).hex() == "90fee9cdb5fa4e6a4bdc2fd7996168ac"


# --- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"not json",
        b"{",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"[{}]",
        b"{}",
        wire(commit())[:-1],
        wire(commit()) + b"x",
        wire(commit()) + wire(commit()),
        b"\xef\xbb\xbf" + wire(commit()),
        wire(commit()).replace(b'"bafy"', b"NaN"),
        wire(commit()).replace(b'"bafy"', b"01"),
        wire(commit()).replace(b'"bafy"', b'"a\nb"'),
        wire(commit()).replace(b'"bafy"', b'"\\x"'),
        wire(commit()).decode().encode("utf-16"),
        b"\x28\xb5\x2f\xfd\x04\x00",
    ],
)
def test_it_refuses_what_is_no_object_of_json(body: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(body)


@pytest.mark.parametrize(
    "event",
    [
        without(commit(), "did"),
        without(commit(), "time_us"),
        without(commit(), "kind"),
        without(commit(), "commit"),
        without(commit(), "commit", "rev"),
        without(commit(), "commit", "operation"),
        without(commit(), "commit", "collection"),
        without(commit(), "commit", "rkey"),
        without(identity(), "identity"),
        without(account(), "account"),
        without(sync(), "sync"),
        commit() | {"commit": None},
        identity() | {"identity": None},
        {"did": DID, "time_us": 5, "kind": "commit", "identity": {}},
    ],
)
def test_it_refuses_missing_fields(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(event))


@pytest.mark.parametrize(
    "event",
    [
        commit(did=7),
        commit(did=None),
        commit(did=""),
        commit(time_us="1780000000000000"),
        commit(time_us=1.5),
        commit(time_us=True),
        commit(time_us=None),
        commit(kind=1),
        commit(kind=""),
        commit(cursor="12"),
        commit() | {"commit": []},
        commit() | {"commit": "x"},
        commit(commit={"rev": 7}),
        commit(commit={"operation": None}),
        commit(commit={"collection": ["x"]}),
        commit(commit={"collection": ""}),
        commit(commit={"rkey": 1}),
        identity(identity={"time": 5}),
        identity(identity={"handle": 5}),
        account(account={"active": "yes"}),
        account(account={"status": 1}),
    ],
)
def test_it_refuses_wrong_types(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(event))


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"])
@pytest.mark.parametrize("place", [b"hello", b"3lkey", b"did:plc", b"rev", b"app.bsky", b"time_us", b"bafy"])
def test_it_refuses_bytes_that_are_not_utf8_wherever_they_are(place: bytes, bad: bytes) -> None:
    body = wire(commit(commit={"record": {"text": "hello"}}))
    with pytest.raises(InvalidFrame):
        parse(body.replace(place, place + bad, 1))


@pytest.mark.parametrize("bad", ["\\u0000", "\\ud800", "\\udfff", "\\n", "\\u202e", "\\u2028"])
@pytest.mark.parametrize("place", ["did:plc", "app.bsky", "create", "commit"])
def test_it_refuses_what_no_column_should_hold(place: str, bad: str) -> None:
    # The kind is the value, not the name of the object.
    body = wire(commit()).decode().replace(f':"{place}', f':"{place}{bad}', 1)
    with pytest.raises(InvalidFrame):
        parse(body.encode())


def test_it_keeps_what_is_odd_but_legal_inside_a_record() -> None:
    body = wire(commit()).replace(b'"bafy"', b'"\\u0000 \\n \\ud83d\\udc69"')
    assert parse(body).body == body


@pytest.mark.parametrize(
    "event",
    [
        commit(time_us=-(2**63) - 1),
        commit(time_us=2**63),
        commit(time_us=10**40),
        commit(cursor=-1),
        commit(cursor=2**63),
        commit(did="did:plc:" + "x" * 2041),
        commit(commit={"collection": "a." * 159}),
        commit(commit={"operation": "o" * 33}),
        commit(kind="k" * 33),
    ],
)
def test_it_refuses_what_no_column_could_hold(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(event))


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 5000, b"1.0e15"])
def test_it_refuses_numbers_without_bounds_as_times(number: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit()).replace(b"1780000000000000", number))


@pytest.mark.parametrize("nest", [b"[" * MANY + b"]" * MANY, b'{"a":' * MANY + b"1" + b"}" * MANY, b"[" * MANY])
def test_it_refuses_what_is_nested_too_deeply(nest: bytes) -> None:
    with pytest.raises(InvalidFrame):
        parse(wire(commit()).replace(b'"bafy"', nest))


def test_it_refuses_what_is_too_large() -> None:
    spare = MAX_FRAME - len(wire(commit(commit={"record": ""})))
    assert len(parse(wire(commit(commit={"record": "x" * spare}))).body) == MAX_FRAME
    with pytest.raises(InvalidFrame, match="more than 2,097,152 bytes"):
        parse(wire(commit(commit={"record": "x" * (spare + 1)})))


# --- Recorded streams --------------------------------------------------------------------------------------------------


def recorded(name: str) -> list[bytes]:
    path = SHARED / name
    if not path.exists():
        pytest.skip("wants the recorded streams, which are not part of the project")
    return [line for line in path.read_bytes().split(b"\n") if line]


@pytest.mark.parametrize("name", ["v1_live_2026-07-04.ndjson", "v1_golden.ndjson", "v1_jsonbench_10.ndjson", "v1_server_simulated.ndjson"])
def test_it_reads_every_recorded_event(name: str) -> None:
    lines = recorded(name)
    events = [parse(line) for line in lines]
    assert [event.body for event in events] == lines
    assert [event.subject for event in events] == [json.loads(line)["did"] for line in lines]
    assert [event.kind for event in events] == [json.loads(line)["kind"] for line in lines]


def test_it_takes_no_two_recorded_events_for_one() -> None:
    lines = recorded("v1_live_2026-07-04.ndjson") + recorded("v1_golden.ndjson") + recorded("v1_jsonbench_10.ndjson")
    assert len({parse(line).dedup_key for line in lines}) == len(set(lines))


def test_it_refuses_every_event_of_the_older_wire() -> None:
    for line in recorded("malformed_old_wire.ndjson"):
        with pytest.raises(InvalidFrame):
            parse(line)


def test_it_reads_what_the_tests_build() -> None:
    assert len({parse(frame(number)).dedup_key for number in range(100)}) == 100
