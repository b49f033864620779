"""Fresh copies: the same events again, later, and new to a client that drops duplicates.

A copy has its time moved on, the number it carries (`cursor` on v1, `seq` on v2), and what the dedup key holds: a
commit's or sync's `rev`, an identity's or account's `time`. Every other value keeps its bytes. What has no such field
(garbage) is copied as it is.
"""

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Raw

from delivery.sources.jetstream.player import tid
from delivery.sources.jetstream.player.wires import NOT_AN_EVENT, Members, raw, rfc3339, unix_us

_decode_members = msgspec.json.Decoder(Members).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_integer = msgspec.json.Decoder(int).decode


def fresh_copy(line: bytes, shift_us: int, shift_seq: int = 0) -> bytes:
    """The line as a new event, shift_us later and numbered shift_seq higher if it carries a number."""
    try:
        event = _decode_members(line)
        if "payload" in event and "$type" in event:
            event["payload"] = raw(_fresh_payload(_decode_members(event["payload"]), shift_us, shift_seq))
        else:
            _freshen_v1(event, shift_us, shift_seq)
        return msgspec.json.encode(event)
    except NOT_AN_EVENT:
        return line


def _freshen_v1(event: Members, shift_us: int, shift_seq: int) -> None:
    time_us = _decode_integer(event["time_us"]) + shift_us
    event["time_us"] = raw(time_us)
    if "cursor" in event:
        event["cursor"] = raw(_decode_integer(event["cursor"]) + shift_seq)
    if "commit" in event:
        event["commit"] = _with_new_rev(event["commit"], time_us, shift_us)
    _renew_times(event, shift_us)


def _fresh_payload(payload: Members, shift_us: int, shift_seq: int) -> Members:
    time_us = unix_us(_decode_text(payload["time"])) + shift_us
    payload["time"] = raw(rfc3339(time_us))
    if "witnessedAt" in payload:
        payload["witnessedAt"] = raw(rfc3339(unix_us(_decode_text(payload["witnessedAt"])) + shift_us))
    if "seq" in payload:
        payload["seq"] = raw(_decode_integer(payload["seq"]) + shift_seq)
    if "rev" in payload:
        payload["rev"] = _new_rev(payload["rev"], time_us, shift_us)
    if "sync" in payload:
        payload["sync"] = _with_new_rev(payload["sync"], time_us, shift_us)
    _renew_times(payload, shift_us)
    return payload


def _renew_times(event: Members, shift_us: int) -> None:
    for part in ("identity", "account"):
        if part in event:
            event[part] = _with_new_time(event[part], shift_us)


def _with_new_rev(part: Raw, time_us: int, shift_us: int) -> Raw:
    commit = _decode_members(part)
    commit["rev"] = _new_rev(commit["rev"], time_us, shift_us)
    return raw(commit)


def _new_rev(rev: Raw, time_us: int, shift_us: int) -> Raw:
    return raw(tid.moved(_decode_text(rev), shift_us) or tid.encode(time_us, 0))


def _with_new_time(part: Raw, shift_us: int) -> Raw:
    body = _decode_members(part)
    time = datetime.fromisoformat(_decode_text(body["time"])) + timedelta(microseconds=shift_us)
    body["time"] = raw(time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
    return raw(body)
