"""What a client posts becomes what the outbox takes, its data byte for byte; or words that say what to change."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delivery.sources import strict_json
from delivery.sources.api import MAX_EVENT, MAX_ID, MAX_SUBJECT, MAX_TYPE, InvalidEvent, incoming, is_id, says_the_same, split
from delivery.sources.incoming import Incoming, dedup_key
from tests.builders import some_id

NOW = datetime(2026, 11, 28, 12, 0, 0, 250_000, tzinfo=UTC)
PUBLIC_ID = "evt_00000000000000000000000000000007"


def read(text: str | bytes, given: str | None = None) -> Incoming:
    raw = text.encode() if isinstance(text, str) else text
    return incoming(raw, strict_json.loads(raw), some_id(7), PUBLIC_ID, NOW, "key_1", given)


def event(**over: Any) -> Incoming:
    return read(json.dumps({"type": "order.paid", "data": {}} | over))


def problems(value: Any) -> dict[str, str]:
    with pytest.raises(InvalidEvent) as caught:
        read(json.dumps(value))
    return dict(caught.value.problems)


def test_it_makes_an_event_of_the_least_that_is_asked_for() -> None:
    found = read('{"type": "order.paid", "data": null}')
    assert (found.kind, found.type, found.operation, found.subject, found.cursor, found.origin, found.id) == (
        *("api", "order.paid", "", "", None, "key_1"),
        some_id(7),
    )
    assert found.time_us == 1_795_867_200_250_000
    assert found.body == b'{"id":"%b","type":"order.paid","timestamp":"2026-11-28T12:00:00.250000Z","data":null}' % PUBLIC_ID.encode()


@pytest.mark.parametrize(
    "data",
    [
        '{ "b" : 1,\n\t"a":[1.0, 1.00, 1e2, -0 ] }',
        "12345678901234567890.12345678901234567890",
        '"\\u00e9é\\/"',
        '{"data": {"data": 1}, "type": "x"}',
        "[]",
        "false",
    ],
)
def test_it_leaves_the_data_as_it_came(data: str) -> None:
    found = read(f' {{"subject": "s", "data" : {data} , "type":"a"}} ')
    assert found.body.endswith(f',"data":{data}}}'.encode())
    assert json.loads(found.body)["data"] == json.loads(data)


def test_it_takes_what_the_client_says_of_the_event() -> None:
    found = event(id="o-1", subject="order-1", timestamp="2026-01-02T03:04:05.678+02:00")
    assert (found.subject, found.time_us, found.dedup_key) == ("order-1", 1_767_315_845_678_000, dedup_key(["given", "o-1"]))
    assert json.loads(found.body) == {"id": "o-1", "type": "order.paid", "timestamp": "2026-01-02T01:04:05.678000Z", "data": {}}


def test_it_takes_an_id_from_beside_the_body() -> None:
    given = read('{"type": "a", "data": 1}', "o-1")
    assert (given.dedup_key, json.loads(given.body)["id"]) == (dedup_key(["given", "o-1"]), "o-1")
    assert read('{"type": "a", "data": 1, "id": "o-2"}', "o-2").dedup_key == dedup_key(["given", "o-2"])


def test_a_made_id_is_never_a_given_one() -> None:
    assert event(id=PUBLIC_ID).dedup_key != event().dedup_key


@pytest.mark.parametrize("type", ["a", "order.paid", "A-b_c.D9", "9", "x" * 63, ".".join(["a" * 63] * 4), "a" * 63 + "." + "b" * 63])
def test_it_takes_types_that_subscriptions_can_name(type: str) -> None:
    assert event(type=type).type == type


@pytest.mark.parametrize(
    "type",
    [*("", " ", "a b", ".a", "a.", "a..b", "*", "order.*", "-a", "_a", "a.-b", "é", "a\n", "a\u0000", "x" * 64, ".".join(["a" * 63] * 5)), 1, None, ["a"], {}],
)
def test_it_refuses_types_that_none_can_name(type: Any) -> None:
    assert list(problems({"type": type, "data": 1})) == ["/type"]
    assert len(str(type)) < 64 or len(str(type)) > MAX_TYPE or "." not in str(type)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("id", bad) for bad in ("", "a b", "a\n", "é", "x" * (MAX_ID + 1), 1, None, [])],
        *[("subject", bad) for bad in ("", "x" * (MAX_SUBJECT + 1), "a\nb", "a\u0000", "\u007f", 1, None, {})],
        *[("timestamp", bad) for bad in ("", "now", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", 1_795_000_000, None)],
        *[("timestamp", bad) for bad in ("1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "2026-01-01T00:00:00+99:00", "2026-02-30T00:00:00Z")],
    ],
)
def test_it_refuses_fields_that_cannot_be_kept(field: str, value: Any) -> None:
    assert list(problems({"type": "a", "data": 1, field: value})) == [f"/{field}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "x" * MAX_ID), ("id", "!~"), ("subject", "x" * MAX_SUBJECT), ("subject", "Zoë 😀 / ?"), ("timestamp", "1970-01-01T00:00:00Z")],
)
def test_it_takes_fields_at_their_bounds(field: str, value: str) -> None:
    event(**{field: value})


def test_it_says_all_that_is_wrong_at_once_and_where() -> None:
    found = problems({"typ": 1, "a/b~c": 2, "id": "", "subject": 3})
    assert list(found) == ["/typ", "/a~1b~0c", "/type", "/data", "/id", "/subject"]
    assert "type, data, id, subject, timestamp" in found["/typ"]


@pytest.mark.parametrize("value", [[], "x", 1, None, True])
def test_it_takes_objects_alone(value: Any) -> None:
    assert "JSON object" in problems(value)[""]


def test_it_bounds_an_event() -> None:
    head = '{"type":"a","data":"'
    whole = head + "x" * (MAX_EVENT - len(head) - 2) + '"}'
    assert read(whole).body.endswith(b'x"}')
    with pytest.raises(InvalidEvent, match="262,145 bytes"):
        read(whole + " ")


def test_it_cuts_a_batch_into_texts_as_they_are() -> None:
    assert split(b'{"events": [ {"a": 1.0} ,2, "x" ]}') == [b'{"a": 1.0}', b"2", b'"x"']


def test_it_knows_ids() -> None:
    assert [is_id(text) for text in ("a", "", "a b", "x" * 200, "x" * 201, "é", "a\n")] == [True, False, False, True, False, False, False]


# --- Whether two events are the same -------------------------------------------------------------------------------


def same(first: Incoming, second: Incoming, *, timed: bool = False) -> bool:
    return says_the_same(second, first.body, first.subject, timed=timed)


def test_an_event_that_is_sent_again_is_the_same() -> None:
    assert same(read('{"type": "a", "data": {"x": 1, "y": [true]}, "id": "o-1"}'), read('{"id": "o-1", "data": {"y": [true], "x": 1}, "type": "a"}'))


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"x": 2}},
        {"data": {"x": True}},
        {"data": {"x": "1"}},
        {"data": {"x": 1, "y": None}},
        {"data": [{"x": 1}]},
        {"type": "b"},
        {"subject": "s"},
    ],
)
def test_an_event_that_says_something_else_is_another(other: dict[str, Any]) -> None:
    first = {"id": "o-1", "data": {"x": 1}}
    assert not same(event(**first), event(**first | other))


@pytest.mark.parametrize(("one", "other"), [("0", "false"), ("[1]", "[true]"), ('{"a": {"b": 0}}', '{"a": {"b": false}}'), ("1e0", "true")])
def test_true_is_not_one(one: str, other: str) -> None:
    assert not same(read(f'{{"type": "a", "id": "o", "data": {one}}}'), read(f'{{"type": "a", "id": "o", "data": {other}}}'))


def test_times_count_where_the_client_said_when() -> None:
    first, later = (event(id="o-1", timestamp=(NOW + timedelta(seconds=number)).isoformat()) for number in range(2))
    assert same(first, later)
    assert not same(first, later, timed=True)
    assert same(first, event(id="o-1", timestamp="2026-11-28T13:00:00.25+01:00"), timed=True)
