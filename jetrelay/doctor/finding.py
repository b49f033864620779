"""What a check says. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    # Works, and somebody should know.
    WARNING = "warning"
    # Something does not work, or will not for long.
    PROBLEM = "problem"
    # Could not be looked at, or is not there to be looked at.
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """`found` in one sentence; `advice` is what to do about it, empty where there is nothing to do."""

    level: Level
    found: str
    advice: str = ""
    # The name of the check, which whoever runs it writes in.
    check: str = ""


def ok(found: str) -> Finding:
    return Finding(Level.OK, found)


def warning(found: str, advice: str) -> Finding:
    return Finding(Level.WARNING, found, advice)


def problem(found: str, advice: str) -> Finding:
    return Finding(Level.PROBLEM, found, advice)


def skipped(found: str) -> Finding:
    return Finding(Level.SKIPPED, found)
