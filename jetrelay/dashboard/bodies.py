"""Bodies for people to read: any bytes, anyone's JSON."""

import json
from typing import Any


def parsed(text: str) -> Any:
    """The JSON value in the text, or None when there is none to be had."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def pretty(text: str) -> str:
    """Indented JSON; a text that is not JSON is returned as it is."""
    value = parsed(text)
    if value is None:
        return printable(text)
    try:
        return printable(json.dumps(value, indent=2, ensure_ascii=False))
    except RecursionError:
        return printable(text)


def printable(text: str) -> str:
    """JSON may escape half of a surrogate pair, which UTF-8 cannot carry: it stays escaped."""
    return text.encode(errors="backslashreplace").decode()
