"""How long the database works for one request: a page or a call that asks for too much ends in words, and not when it pleases.

A statement that runs on after its reader has left holds a thread of the site, and keeps every row that is settled meanwhile from being
cleaned up. PostgreSQL ends it by itself; on SQLite it is interrupted. A lock that somebody else holds is not waited for that long either.
And if a transaction of ours stands still, as with a process that was stopped in the middle, the server ends it.

Commands, workers and the listener take as long as they need: what they do comes in small steps.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, thread_time
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, InterfaceError, connection, connections
from django.http import HttpRequest, HttpResponseBase

from jetrelay.away import TookTooLong, is_demoted

Answer = Callable[[HttpRequest], HttpResponseBase]

# All statements of a request together, in multiples of what one of them may take.
IN_ALL = 2
# Whoever waits for a lock does nothing: sooner than that it is told who could go on.
LOCK_S = 3.0
# A transaction of ours in which nothing happens for so long is nobody's any more.
IDLE_S = 300
# SQLite's steps between two looks at the clock: a millisecond's work or less.
_STEPS = 20_000


class _Request(threading.local):
    """What the request of this thread may take of the database, in seconds; 0: there is none."""

    limit_s = 0.0
    left_s = 0.0
    # On the monotonic clock, of the statement that runs.
    until = 0.0
    # What the database has worked for this thread, ever.
    used_s = 0.0
    # The connection that has a limit already, and which.
    bound: tuple[Any, float] | None = None


_request = _Request()
# Whether threads that answer requests do nothing else, so that their connections may keep the limits: see `wsgi.py`.
keeps = False


def patient_for(get_response: Answer) -> Answer:
    """Middleware."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with patience(settings.JETRELAY_REQUEST_LIMIT_S):
            return get_response(request)

    return middleware


@contextmanager
def patience(limit_s: float) -> Iterator[None]:
    """Bound what the database does for this thread: a statement to so long, all of them together to a little more."""
    _request.limit_s, _request.left_s = limit_s, limit_s * IN_ALL
    try:
        if connection.connection is not None and _request.bound != (connection.connection, limit_s):
            _bind()
        with connection.execute_wrapper(_counted):
            yield
    finally:
        _request.limit_s = _request.until = 0.0
        if not keeps and connection.connection is not None:
            _release()


def used_s() -> float:
    """What this thread has worked, ever, and the database for it."""
    return thread_time() + _request.used_s


def bind_new(**made: Any) -> None:
    """For every connection that is made, by whichever thread: see `apps.py`."""
    if made["connection"] is not connections[DEFAULT_DB_ALIAS]:
        return
    if connection.vendor == "postgresql":
        _tell(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'")
    if _request.limit_s:
        _bind()


def _bind() -> None:
    # 0 would be no limit at all.
    limit_ms, lock_ms = max(1, int(_request.limit_s * 1000)), max(1, int(min(LOCK_S, _request.limit_s) * 1000))
    if connection.vendor == "postgresql":
        _tell(f"SET statement_timeout = {limit_ms}; SET lock_timeout = {lock_ms}")
    else:
        connection.connection.set_progress_handler(_is_over, _STEPS)
        connection.connection.execute(f"PRAGMA busy_timeout = {limit_ms}")
    _request.bound = connection.connection, _request.limit_s


def _release() -> None:
    _request.bound = None
    with suppress(DatabaseError, InterfaceError):
        if connection.vendor == "postgresql":
            _tell("RESET statement_timeout; RESET lock_timeout")
        else:
            connection.connection.set_progress_handler(None, 0)
            wait_s = connection.settings_dict["OPTIONS"].get("timeout", 5)
            connection.connection.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")


def _tell(statement: str) -> None:
    with connection.wrap_database_errors:
        connection.connection.execute(statement)


def _is_over() -> int:
    return int(0.0 < _request.until < monotonic())


def _counted(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    began = monotonic()
    if _request.left_s <= 0:
        raise TookTooLong("the statements of this request took too long together")
    _request.until = began + min(_request.limit_s, _request.left_s)
    try:
        return execute(sql, params, many, context)
    except Error as error:
        if is_demoted(error):
            # It works, and so it would be kept; the next request is to find the primary.
            connection.close_at = began
        raise
    finally:
        took_s = monotonic() - began
        _request.left_s -= took_s
        _request.used_s += took_s
