"""The files of this installation: for the user that it runs as, and for nobody else.

The database, what SQLite keeps beside it, the broker's messages and `secrets.json` let in whoever can read them. So
folders are made 0700 and files 0600 whatever the umask is, and what an earlier version left more open is closed at the
next start of any program (`mend`, from the settings).

Only what is ours is touched: names that this program gives, in folders that hold nothing else, of the user that it runs as.
No symbolic link is followed, but for the one that the operator may have made of the data directory itself: everything is
opened by its name in a folder that is open already, and changed by its descriptor.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER, FILE = 0o700, 0o600
_OTHERS = 0o077

DATABASE = "jetrelay.sqlite3"
# Of these names everything is ours, all the way down.
_FOLDERS = ("broker", "dictionaries")
_FILES = ("secrets.json", "secrets.new", "up.lock")
# A data directory within another.
_DEMO = "demo"
_BESIDE_A_DATABASE = ("", "-wal", "-shm", "-journal")
# What lies in a folder without having been put there: the root of a volume, a home directory's dotfiles.
_NO_MATTER = ("lost+found",)


@dataclass(frozen=True)
class Open:
    """Something of ours that others may read or write. `why_left`: why it is not ours to change; empty if it is."""

    path: Path
    mode: int
    is_folder: bool
    why_left: str = ""

    @property
    def advice(self) -> str:
        return f"chmod {FOLDER if self.is_folder else FILE:o} {self.path}"


def make_folder(path: Path) -> None:
    """Make it, for its owner alone; one that is there stays as it is. Folders above it are anybody's, and made as usual."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=FOLDER, exist_ok=True)


def opener(path: str, flags: int) -> int:
    """For `open`: what it makes is for its owner alone."""
    return os.open(path, flags, FILE)


class Connection(sqlite3.Connection):
    """A connection to a database file that is for its owner alone if it is made here: SQLite would go by the umask.

    What SQLite makes beside a database gets that file's mode.
    """

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        if _is_file(str(database)):
            # Whatever is wrong with the path, SQLite has the words for it.
            with suppress(OSError):
                os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE))
        super().__init__(database, *args, **kwargs)


def mend(data_dir: Path, database: str, *, default: bool) -> list[str]:
    """Close what is ours and open to others. Returns what to tell about it: nothing, or one line.

    `database`: the name of the SQLite file, empty if there is none. `default`: whether nobody has named the data directory,
    so that whatever is in it was put there for us.
    """
    mended = [each for each in _look(data_dir, database, default=default, close=True) if not each.why_left]
    if not mended:
        return []
    first, more = mended[:3], len(mended) - 3
    named = ", ".join(f"{each.path} ({each.mode:04o})" for each in first) + (f" and {more:,} more" if more > 0 else "")
    return [f"Other users of this machine could get at {named}: closed to all but the user that Jetrelay runs as (0700 and 0600)."]


def too_open(data_dir: Path, database: str, *, default: bool) -> list[Open]:
    """What others may read or write now. Changes nothing."""
    return list(_look(data_dir, database, default=default, close=False))


def owner_of_others(data_dir: Path) -> int | None:
    """The user whose folder this is, if that is neither us nor root: they can put other files in the place of ours."""
    try:
        owner = data_dir.stat().st_uid
    except OSError:
        return None
    return None if owner in (0, os.geteuid()) else owner


def _look(data_dir: Path, database: str, *, default: bool, close: bool) -> Iterator[Open]:
    path = Path(database).absolute() if _is_file(database) else None
    yield from _data_dir(data_dir, path, default, close)
    if path is not None and path.parent != data_dir:
        with _folder(path.parent, follow=True) as folder:
            if folder is not None:
                for name in _beside(path.name):
                    yield from _file(folder, path.parent, name, close)


def _data_dir(path: Path, database: Path | None, default: bool, close: bool) -> Iterator[Open]:
    with _folder(path, follow=True) as folder:
        if folder is None:
            return
        names = _names(folder)
        databases = {*_beside(DATABASE), *(_beside(database.name) if database is not None and database.parent == path else ())}
        known = {*_FOLDERS, *_FILES, *databases, _DEMO, *_NO_MATTER}
        others = [] if default else [name for name in names if name not in known and not name.startswith(".")]
        if ours := [name for name in names if name in known and name not in _NO_MATTER]:
            why = f"it also holds {others[0]}, which is not Jetrelay's" if others else ""
            yield from _itself(folder, path, close, why)
        # What lets in first: of many, the first few are named.
        for name in sorted(ours, key=lambda name: (name in (*_FOLDERS, _DEMO), name not in _FILES)):
            if name in _FOLDERS:
                yield from _tree(folder, path, name, close)
            elif name == _DEMO:
                yield from _demo(folder, path, close)
            else:
                yield from _file(folder, path, name, close)


def _demo(folder: int, path: Path, close: bool) -> Iterator[Open]:
    with _folder(_DEMO, within=folder) as inner:
        # Anybody's folder may have this name.
        if inner is not None and set(_names(inner)) & {*_FILES, DATABASE}:
            yield from _data_dir(path / _DEMO, None, False, close)


def _tree(within: int, path: Path, name: str, close: bool) -> Iterator[Open]:
    with _folder(name, within=within) as folder:
        if folder is None:
            return
        # First, so that nobody comes in any more while the rest is closed.
        yield from _itself(folder, path / name, close)
        for entry in _names(folder):
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode):
                    yield from _tree(folder, path / name, entry, close)
                else:
                    yield from _file(folder, path / name, entry, close)


def _file(folder: int, path: Path, name: str, close: bool) -> Iterator[Open]:
    """A message may be taken and a journal be gone at any moment."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(there.st_mode):
            there = os.stat(name, dir_fd=folder)
            if stat.S_ISREG(there.st_mode) and there.st_mode & _OTHERS:
                yield Open(path / name, stat.S_IMODE(there.st_mode), False, "it is a symbolic link")
            return
        # Most are as they should be, and need not be opened.
        if not stat.S_ISREG(there.st_mode) or not there.st_mode & _OTHERS:
            return
        if there.st_uid != os.geteuid():
            # Not to be opened either, most likely.
            yield Open(path / name, stat.S_IMODE(there.st_mode), False, f"it belongs to user {there.st_uid}")
            return
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Open(path / name, 0, False, f"it cannot be opened: {error.strerror}")
        return
    try:
        yield from _itself(opened, path / name, close)
    finally:
        os.close(opened)


def _itself(opened: int, path: Path, close: bool, why_left: str = "") -> Iterator[Open]:
    """The file or folder behind a descriptor."""
    there = os.fstat(opened)
    mode, is_folder = stat.S_IMODE(there.st_mode), stat.S_ISDIR(there.st_mode)
    if not mode & _OTHERS:
        return
    if there.st_uid != os.geteuid():
        why_left = f"it belongs to user {there.st_uid}"
    elif not is_folder and there.st_nlink > 1:
        why_left = "it has another name as well"
    if close and not why_left:
        try:
            os.fchmod(opened, mode & ~_OTHERS & 0o777)
            # Some file systems take it without a word, and have no modes.
            if os.fstat(opened).st_mode & _OTHERS:
                why_left = "its file system keeps no modes"
        except OSError as error:
            why_left = f"its mode cannot be changed: {error.strerror}"
    yield Open(path, mode, is_folder, why_left)


@contextmanager
def _folder(path: Path | str, *, within: int | None = None, follow: bool = False) -> Iterator[int | None]:
    """A descriptor of the folder; None if there is no such folder, or it cannot be looked into."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), dir_fd=within)
    except OSError:
        yield None
        return
    try:
        yield opened
    finally:
        os.close(opened)


def _names(folder: int) -> list[str]:
    return sorted(os.listdir(folder))


def _beside(name: str) -> list[str]:
    return [f"{name}{suffix}" for suffix in _BESIDE_A_DATABASE]


def _is_file(database: str) -> bool:
    """Whether SQLite takes this for the name of a file."""
    return bool(database) and database != ":memory:" and not database.startswith("file:")
