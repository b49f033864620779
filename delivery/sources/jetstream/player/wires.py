"""The two wires: what an event looks like on v1 (`/subscribe`) and on v2 (`subscribeEvents`), and each made from the other.

v1  {"did":…,"time_us":…,"cursor":…,"kind":"commit","commit":{"rev":…,"operation":…,…}}
v2  {"$type":"message","payload":{"$type":"…#commit","cid":…,…,"seq":…,"time":…}}, payload keys in alphabetical order

Values keep their bytes on the way: only the time, the number and the shape change. A line that is no event of either
wire belongs to both as it is; what exists on v2 alone (#sync, #info, errors) has no v1 line.
"""

import enum
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec import Raw

NAMESPACE = "network.bsky.jetstream.subscribeEvents"

Members = dict[str, Raw]

_COMMIT_ORDER = ("rev", "operation", "collection", "rkey", "record", "cid")
_V1_FRAME = frozenset(("did", "time_us", "cursor", "kind"))
_V2_FRAME = frozenset(("$type", "did", "seq", "time", "witnessedAt"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_decode_members = msgspec.json.Decoder(Members).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_integer = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode

# What it takes for a line not to be an event: all of it ends in the same place.
NOT_AN_EVENT = (msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError, OverflowError)


class NoEvent(enum.Enum):
    """A line that is no event, by who gets it."""

    FOR_BOTH = "garbage: served as it is on both wires"
    FOR_V2 = "an advisory or an error: there is no such thing on v1"


class Event(NamedTuple):
    """A line taken apart as far as the wires differ. `seq` is the number that the line itself carries."""

    wire: int
    kind: str
    time_us: int
    seq: int | None
    members: Members  # of the line on v1, of its payload on v2


def parse(line: bytes) -> Event | NoEvent:
    """The event in this line, whichever wire it is from."""
    try:
        members = _decode_members(line)
        return _parse_v2(members) if "$type" in members else _parse_v1(members)
    except NOT_AN_EVENT:
        return NoEvent.FOR_BOTH


def to_v1(event: Event, time_us: int, cursor: int | None) -> bytes | None:
    """The v1 line, with this time and, unless it is None, this number; None for what v1 does not have."""
    if event.wire == 1:
        return _encode(_restamped_v1(event.members, time_us, cursor))
    if event.kind == "sync":
        return None
    body = {name: value for name, value in event.members.items() if name not in _V2_FRAME}
    if event.kind == "commit":
        ordered = {name: body[name] for name in _COMMIT_ORDER if name in body}
        body = {"commit": raw(ordered | body)}
    number = {} if cursor is None else {"cursor": raw(cursor)}
    return _encode({"did": event.members["did"], "time_us": raw(time_us), **number, "kind": raw(event.kind), **body})


def to_v2(event: Event, time_us: int, seq: int) -> bytes:
    """The v2 frame, with this time and number."""
    stamp = {"seq": raw(seq), "time": raw(rfc3339(time_us))}
    if event.wire == 2:
        if "witnessedAt" in event.members:
            stamp["witnessedAt"] = raw(rfc3339(unix_us(_decode_text(event.members["witnessedAt"])) + time_us - event.time_us))
        return _message(event.members | stamp)
    body = {name: value for name, value in event.members.items() if name not in _V1_FRAME}
    if event.kind == "commit":
        body = _decode_members(body.pop("commit")) | body
    members = body | {"$type": raw(f"{NAMESPACE}#{event.kind}"), "did": event.members["did"]} | stamp
    return _message(dict(sorted(members.items())))


def info_frame(name: str, message: str) -> bytes:
    """The advisory that v2 sends first when a cursor could not be met."""
    return _encode({"$type": "message", "payload": {"$type": f"{NAMESPACE}#info", "message": message, "name": name}})


def error_frame(error: str, message: str) -> bytes:
    """The frame that ends a v2 stream."""
    return _encode({"$type": "error", "error": error, "message": message})


def rfc3339(time_us: int) -> str:
    """The time with all its microseconds. Raises OverflowError outside the years 1 to 9999."""
    return (_EPOCH + timedelta(microseconds=time_us)).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def unix_us(text: str) -> int:
    """The time in Unix µs. Raises ValueError when it is no RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def raw(value: object) -> Raw:
    return Raw(_encode(value))


def _parse_v1(members: Members) -> Event:
    kind, time_us = _decode_text(members["kind"]), _decode_integer(members["time_us"])
    _decode_text(members["did"])
    if kind == "commit":
        _decode_members(members["commit"])
    rfc3339(time_us)  # a time that v2 cannot show makes no event
    return Event(1, kind, time_us, _decode_integer(members["cursor"]) if "cursor" in members else None, members)


def _parse_v2(members: Members) -> Event | NoEvent:
    if _decode_text(members["$type"]) == "error":
        return NoEvent.FOR_V2
    payload = _decode_members(members["payload"])
    namespace, _, kind = _decode_text(payload["$type"]).partition("#")
    if namespace != NAMESPACE or not kind:
        return NoEvent.FOR_BOTH
    if kind == "info":
        return NoEvent.FOR_V2
    _decode_text(payload["did"])
    return Event(2, kind, unix_us(_decode_text(payload["time"])), _decode_integer(payload["seq"]) if "seq" in payload else None, payload)


def _restamped_v1(members: Members, time_us: int, cursor: int | None) -> Members:
    stamped: Members = {}
    for name, value in members.items():
        stamped[name] = value
        if name == "time_us":
            stamped[name] = raw(time_us)
            if cursor is not None:
                stamped["cursor"] = raw(cursor)
        elif name == "cursor" and cursor is not None:
            stamped[name] = raw(cursor)
    return stamped


def _message(payload: Members) -> bytes:
    return _encode({"$type": "message", "payload": payload})
