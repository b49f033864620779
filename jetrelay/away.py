"""What a database raises that cannot be reached, takes no writes, or has not been made ready. Pure.

All of it comes as the same few classes of exception, and so do failures of our own: codes tell them apart.
"""

import errno
import sqlite3

import psycopg
from django.db import Error, InterfaceError, OperationalError, ProgrammingError

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
# PostgreSQL's codes for what is there and takes nothing, and SQLite's; each with what is wrong, and what to do.
_FULL = ("its disk is full", "Make room on the disk of the database; nothing is lost meanwhile, and all goes on by itself.")
_REFUSING = {
    "25006": ("it is read-only", "Let DATABASE_URL name the primary and no standby, and see that default_transaction_read_only is off."),
    "53100": _FULL,
    "53200": ("its server is out of memory", "Give the database's server more memory, or lower its work_mem and max_connections."),
    "42501": ("its role may not write", "Make the role of DATABASE_URL the owner of Jetrelay's tables."),
}
_REFUSING_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: (
        "its file or its folder cannot be written to",
        "Give the file, those beside it and the folder to the user that Jetrelay runs as, on a file system that takes writes.",
    ),
}
_REFUSING_OS = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL}


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


def refusal(error: BaseException | None) -> tuple[str, str] | None:
    """Where the database is there and takes no writes: why, and what to do."""
    if isinstance(error, OSError):
        return _REFUSING_OS.get(error.errno or 0, _REFUSING_SQLITE[sqlite3.SQLITE_READONLY])
    cause = error.__cause__ if isinstance(error, Error) else None
    if isinstance(cause, psycopg.Error):
        return _REFUSING.get(cause.sqlstate or "")
    if isinstance(cause, sqlite3.OperationalError):
        code = getattr(cause, "sqlite_errorcode", 0)
        return _FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else _REFUSING_SQLITE.get(code & 0xFF)
    return None


def is_demoted(error: BaseException | None) -> bool:
    """Whether this session may only read. Another one may be let write: of the server that is the primary by now."""
    cause = error.__cause__ if isinstance(error, Error) else None
    return isinstance(cause, psycopg.errors.ReadOnlySqlTransaction)


def is_unmade(error: BaseException) -> bool:
    """Whether a table or a column is missing that a migration makes."""
    return isinstance(error, OperationalError | ProgrammingError) and any(word in str(error) for word in _UNMADE)


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
    if found := refusal(error):
        return f"The database takes no writes: {found[0]} ({said}). {found[1]}"
    if is_away(error):
        return f"The database does not answer: {said}. Check DATABASE_URL, and whether the database runs."
    if is_unmade(error):
        where = "set JETRELAY_DATA_DIR or DATABASE_URL as it has them"
        return f"There is no installation of this version here: {said}. Migrate it (python manage.py migrate), start one first (make run), or {where}."
    return None


# What a folder, a file or a disk says that is not as it should be.
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EIO)


def disk_advice(error: OSError) -> str | None:
    """What the operator of a command has to do about its files or its output; None if it is about neither."""
    if error.errno not in _OF_DISKS:
        return None
    where = f"{error.filename} cannot be used" if error.filename else "The output cannot be written"
    what = "Make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Let it be one that the user who runs this may read and write"
    return f"{where}: {error.strerror}. {what}, or name another (JETRELAY_DATA_DIR says where files are)."


def is_passing(error: BaseException) -> bool:
    """Whether the same request may go through when it is made again."""
    cause = error.__cause__
    return is_away(error) or took_too_long(error) or is_held(error) or (isinstance(cause, psycopg.Error) and (cause.sqlstate or "").startswith(_PASSING))
