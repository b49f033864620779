"""Findings for people, as lines, and for programs, as one document."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jetrelay.doctor.finding import Finding, Level

WIDTH = 118
_LEVEL = max(map(len, Level))
_NAME = 14


def lines(finding: Finding) -> Iterable[str]:
    indent = " " * (_LEVEL + _NAME + 4)
    head = f"{finding.level.ljust(_LEVEL)}  {finding.check.ljust(_NAME)}  "
    yield from textwrap.wrap(finding.found, WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [head]
    if finding.advice:
        yield from textwrap.wrap(
            f"-> {finding.advice}", WIDTH, initial_indent=indent, subsequent_indent=indent + "   ", break_long_words=False, break_on_hyphens=False
        )


def summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.level for finding in findings)
    many = {Level.WARNING: "warnings", Level.PROBLEM: "problems"}
    told = ", ".join(f"{counts[level]} {many.get(level, level) if counts[level] > 1 else level}" for level in Level if counts[level])
    return f"{len(findings)} findings: {told}."


def document(findings: Sequence[Finding], version: str, at: str) -> dict[str, Any]:
    """`healthy`: there is no problem. `at`: when, in ISO 8601."""
    counts = Counter(finding.level for finding in findings)
    return {
        "version": version,
        "at": at,
        "healthy": not counts[Level.PROBLEM],
        "counts": {level.value: counts[level] for level in Level},
        "findings": [{"check": finding.check, "level": finding.level.value, "found": finding.found, "advice": finding.advice or None} for finding in findings],
    }
