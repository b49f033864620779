"""The body of a batch, taken apart before it is read: an event is a value in Python's memory for as long as it is looked at, and no longer.

A body of 10 MB can be three million values, which are some 270 MB, and held the interpreter, and with it every other request, for
a third of a second. Cut into events by a parser that makes no values, no piece that is read is larger than an event may be.
"""

import threading
from typing import Any

import msgspec

from delivery.sources import api, strict_json
from delivery.sources.strict_json import InvalidJson
from jetrelay.api.parsers import StrictJsonParser
from jetrelay.api.problems import Problem, invalid

# A body that is no larger, and no batch, is read as any other: its errors then say the most.
_SMALL = 256 * 1024
# Those that are larger are cut one after the other. All of them need the interpreter, so none is slower for it.
_one_at_a_time = threading.Lock()

WORDS = 'Send {"events": […]}, each written as for POST /events.'


class BatchParser(StrictJsonParser):
    """Gives the texts of the events of a batch."""

    def read(self, body: bytes) -> list[bytes]:
        if len(body) > _SMALL:
            with _one_at_a_time:
                return _cut(body)
        try:
            return _cut(body)
        except (InvalidJson, Problem):
            strict_json.loads(body)
            raise


def _cut(body: bytes) -> list[bytes]:
    try:
        texts = api.split(body)
    except msgspec.ValidationError as error:
        raise invalid(("/events", WORDS)) from error
    except RecursionError as error:
        raise InvalidJson(strict_json.TOO_DEEP) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.") from error
    _check_number(len(texts))
    # What is left without its events is looked at strictly: nothing stands twice, and there is nothing else. Of a batch, each event is the next
    # thing that is neither a space nor a comma; of anything else, more is left than there may be.
    at = body.index(b"[") + 1
    rest = [body[:at]]
    for text in texts:
        start = body.find(text, at)
        if start < 0:
            raise invalid(("/events", WORDS))
        rest.append(body[at:start])
        at = start + len(text)
    value = strict_json.loads(rest[0] + b"0".join([*rest[1:], body[at:]]))
    if value != {"events": [0] * len(texts)}:
        raise invalid(("/events", WORDS))
    return texts


def _check_number(number: int) -> None:
    if not 1 <= number <= api.MAX_ITEMS:
        raise invalid(("/events", f"A batch holds 1 to {api.MAX_ITEMS:,} events: this one has {number:,}."))


def value_of(text: bytes, number: int) -> Any:
    """What one of the events says. Raises Problem: a batch that cannot be read is refused whole."""
    try:
        return strict_json.loads(text)
    except InvalidJson as error:
        raise Problem(400, "invalid_json", f"/events/{number}: {error}") from error
