"""Fresh copies: the same events again, later, and new to a client that drops duplicates.

A copy has its time_us moved on, and with it what the dedup key holds: a commit's `rev`, an identity's or account's
`time`. Every other value keeps its bytes. What has no such field (garbage) is copied as it is.
"""

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Raw

from delivery.sources.jetstream.player import tid

_Object = dict[str, Raw]
_decode_object = msgspec.json.Decoder(_Object).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_integer = msgspec.json.Decoder(int).decode


def fresh_copy(line: bytes, shift_us: int) -> bytes:
    """The line as a new event, shift_us later."""
    try:
        event = _decode_object(line)
        time_us = _decode_integer(event["time_us"]) + shift_us
        event["time_us"] = _raw(time_us)
        if "commit" in event:
            event["commit"] = _with_new_rev(event["commit"], time_us, shift_us)
        for part in ("identity", "account"):
            if part in event:
                event[part] = _with_new_time(event[part], shift_us)
        return msgspec.json.encode(event)
    except (msgspec.MsgspecError, KeyError, ValueError, OverflowError):
        return line


def _with_new_rev(part: Raw, time_us: int, shift_us: int) -> Raw:
    commit = _decode_object(part)
    commit["rev"] = _raw(tid.moved(_decode_text(commit["rev"]), shift_us) or tid.encode(time_us, 0))
    return _raw(commit)


def _with_new_time(part: Raw, shift_us: int) -> Raw:
    body = _decode_object(part)
    time = datetime.fromisoformat(_decode_text(body["time"])) + timedelta(microseconds=shift_us)
    body["time"] = _raw(time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
    return _raw(body)


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
