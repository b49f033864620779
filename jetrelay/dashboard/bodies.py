"""Bodies for people to read: any bytes, anyone's JSON."""

import json
from typing import Any


def parsed(text: str) -> Any:
    """The JSON value in the text, or None when there is none to be had."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# Characters of a body that a page shows. Whoever needs more downloads it.
MOST_SHOWN = 100_000
# Indenting makes a body that nests deeply hundreds of times longer: past this it is shown as it is.
_MOST_INDENTED = 3 * MOST_SHOWN


def pretty(text: str) -> str:
    """Indented JSON; a text that is not JSON, or too long or nested too deeply to be indented, is returned as `shown`."""
    value = parsed(text) if len(text) <= MOST_SHOWN else None
    if value is None:
        return shown(text)
    parts, length = [], 0
    try:
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
            parts.append(part)
            length += len(part)
            if length > _MOST_INDENTED:
                return shown(text)
    except RecursionError:
        return shown(text)
    return printable("".join(parts))


def shown(text: str) -> str:
    """The text, or as much of it as a page can show."""
    return printable(text) if not is_cut(text) else printable(f"{text[:MOST_SHOWN]}\n… cut here, after {MOST_SHOWN:,} of {len(text):,} characters")


def is_cut(text: str) -> bool:
    return len(text) > MOST_SHOWN


def printable(text: str) -> str:
    """JSON may escape half of a surrogate pair, which UTF-8 cannot carry: it stays escaped."""
    return text.encode(errors="backslashreplace").decode()
