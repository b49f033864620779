"""A line for each attempt, once it is settled: event, delivery, endpoint, outcome and duration.

A lane settles thousands a second. It hands over what it has settled, which costs it a microsecond for all of it; a thread
makes the lines, some hundreds in one piece, and gives them to the log as one record (`jetrelay/logs/rendering.py` passes
it through). Nothing in these lines was written by a stranger: ids, numbers and words of ours. Whoever reads the log may be slow:
what cannot be written meanwhile is left out, and counted.
"""

import atexit
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.conf import settings
from structlog.contextvars import get_contextvars

from delivery.outcomes import Done
from delivery.retry import Outcome

logger = logging.getLogger("delivery.attempts")

# Attempts that may wait to be written. Each may hold some KB of an answer.
MOST_WAITING = 5_000
# How long the end of the process waits for the last lines.
GRACE_S = 2.0

FAILED, NONE = "failed", "none"

_JSON = (
    '{"timestamp":"%s","level":"%s","logger":"delivery.attempts","message":"attempt","event":"evt_%032x","delivery":"dlv_%032x","endpoint":"ep_%032x"'
    ',"attempt":%d,"outcome":"%s","status":%s,"error":%s,"duration_ms":%.1f%s}'
)
_CONSOLE = "%s delivery.attempts: attempt event=evt_%032x delivery=dlv_%032x endpoint=ep_%032x attempt=%d outcome=%s%s duration_ms=%.1f%s"

Batch = tuple[Sequence[Done], Mapping[str, Any]]


def note(settled: Sequence[Done]) -> None:
    """Have these attempts logged, if that is wanted. To be called once they are committed."""
    chosen = settings.JETRELAY_LOG_ATTEMPTS
    if chosen == NONE or not logger.isEnabledFor(logging.WARNING):
        return
    if chosen == FAILED or not logger.isEnabledFor(logging.INFO):
        settled = [done for done in settled if done.verdict.outcome is not Outcome.DELIVERED]
    if settled:
        _writer.take(settled, dict(sorted(get_contextvars().items())))


def lines(settled: Iterable[Done], bound: Mapping[str, Any], *, json: bool) -> list[str]:
    """A line for each attempt, with what was bound then."""
    if not json:
        rest = "".join(f" {name}={value}" for name, value in bound.items())
        return [_for_people(done, rest) for done in settled]
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    rest = f",{msgspec.json.encode(dict(bound), enc_hook=str).decode()[1:-1]}" if bound else ""
    return [_for_programs(done, now, rest) for done in settled]


def _for_programs(done: Done, now: str, rest: str) -> str:
    _, verdict, settlement, attempt, event_id = done
    delivered = verdict.outcome is Outcome.DELIVERED
    return _JSON % (
        *(now, "info" if delivered else "warning", event_id.int, settlement.id.int, done.endpoint_id.int, attempt.number, verdict.outcome.value),
        *("null" if attempt.status is None else attempt.status, f'"{attempt.error}"' if attempt.error else "null", attempt.total_ms, rest),
    )


def _for_people(done: Done, rest: str) -> str:
    outcome, attempt = done.verdict.outcome, done.attempt
    came = f" status={attempt.status}" if attempt.status is not None else ""
    came += f" error={attempt.error}" if attempt.error else ""
    level = "INFO" if outcome is Outcome.DELIVERED else "WARNING"
    ids = done.event_id.int, done.settlement.id.int, done.endpoint_id.int
    return _CONSOLE % (level, *ids, attempt.number, outcome.value, came, attempt.total_ms, rest)


class _Writer:
    """The thread, and what waits for it."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._changed = threading.Condition()
        # Those in the making count until they are written.
        self._waiting = 0
        self._left_out = 0
        self._thread: threading.Thread | None = None

    def take(self, settled: Sequence[Done], bound: Mapping[str, Any]) -> None:
        with self._changed:
            if self._waiting and self._waiting + len(settled) > MOST_WAITING:
                self._left_out += len(settled)
                return
            self._waiting += len(settled)
            self._batches.append((settled, bound))
            # Not alive: never started, or on the other side of a fork.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="attempt-log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = GRACE_S) -> bool:
        """Wait until all is written. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batches)
                batches, left_out = list(self._batches), self._left_out
                self._batches.clear()
                self._left_out = 0
            try:
                _write(batches, left_out)
            except Exception:
                logger.exception("Attempts could not be logged.")
            with self._changed:
                self._waiting -= sum(len(settled) for settled, _ in batches)
                self._changed.notify_all()


def _write(batches: Sequence[Batch], left_out: int) -> None:
    if left_out:
        logger.warning("The log is read too slowly: %d attempts have no line in it.", left_out)
    json = settings.JETRELAY_LOG_FORMAT == "json"
    text = "\n".join(line for settled, bound in batches for line in lines(settled, bound, json=json))
    logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, "%s", (text,), None, extra={"lines": text}))


_writer = _Writer()
flush = _writer.flush
atexit.register(flush)
