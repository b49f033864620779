"""JSON from strangers: what RFC 8259 leaves to chance is refused, and every error says where and what to change. Pure.

Two parsers that read one text differently are a hole: names that stand twice in one object, NaN, numbers beyond a double,
halves of surrogate pairs and nesting that overruns somebody's stack are errors here, before anything is stored or passed on (RFC 8259, 4, 6, 8.2, 9).
"""

import json
import math
import re
from typing import Any

MAX_DEPTH = 64
# An escape that could be half of a surrogate pair.
_SURROGATE = re.compile(rb"\\u[dD][89abcdefABCDEF]")


class InvalidJson(ValueError):
    """The text is no JSON that is taken here; the message says why, for whoever sent it."""


def loads(text: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises InvalidJson."""
    if not text.strip():
        raise InvalidJson("The body is empty: send a JSON object.")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except UnicodeDecodeError as error:
        raise InvalidJson(f"The body is not UTF-8: byte {error.start} cannot be read.") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    except RecursionError as error:
        raise InvalidJson(TOO_DEEP) from error
    except InvalidJson:
        raise
    except ValueError as error:
        # A whole number with more digits than Python reads.
        raise InvalidJson("The body holds a number with too many digits: write it as a string.") from error
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(text):
        raise InvalidJson(TOO_DEEP)
    if _SURROGATE.search(text):
        _check_surrogates(value)
    return value


TOO_DEEP = f"The body is nested deeper than {MAX_DEPTH} levels: make it flatter."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # One look at each name: an object may have hundreds of thousands of them.
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidJson(f"The name {_shown(name)} stands twice in one object: write each name once.")
            seen.add(name)
    return found


def _constant(name: str) -> Any:
    raise InvalidJson(f"{name} is not JSON: write a number, null, or a string.")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidJson(f"The number {text[:20]} is too large: write it as a string.")
    return number


# Objects nest as lists do; all other bytes go.
_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _is_deep(text: bytes) -> bool:
    """By the brackets of a valid text that stand outside of its strings, the innermost ones first: millions of values need not be visited."""
    strings_closed = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    left = b"".join(strings_closed[::2]).translate(_AS_LISTS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left)


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InvalidJson(f"The body holds {half} without its other half: a surrogate comes in pairs, and such a string cannot be stored as UTF-8.") from error


def _shown(name: str) -> str:
    return ascii(name[:60])
