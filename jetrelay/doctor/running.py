"""Runs checks: each by itself, for a bounded time, on a connection of its own that changes nothing.

What hangs is left behind on its thread, which dies with the process. What raises is a finding like any other: a doctor that falls ill
helps nobody.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

from jetrelay.doctor.finding import Finding, Level, problem, skipped
from jetrelay.doctor.registry import Check

# Of the connection to the database, in seconds: to be made, for one statement, and for a lock.
CONNECT_S, STATEMENT_S, LOCK_S = 3, 6, 2
# Of all checks together, whatever hangs.
WHOLE_S = 75.0
_READ_ONLY = "-c default_transaction_read_only=on"


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Every finding, as soon as it is there."""
    troubled: set[str] = set()
    deadline = monotonic() + WHOLE_S
    for check in checks:
        because = [name for name in check.needs if name in troubled]
        left_s = deadline - monotonic()
        if because or left_s <= 0:
            found = [skipped(f"not looked at, because of: {', '.join(because) or 'the time that the others took'}")]
        else:
            found = within_limit(replace(check, limit_s=min(check.limit_s, left_s)))
        if because or any(each.level == Level.PROBLEM for each in found):
            troubled.add(check.name)
        yield from (replace(each, check=check.name) for each in found)


def within_limit(check: Check) -> list[Finding]:
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(_run(check))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
            found.append(_failure(error))

    thread = threading.Thread(target=run, name=f"doctor: {check.name}", daemon=True)
    thread.start()
    thread.join(check.limit_s)
    if thread.is_alive():
        advice = "Something hangs, or this machine is very busy. Look at what is around this check, and run doctor again."
        return [*found, problem(f"did not end within {check.limit_s:.0f} s", advice)]
    return found


def _run(check: Check) -> list[Finding]:
    """On this thread, which has no connection yet."""
    if not check.asks_database:
        return list(check.run())
    # Not at the top: without settings there is no such module.
    from django.db import connection

    bound(connection)
    try:
        return list(check.run())
    finally:
        connection.close()


def bound(connection: object) -> None:
    """Make a connection that is not open yet give up early, and write nothing."""
    settings: dict[str, object] = connection.settings_dict  # type: ignore[attr-defined]
    options = dict(settings["OPTIONS"])  # type: ignore[call-overload]
    if connection.vendor == "postgresql":  # type: ignore[attr-defined]
        limits = f"-c statement_timeout={STATEMENT_S}s -c lock_timeout={LOCK_S}s {_READ_ONLY}"
        options |= {"connect_timeout": CONNECT_S, "options": f"{options.get('options', '')} {limits}".strip(), "application_name": "jetrelay doctor"}
    else:
        options |= {"timeout": LOCK_S}
    # A copy: the one that is there belongs to all threads.
    connection.settings_dict = settings | {"OPTIONS": options}  # type: ignore[attr-defined]


@contextmanager
def a_connection_that_writes() -> Iterator[Any]:
    """A copy of this thread's connection without `bound`'s read-only default, in its place: for a trial that is rolled back."""
    from django.db import DEFAULT_DB_ALIAS, connections

    known = connections[DEFAULT_DB_ALIAS]
    ours = known.copy()
    options = ours.settings_dict["OPTIONS"]
    ours.settings_dict["OPTIONS"] = options | {"options": str(options.get("options", "")).replace(_READ_ONLY, "").strip()}
    connections[DEFAULT_DB_ALIAS] = ours
    try:
        yield ours
    finally:
        connections[DEFAULT_DB_ALIAS] = known
        ours.close()


def _failure(error: Exception) -> Finding:
    words = (str(error).splitlines() or [type(error).__name__])[0]
    if "no such table" in words or "no such column" in words or type(error).__name__ == "ProgrammingError":
        return skipped(f"a table or a column is missing, see migrations: {words[:200]}")
    return problem(
        f"could not be looked at: {type(error).__name__}: {words[:300]}", "If the findings above do not explain it, this is a bug: please report it."
    )
