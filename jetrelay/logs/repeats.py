"""What would be said again and again is said once, and then how often: a log must not fill the disk whose trouble it tells of.

A warning or an error comes whole; the next ones like it within a minute come in a line each, without their traceback, and from
some on not at all. When the minute is over, a line says how many were left out. What is no trouble is none of this module's.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jetrelay.logs import masking

WINDOW_S = 60.0
# Of one kind in a minute: the very same words; a failure, of which the first has its traceback; and other words by the same pen.
SAME, FAILURES, ALIKE = 3, 3, 100
# Tracebacks of all kinds in a minute.
TRACES = 30
# Kinds that are remembered; the oldest go first.
MOST = 1_000
_LONGEST = 200


@dataclass
class _Kind:
    since: float
    first: logging.LogRecord
    number: int = 0
    left_out: int = 0


class Repeats:
    """Of one handler, on its thread or under its lock."""

    def __init__(self) -> None:
        self._kinds: dict[Any, _Kind] = {}
        self._traces: list[float] = []
        # Kinds that made room for others before their minute was over.
        self._pushed_out: list[_Kind] = []

    def passed(self, record: logging.LogRecord, now: float) -> Iterator[logging.LogRecord]:
        """What is to be written now: how much was left out before, and the record, unless there were enough like it."""
        yield from self._over(now)
        if record.levelno < logging.WARNING or "lines" in record.__dict__:
            yield record
            return
        words = _words(record)
        failed = record.exc_info and record.exc_info[0] is not None
        # What Django says of answers is one template for all of them: their status tells them apart.
        status = getattr(record, "status_code", None)
        template = record.msg if isinstance(record.msg, str) else type(record.msg)
        kinds: list[tuple[Any, int]] = [(("pen", record.name, template, record.levelno, status), ALIKE)]
        if failed and record.exc_info:
            task = record.args.get("name") if isinstance(record.args, dict) else None
            kinds.append((("failure", kinds[0][0], record.exc_info[0], masking.shown(record.exc_info[1])[:_LONGEST], task), FAILURES))
        else:
            kinds.append((("words", record.name, words), SAME))
        noted = [(self._note(key, record, now), most) for key, most in kinds]
        has_trace = bool(failed) and self._has_trace(noted[-1][0], now)
        # Counted by the kind that is nearest.
        full = next((kind for kind, most in reversed(noted) if kind.number > most), None)
        # A failure that was not seen before is told, however much else its pen has written.
        if full and not has_trace:
            full.left_out += 1
            return
        yield record if has_trace or not failed else _without_trace(record)

    def _note(self, key: Any, record: logging.LogRecord, now: float) -> _Kind:
        kind = self._kinds.get(key)
        if kind is None:
            while len(self._kinds) >= MOST:
                self._pushed_out.append(self._kinds.pop(next(iter(self._kinds))))
            kind = self._kinds[key] = _Kind(now, _bare(record))
        kind.number += 1
        return kind

    def _has_trace(self, kind: _Kind, now: float) -> bool:
        """Whether this one may have its traceback."""
        self._traces = [each for each in self._traces if now - each < WINDOW_S]
        if kind.number > 1 or len(self._traces) >= TRACES:
            return False
        self._traces.append(now)
        return True

    def _over(self, now: float) -> Iterator[logging.LogRecord]:
        """Begin anew with the kinds whose minute is over. They stand in the order in which they began."""
        while self._pushed_out:
            if (kind := self._pushed_out.pop(0)).left_out:
                yield _said(kind, now)
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if now - kind.since < WINDOW_S:
                return
            del self._kinds[key]
            if kind.left_out:
                yield _said(kind, now)


def _said(kind: _Kind, now: float) -> logging.LogRecord:
    first = kind.first
    words = "In the last %.0f s %d more lines like this one were left out: %s"
    return logging.LogRecord(first.name, first.levelno, first.pathname, first.lineno, words, (now - kind.since, kind.left_out, first.msg), None)


def _bare(record: logging.LogRecord) -> logging.LogRecord:
    """What is remembered of a record: its arguments and traceback may hold a whole request."""
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, _words(record), None, None)


def _words(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()[:_LONGEST]
    except Exception:  # noqa: BLE001 - arguments that do not fit: whoever makes the line says so
        return masking.shown(record.msg)[:_LONGEST]


def _without_trace(record: logging.LogRecord) -> logging.LogRecord:
    """A copy: other handlers have the record too."""
    found = copy.copy(record)
    found.exc_info = found.exc_text = found.stack_info = None
    return found
