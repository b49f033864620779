"""Whether a regex is linear: it is tried on texts that are made from its own parts.

What stands in a repetition is repeated, behind what has to stand in front of it and before something that does not fit. A search that costs
more than in proportion then shows by itself, whatever its shape: one that starts anew everywhere as well as nested repetitions.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from re import _constants as ops
from re import _parser as parser
from time import thread_time
from types import ModuleType
from typing import Any

from django.utils.functional import SimpleLazyObject

# Characters that a class is tried with, of those that are in it.
_CANDIDATES = "a0A \\.\n-\"'/:_=@~,;%[{(<é\u0345"
# Repetitions of fewer than this are no more than a factor.
_MANY = 16
# Characters of the texts. One that grows with its square costs sixteen times as much for four times the length.
_SHORT, _LONG = 2_500, 10_000
_MOST_RATIO = 9
# Seconds below which nothing is told apart from noise.
_NOISE_S = 0.003
# A length at which whatever doubles with each character shows, and has ended.
_TINY = 20


def is_linear(pattern: re.Pattern[Any], *, anchored: bool = False) -> bool:
    return worst(pattern, anchored=anchored) is None


def worst(pattern: re.Pattern[Any], *, anchored: bool = False) -> str | None:
    """The beginning of a text on which it costs more than in proportion to the length, if one was found.

    `anchored`: it is only tried from the text's beginning on, by `match` and `fullmatch`.
    """
    for start, unit, end in _attacks(pattern):
        if all(_cost(pattern, start, unit, end, _TINY, anchored) > 0.02 for _ in range(3)):
            return (start + unit * 3)[:60]
        if _cost(pattern, start, unit, end, _LONG, anchored) < _NOISE_S:
            continue
        if all(_grows(pattern, start, unit, end, anchored) for _ in range(3)):
            return (start + unit * 3)[:60]
    return None


def _grows(pattern: re.Pattern[Any], start: str, unit: str, end: str, anchored: bool) -> bool:
    """Whether four times the text cost far more than four times as much. A busy machine may make it look so once, or twice."""
    # The least of several: whatever else runs on this machine only adds to it.
    short, long = (min(_cost(pattern, start, unit, end, size, anchored) for _ in range(3)) for size in (_SHORT, _LONG))
    return long > _NOISE_S and long / max(short, 1e-6) > _MOST_RATIO


def _cost(pattern: re.Pattern[Any], start: str, unit: str, end: str, size: int, anchored: bool) -> float:
    """In seconds of this thread."""
    made = start + unit * max(1, size // len(unit)) + end
    text = made.encode("latin-1", "ignore") if isinstance(pattern.pattern, bytes) else made
    began = thread_time()
    pattern.match(text)
    pattern.fullmatch(text)
    for _ in () if anchored else pattern.finditer(text):
        pass
    return thread_time() - began


def _attacks(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    text = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    tree = parser.parse(text, pattern.flags & ~(re.UNICODE | re.DEBUG))
    found = list(dict.fromkeys(_repetitions(tree, [""])))[:60]
    starts = list(dict.fromkeys(start for start, _ in found))
    units = list(dict.fromkeys(unit for _, unit in found if unit))[:12]
    pairs = [one + other for one in units[:4] for other in units[:4] if one != other]
    again = [*starts[:8], *(start + unit for start, unit in found)]
    for start, unit in dict.fromkeys([*found, *product(starts[:3], [*units, *pairs]), *(("", each) for each in again[:20])]):
        if unit:
            yield start, unit, "\0"


def _repetitions(tree: Any, starts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(what may stand in front, what is repeated) for each repetition without a bound that matters."""
    starts = list(starts)
    for op, value in tree:
        if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
            _low, high, inner = value
            if high >= _MANY:
                for start in starts:
                    for unit in _samples(inner):
                        yield start, unit
            yield from _repetitions(inner, starts)
        elif op is ops.SUBPATTERN:
            yield from _repetitions(value[-1], starts)
        elif op is ops.ATOMIC_GROUP:
            yield from _repetitions(value, starts)
        elif op is ops.BRANCH:
            for branch in value[1]:
                yield from _repetitions(branch, starts)
        elif op in (ops.ASSERT, ops.ASSERT_NOT):
            yield from _repetitions(value[1], starts)
        starts = list(dict.fromkeys(start + more for start in starts for more in _of(op, value, few=True)))[:6]


def _samples(tree: Any, *, few: bool = False) -> list[str]:
    """Texts that it matches; not all that there are."""
    found = [""]
    for op, value in tree:
        found = list(dict.fromkeys(each + more for each in found for more in _of(op, value, few=few)))[: 3 if few else 12]
    return found


def _of(op: Any, value: Any, *, few: bool) -> list[str]:
    if op is ops.LITERAL:
        return [chr(value)]
    if op in (ops.NOT_LITERAL, ops.ANY, ops.IN):
        fits = [char for char in _CANDIDATES if _fits(op, value, char)]
        return fits[: 2 if few else 8] or ([chr(value[0][1])] if op is ops.IN and value[0][0] is ops.LITERAL else ["?"])
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        low, high, inner = value
        once = _samples(inner, few=few)
        return list(dict.fromkeys([*(each * low for each in once), *(each * max(low, 1) for each in once if high)]))
    if op is ops.SUBPATTERN:
        return _samples(value[-1], few=few)
    if op is ops.ATOMIC_GROUP:
        return _samples(value, few=few)
    if op is ops.BRANCH:
        return [each for branch in value[1] for each in _samples(branch, few=few)][: 4 if few else 12]
    return [""]


def _fits(op: Any, value: Any, char: str) -> bool:
    if op is ops.NOT_LITERAL:
        return ord(char) != value
    if op is ops.ANY:
        return char != "\n"
    negated = value[0][0] is ops.NEGATE
    return negated != any(_in(kind, what, char) for kind, what in value)


def _in(kind: Any, what: Any, char: str) -> bool:
    if kind is ops.LITERAL:
        return ord(char) == what
    if kind is ops.RANGE:
        return bool(what[0] <= ord(char) <= what[1])
    if kind is ops.CATEGORY:
        letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[str(what).rpartition("_")[2]]
        return re.match(f"\\{letter.upper() if 'NOT' in str(what) else letter}", char) is not None
    return False


# --- finding them ----------------------------------------------------------------------------------------------------


_DOES_SOMETHING = re.compile(r"\A(?:jetrelay\.bench|jetrelay\.[rw]sgi)|__main__|\.migrations\.")


def modules_of(*packages: str) -> Iterator[ModuleType]:
    """These, and all that is in them, but for what does something when it is imported."""
    # It registers what the routes of others need.
    importlib.import_module("jetrelay.urls")
    for name in packages:
        root = importlib.import_module(name)
        yield root
        for each in pkgutil.walk_packages(getattr(root, "__path__", []), f"{name}."):
            if not _DOES_SOMETHING.search(each.name):
                yield importlib.import_module(each.name)


def patterns_in(module: ModuleType) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Compiled ones among its values, its classes' values, and what these hold."""
    for name, value in list(vars(module).items()):
        yield from ((f"{module.__name__}.{name}", pattern) for pattern in _held(value, module.__name__, 0))


def _held(value: Any, module: str, depth: int) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, SimpleLazyObject) and hasattr(value, "fullmatch"):
        value = re.compile(value.pattern, value.flags)
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 3 and isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from _held(each, module, depth + 1)
    elif depth < 3 and isinstance(value, dict):
        for each in value.values():
            yield from _held(each, module, depth + 1)
    elif depth < 2 and isinstance(value, type) and value.__module__ == module:
        for each in list(vars(value).values()):
            yield from _held(each, module, depth + 1)
    elif depth < 2 and type(value).__module__ == "django.core.validators" and hasattr(value, "regex"):
        yield from _held(value.regex, module, depth + 1)


_CALLS = {"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"}


# How one is used that is only tried from the beginning on.
_ANCHORED = {"match", "fullmatch"}
_ITS_USE = re.compile(r"\b(\w{1,60})\.(search|split|findall|finditer|sub|subn)\b")


def searched_in(module: ModuleType) -> set[str]:
    """The names whose `search`, `sub` and the like are called, or handed on, in this one."""
    return {name for name, _ in _ITS_USE.findall(Path(str(module.__file__)).read_text())}


def literals_in(file: Path) -> Iterator[tuple[int, bool, str | bytes | None]]:
    """(line, whether it is anchored, regex) of each call of `re` in a file; None for one that is put together when it runs."""
    for node in ast.walk(ast.parse(file.read_text())):
        call = node.func if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id == "re" and call.attr in _CALLS:
            assert isinstance(node, ast.Call)
            first = node.args[0]
            yield node.lineno, call.attr in _ANCHORED, first.value if isinstance(first, ast.Constant) and isinstance(first.value, str | bytes) else None
