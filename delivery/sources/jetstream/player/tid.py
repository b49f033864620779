"""TIDs: a time in µs and ten bits of clock id, as 13 characters that sort by time (atproto's "TID" record key)."""

import re

_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
_TID = re.compile(rf"[2-7a-j][{_DIGITS}]{{12}}\Z")
_LIMIT = 1 << 63


def encode(time_us: int, clock: int) -> str:
    """The TID of a time in Unix µs and a clock id below 1,024."""
    pairs = _PAIRS
    low = time_us & 0xFFFFFFFFFF
    return (
        _DIGITS[time_us >> 50 & 7]
        + pairs[time_us >> 40 & 1023]
        + pairs[low >> 30]
        + pairs[low >> 20 & 1023]
        + pairs[low >> 10 & 1023]
        + pairs[low & 1023]
        + pairs[clock]
    )


def moved(tid: str, by_us: int) -> str | None:
    """The TID that lies so much later, with the same clock id; None when the text is no TID or has no room."""
    if not _TID.match(tid):
        return None
    number = 0
    for digit in tid:
        number = number << 5 | _VALUE[digit]
    number += by_us << 10
    return encode(number >> 10, number & 1023) if number < _LIMIT else None
