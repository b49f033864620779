"""Events over HTTP: the JSON that a client posts becomes what the outbox takes. Pure.

    {"type": "order.paid", "data": {…}, "id": "…", "subject": "…", "timestamp": "…"}     ->  Incoming

The body of such an event, which receivers get, is `{"id","type","timestamp","data"}`; `data` stands in it byte for byte
as it came. `id` is the client's own, or else the event's public id.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from delivery.sources import strict_json
from delivery.sources.incoming import Incoming, dedup_key, microseconds

KIND = "api"
# An event larger than this fits into no batch of an endpoint; and few receivers take it.
MAX_EVENT = 256 * 1024
MAX_ID = 200
MAX_SUBJECT = 512
MAX_TYPE = 317
MAX_ITEMS = 1000
# Of names that no event has so many are told, and so many characters of each.
MOST_UNKNOWN = 10
_LONGEST_NAME = 100

_LONGEST_TIME = 100

_ID = re.compile(r"[\x21-\x7e]{1,200}\Z")
# As in subscriptions (`validation.clean_pattern`), without a wildcard.
TYPE_PATTERN = r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}(\.[a-zA-Z0-9][a-zA-Z0-9_-]{0,62})*"
_TYPE = re.compile(TYPE_PATTERN + r"\Z")
FIELDS = ("type", "data", "id", "subject", "timestamp")


class Problem(NamedTuple):
    """What is wrong, and with which field: a JSON pointer (RFC 6901), "" for the event as a whole."""

    pointer: str
    detail: str


class InvalidEvent(ValueError):
    """The event cannot be taken; `problems` say what to change."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.pointer or 'event'}: {problem.detail}" for problem in problems))
        self.problems = tuple(problems)


class _Posted(msgspec.Struct):
    """Only to cut the data out of the text as it is: what the fields hold is checked first."""

    data: msgspec.Raw


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]


def split(text: bytes) -> list[bytes]:
    """The texts of the events in a batch, `{"events": […]}`, that has been read and checked as JSON."""
    return [bytes(each) for each in msgspec.json.decode(text, type=_Batch).events]


def incoming(text: bytes, value: Any, new_id: UUID, public_id: str, now: datetime, origin: str, given_id: str | None = None) -> Incoming:
    """One posted event. `value` is what `strict_json.loads` made of `text`. Raises InvalidEvent.

    `given_id` stands for an id that the text does not have.
    """
    if problems := _problems(text, value):
        raise InvalidEvent(problems)
    id = value.get("id", given_id)
    timestamp = _moment(value["timestamp"]) if "timestamp" in value else None
    data = msgspec.json.decode(text, type=_Posted).data
    head = {"id": id or public_id, "type": value["type"], "timestamp": _rfc3339(timestamp or now)}
    return Incoming(
        dedup_key=dedup_key(["given", id]) if id else dedup_key(["made", public_id]),
        kind=KIND,
        type=value["type"],
        operation="",
        subject=value.get("subject", ""),
        time_us=microseconds(timestamp or now),
        cursor=None,
        body=msgspec.json.encode(head)[:-1] + b',"data":' + bytes(data) + b"}",
        origin=origin,
        id=new_id,
    )


def says_the_same(event: Incoming, body: bytes, subject: str, *, timed: bool) -> bool:
    """Whether the stored event with this body is the one that was posted. Without a `timed` one its own time may be any."""
    ours, theirs = strict_json.loads(event.body), strict_json.loads(body)
    names = ("id", "type", "timestamp", "data") if timed else ("id", "type", "data")
    return event.subject == subject and all(_alike(ours[name], theirs.get(name)) for name in names)


def _alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same. To Python alone, true is 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _problems(text: bytes, value: Any) -> list[Problem]:
    if not isinstance(value, dict):
        return [Problem("", 'An event is a JSON object: {"type": "order.paid", "data": {…}}.')]
    unknown = islice((name for name in value if name not in FIELDS), MOST_UNKNOWN)
    problems = [Problem(_pointer(name[:_LONGEST_NAME]), f"Unknown field: an event has {', '.join(FIELDS)}.") for name in unknown]
    if len(text) > MAX_EVENT:
        problems.append(too_large(text))
    if "type" not in value:
        problems.append(Problem("/type", "Required: a dotted name such as order.paid."))
    elif not (isinstance(value["type"], str) and len(value["type"]) <= MAX_TYPE and _TYPE.match(value["type"])):
        problems.append(Problem("/type", "Write a dotted name of letters, digits, hyphens and underscores, such as order.paid."))
    if "data" not in value:
        problems.append(Problem("/data", "Required: what happened, as any JSON value."))
    if "id" in value and not (isinstance(value["id"], str) and _ID.match(value["id"])):
        problems.append(Problem("/id", f"Write 1 to {MAX_ID} printable ASCII characters without spaces, or leave it out."))
    if "subject" in value and not _is_subject(value["subject"]):
        problems.append(Problem("/subject", f"Write 1 to {MAX_SUBJECT} characters without control characters, or leave it out."))
    if "timestamp" in value and _moment(value["timestamp"]) is None:
        problems.append(Problem("/timestamp", "Write a time with its zone as RFC 3339 has it, such as 2026-11-28T12:00:00Z, or leave it out."))
    return problems


def too_large(text: bytes) -> Problem:
    return Problem("", f"The event has {len(text):,} bytes: at most {MAX_EVENT:,} are taken. Send a reference to what is larger.")


def is_id(text: str) -> bool:
    return bool(_ID.match(text))


def _is_subject(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_SUBJECT and not any(ord(char) < 32 or ord(char) == 127 for char in value)


def _moment(value: Any) -> datetime | None:
    try:
        short = isinstance(value, str) and len(value) <= _LONGEST_TIME
        found = msgspec.convert(value, datetime, strict=True) if short else None
    except msgspec.ValidationError:
        return None
    # Years that no database and no other language reads alike are not taken.
    return found.astimezone(UTC) if found and found.tzinfo and 1970 <= found.year <= 9998 else None


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
