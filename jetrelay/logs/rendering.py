"""One form for every line: JSON objects for programs, or a line of words for people.

Whoever logs goes on using `logging.getLogger(__name__)`; structlog brings all of it, its own loggers' lines too, into one
dictionary, and what is below makes a line of that. A record is one line, whatever a stranger has put into it; only the
traceback of an error follows on lines of its own, for people, and each of these begins with a bar.
"""

import json
import logging
import os
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from jetrelay.logs import masking

Line = MutableMapping[str, Any]

# Beside the text itself, the parts of a line of which the supervisor takes 16,384 characters.
LONGEST_MESSAGE = 4_000
LONGEST_TRACEBACK = 8_000
LONGEST_LINE = 16_000
# In front of each line of a traceback, for people.
BAR = "  | "
# How each of our JSON lines begins.
BEGINNING = '{"timestamp":"'
# What Django and structlog put on records for their own use. (Celery's `data` is the arguments of a task and the traceback once more.)
_NOT_SHOWN = frozenset({"request", "server_time", "_record", "_from_structlog", "lines"})
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


class Formatter(structlog.stdlib.ProcessorFormatter):
    """`form` is json or console."""

    def __init__(self, form: str, colour: bool = False) -> None:
        render = as_json if form == "json" else Console(colour)
        gathered: list[structlog.typing.Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
        ]
        super().__init__(foreign_pre_chain=gathered, processors=[_with_exception, masked, render])

    def format(self, record: logging.LogRecord) -> str:
        """Never raises: a line that cannot be made is replaced by one that says so."""
        # Of `delivery/attempt_log.py`: many lines, made there.
        lines = record.__dict__.get("lines")
        if isinstance(lines, str):
            return lines
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - arguments that do not fit, a __str__ that fails: whatever it is
            return super().format(_substitute(record, error))


def _substitute(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    message = f"{masking.shown(record.msg)} (its arguments are left out: {type(error).__name__})"
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, (), record.exc_info)


def _with_exception(_logger: Any, _name: str, line: Line) -> Line:
    """The traceback as Python has it: no values of local variables."""
    return structlog.processors.format_exc_info(_logger, _name, line)


def masked(_logger: Any, _name: str, line: Line) -> Line:
    """The line as plain values without secrets, in the order in which it is read."""
    message, level, name = line.pop("event", ""), line.pop("level", "info"), line.pop("logger", "")
    exception, stack = line.pop("exception", None), line.pop("stack_info", None) or line.pop("stack", None)
    message = message if isinstance(message, str) else masking.shown(message)
    found: Line = {
        "timestamp": timestamp(),
        "level": level,
        "logger": name or "root",
        "message": masking.text(message[: 5 * LONGEST_MESSAGE])[:LONGEST_MESSAGE],
    }
    if not line.get("_from_structlog"):
        # Of a formatter that had the record before.
        line.pop("message", None)
        line.pop("asctime", None)
    for key, inner in list(line.items())[: masking.MOST_ITEMS]:
        if key not in _NOT_SHOWN and not (key == "data" and name.startswith("celery.")):
            found[masking.text(key) if key not in found else f"{key}_"] = masking.value(key, inner)
    for key, trace in (("stack", stack), ("exception", exception)):
        if trace:
            # Its end says what went wrong.
            found[key] = masking.text(str(trace)[-5 * LONGEST_TRACEBACK :])[-LONGEST_TRACEBACK:]
    return found


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_json(_logger: Any, _name: str, line: Line) -> str:
    rendered = json_line(line)
    if len(rendered) > LONGEST_LINE:
        # Many values, or many characters that have to be spelled out.
        short = {name: line[name] for name in ("timestamp", "level", "logger")}
        rendered = json_line({**short, "message": line["message"][:1_000], "exception": line.get("exception", "")[-1_000:], "cut": True})
    return rendered


def json_line(line: Line) -> str:
    """One JSON object, and nothing in it that moves a terminal's cursor or ends a line."""
    try:
        rendered = msgspec.json.encode(line, enc_hook=repr).decode()
    except (UnicodeEncodeError, ValueError, TypeError):
        # Half of a surrogate pair, a number that JSON does not have.
        rendered = json.dumps(line, default=repr)
    return rendered if rendered.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in rendered)


class Console:
    """`WARNING delivery.lanes: The database does not answer … lane=3`."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: Any, _name: str, line: Line) -> str:
        level = str(line.pop("level")).upper()
        traces = [line.pop(name, "") for name in ("stack", "exception")]
        name, message = line.pop("logger"), line.pop("message")
        line.pop("timestamp")
        rest = "".join(f" {spelled(key)}={_word(inner)}" for key, inner in line.items())
        if self._colour:
            level, rest = f"\033[{_COLOURS.get(level, '32')}m{level}\033[0m", f"\033[2m{rest}\033[0m" if rest else ""
        below = "".join(f"\n{BAR}{spelled(each)}" for trace in traces if trace for each in trace.splitlines())
        return f"{level} {spelled(name)}: {spelled(message)}{rest}{below}"


def _word(inner: Any) -> str:
    if isinstance(inner, str) and inner and " " not in inner and '"' not in inner:
        return spelled(inner)
    return json_line({"": inner})[4:-1]


def spelled(words: str) -> str:
    """The text with control characters spelled out: logs quote strangers, who must not begin a line or move a cursor."""
    return words if words.isprintable() else "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in words)


def from_environment() -> logging.Formatter:
    """For a program that logs before it has read any settings: granian's own process."""
    return Formatter(os.environ.get("JETRELAY_LOG_FORMAT", "").strip().lower())


def plain(level: str, name: str, message: str, **more: Any) -> str:
    """A JSON line of what was never a record. The message's secrets are hidden here."""
    return json_line({"timestamp": timestamp(), "level": level, "logger": name, "message": masking.text(message), **more})
