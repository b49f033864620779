"""What a database raises that cannot be reached, or has not been made ready. Pure.

A table that is missing, or a disk that is full, comes as the same class of exception, and is a failure like any other.
"""

import sqlite3

import psycopg
from django.db import InterfaceError, OperationalError, ProgrammingError

# PostgreSQL's classes and codes (Appendix A of its manual): connection exceptions; no more connections; shutting down, crashed, starting.
_AWAY = ("08", "53300", "57P01", "57P02", "57P03")
# Rolled back for the sake of others.
_PASSING = ("40",)
# A statement that took too long; a lock that was not to be had.
_TOO_LONG, _HELD = "57014", "55P03"
# How PostgreSQL and SQLite call what a migration would have made.
_UNMADE = ("does not exist", "no such table", "no such column")
# SQLite's primary result codes: held by others for too long, or out of reach.
_OF_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)


class TookTooLong(OperationalError):
    """The statements of a request took too long together: see `patience.py`."""


def is_away(error: BaseException | None) -> bool:
    """Whether the database cannot be reached, has gone away, or is held by others."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    cause = error.__cause__
    if isinstance(error, TookTooLong):
        return False
    if isinstance(cause, psycopg.Error):
        # What the client notices by itself, such as a closed port, has no code.
        return cause.sqlstate is None or cause.sqlstate.startswith(_AWAY)
    if isinstance(cause, sqlite3.OperationalError):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _OF_SQLITE
    return not isinstance(cause, sqlite3.Error)


def took_too_long(error: BaseException | None) -> bool:
    """Whether the database was told to stop, because it took longer than somebody was to wait: see `patience.py`."""
    return isinstance(error, TookTooLong) or _code(error) in (_TOO_LONG, sqlite3.SQLITE_INTERRUPT)


def is_held(error: BaseException | None) -> bool:
    """Whether somebody else held what was to be changed, for longer than one waits for that."""
    return _code(error) == _HELD


def _code(error: BaseException | None) -> str | int | None:
    """As the engine says what went wrong."""
    cause = error.__cause__ if isinstance(error, OperationalError) else None
    if isinstance(cause, psycopg.Error):
        return cause.sqlstate
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF if isinstance(cause, sqlite3.OperationalError) else None


def advice(error: BaseException) -> str | None:
    """What the operator of a command has to do about it, if it is one of these."""
    said = (str(error).strip().splitlines() or ["nothing more is known"])[0]
    if is_away(error):
        return f"The database does not answer: {said}. Check DATABASE_URL, and whether the database runs."
    if isinstance(error, OperationalError | ProgrammingError) and any(word in said for word in _UNMADE):
        where = "set JETRELAY_DATA_DIR or DATABASE_URL as it has them"
        return f"There is no installation of this version here: {said}. Migrate it (python manage.py migrate), start one first (make run), or {where}."
    return None


def is_passing(error: BaseException) -> bool:
    """Whether the same request may go through when it is made again."""
    cause = error.__cause__
    return is_away(error) or took_too_long(error) or is_held(error) or (isinstance(cause, psycopg.Error) and (cause.sqlstate or "").startswith(_PASSING))
