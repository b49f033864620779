"""Processes as Linux shows them below /proc: memory, open files and processor time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
# By what stands in the command line; the first that fits.
_ROLES = {
    "play_jetstream": "player",
    "run_jetstream": "listener",
    "granian": "web",
    "celery -A jetrelay worker": "worker",
    "celery -A jetrelay beat": "beat",
    "nginx": "sink",
    "jetrelay.bench.sink": "sink",
}


class Process(NamedTuple):
    """Memory in bytes: what is resident; and of that what is the process's own, without mapped files and shared buffers."""

    resident: int
    own: int
    # Open file descriptors; None where they are not ours to see.
    files: int | None
    # Processor time since its start.
    cpu_s: float


def available() -> bool:
    return (_PROC / "self" / "status").exists()


def look(pid: int) -> Process | None:
    """A process as it is now; None when it is gone."""
    try:
        status = dict(line.split(":", 1) for line in (_PROC / str(pid) / "status").read_text().splitlines() if ":" in line)
        # After the name, which may hold anything: state is the third field, utime and stime the fourteenth and fifteenth.
        stat = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    if "VmRSS" not in status:
        return None
    files = None
    with contextlib.suppress(OSError):
        files = len(list((_PROC / str(pid) / "fd").iterdir()))
    return Process(_bytes(status["VmRSS"]), _bytes(status["RssAnon"]), files, (int(stat[11]) + int(stat[12])) / _TICKS_PER_S)


def peak(pid: int) -> int:
    """The most bytes that a process has had resident; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return _bytes(line.partition(":")[2])
    return 0


def backend(pid: int) -> Process | None:
    """A process of PostgreSQL, where the server is on this machine and no other process has its number."""
    with contextlib.suppress(OSError):
        if (_PROC / str(pid) / "comm").read_text().startswith("postgres"):
            return look(pid)
    return None


def cast(pid: int) -> dict[str, int]:
    """The processes below this one, by what they do: `worker`, `worker-2`, `web`, and `web/1` for the child of one."""
    found, parents = dict[str, int](), _parents()
    for child in sorted(each for each, parent in parents.items() if parent == pid):
        role = _role(child)
        if role is None:
            continue
        number = sum(name.partition("/")[0].partition("-")[0] == role and "/" not in name for name in found) + 1
        name = role if number == 1 else f"{role}-{number}"
        found[name] = child
        found |= {f"{name}/{place}": each for place, each in enumerate(_below(child, parents), 1)}
    return found


def _parents() -> dict[int, int]:
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _below(pid: int, parents: dict[int, int]) -> Iterator[int]:
    for child in sorted(each for each, parent in parents.items() if parent == pid):
        yield child
        yield from _below(child, parents)


def _role(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        line = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return next((role for words, role in _ROLES.items() if words in line), None)
    return None


def _bytes(text: str) -> int:
    return int(text.split()[0]) * 1024
