"""Texts and lists that cost much to look at for whoever looks too long, and what looking costs."""

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import thread_time
from typing import Any

# (what it begins with, what is repeated, what ends it)
_PARTS = {
    "letters": ("", "a", ""),
    "slashes behind a scheme": ("http:", "//", ""),
    "a host of labels": ("http://", "a.", "!"),
    "users": ("http://", "a@", ""),
    "a host in brackets": ("http://[", "::", ""),
    "a query": ("http://example.com/?", "%", " "),
    "backslashes": ('name="password"\n', "\\", ""),
    "quotes": ("", "\"'", ""),
    "spaces": ("a", " ", "a"),
    "line ends": ("a", "\n", "a"),
    "headers without values": ("", "x: ***\n", ""),
    "labels": ("", "a.", "!"),
    "a DID": ("did:plc:", "a:", "!"),
    "digits": ("", "9", ""),
    "a time": ("2026-01-01T00:00:00.", "0", "x"),
    "an id": ("evt_", "-", "0"),
    "a secret": ("whsec_", "QUJD", "="),
    "a token": ("jr_", "token=", "\\"),
    "brackets": ("", '{"a":[', ""),
    "commas": ("", ",", "x"),
    "halves of pairs": ("", "\U0001f600", ""),
}


def _text(start: str, unit: str, end: str) -> Callable[[int], str]:
    return lambda size: start + unit * (size // len(unit)) + end


def _marks(size: int) -> str:
    """Combining marks that are in the wrong order throughout: to put them right takes the square of their number."""
    return "http://a" + "\u0345" * (size // 4) + "\u0334" * (size // 4)


# By name: a text of about so many bytes.
TEXTS: dict[str, Callable[[int], str]] = {name: _text(*parts) for name, parts in _PARTS.items()} | {"marks": _marks}


def _joined(around: str, item: Callable[[int], str], length: int) -> Callable[[int], str]:
    return lambda size: around[0] + ",".join(item(number) for number in range(size // length)) + around[1]


# The same for JSON that is no text.
VALUES: dict[str, Callable[[int], str]] = {
    "zeros": _joined("[]", lambda _: "0", 2),
    "lists": _joined("[]", lambda _: "[]", 3),
    "objects": _joined("[]", lambda _: "{}", 3),
    "words": _joined("[]", lambda number: f'"a{number}"', 9),
    "DIDs": _joined("[]", lambda number: f'"did:plc:{number}"', 16),
    "names": _joined("{}", lambda number: f'"n{number}":"v"', 12),
    "names of which the last stands twice": lambda size: VALUES["names"](size)[:-1] + f',"n{size // 12 - 1}":0}}',
    "depth": lambda size: "[" * size,
    "depth of objects": lambda size: '{"a":' * (size // 5),
    "one number": lambda size: "9" * size,
    "many long numbers": _joined("[]", lambda _: "9" * 4300, 4301),
    "a long fraction": lambda size: "0." + "7" * size,
    "a long exponent": lambda size: "1e" + "9" * size,
    "half of a pair behind many whole ones": lambda size: '["' + "\\ud83d\\ude00" * (size // 12) + '","\\ud800"]',
}


def as_json(size: int) -> dict[str, str]:
    """All of them as JSON, by name."""
    return {name: json.dumps(make(size)) for name, make in TEXTS.items()} | {name: make(size) for name, make in VALUES.items()}


@dataclass(frozen=True)
class Cost:
    """`steps`: calls of functions, Python's and C's. `seconds`: of this thread's processor, which sees what one call does."""

    steps: int
    seconds: float
    answer: Any


def cost(work: Callable[[], Any]) -> Cost:
    steps = 0

    def count(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    before = sys.getprofile()
    # Python would look through all objects that there are whenever many were made: as many as all tests before have left.
    collects = gc.isenabled()
    gc.disable()
    began = thread_time()
    sys.setprofile(count)
    try:
        answer = work()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return Cost(steps, thread_time() - began, answer)


# Below this, costs are not compared: noise. What grows with the square is far above it at the sizes that are tried.
QUICK_S = 0.15
# Linear is 4 for four times the size, and more where memory gets scarce; the square is 16.
_MOST_RATIO = 10


def grows_no_faster(work: Callable[[int], Any], size: int) -> Any:
    """Do it at a sixteenth, at a quarter and at all of the size; each costs no more than in proportion to the one before. The last answer."""
    # Python would look through all objects that there are whenever many were made. The web process does so rarely.
    gc.disable()
    try:
        return _compared(work, size)
    finally:
        gc.enable()


def _compared(work: Callable[[int], Any], size: int) -> Any:
    before = _seconds(work, size // 16)
    for part in (size // 4, size):
        # The least of several: whatever else runs on this machine only adds to it.
        for _ in range(3):
            began = thread_time()
            answer = work(part)
            seconds = thread_time() - began
            if fits := seconds < max(QUICK_S, before * _MOST_RATIO):
                break
        assert fits, f"{part:,} cost {seconds:.2f} s, and a quarter of that {before:.3f} s"
        before = max(seconds, 0.001)
    return answer


def _seconds(work: Callable[[int], Any], size: int) -> float:
    began = thread_time()
    work(size)
    return max(thread_time() - began, 0.001)
