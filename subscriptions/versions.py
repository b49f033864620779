"""Whether the database is the one that this code is made for. A process that runs on another one fails in the middle of its work.

A newer one has columns that nobody here fills and states that nobody here knows; an older one lacks what is asked for. Both are
known by the names of migrations. Looked at when a process starts: whoever runs while the database is migrated is not stopped.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

logger = logging.getLogger(__name__)

# So many are named.
_SHOWN = 3


class Gap(NamedTuple):
    """Names of migrations, as app.name: those that are not applied, and those of ours that are and that this code does not know."""

    missing: list[str]
    unknown: list[str]


def gap() -> Gap:
    """Raises the database's errors."""
    applied = set(MigrationRecorder(connection).applied_migrations())
    ours = {config.label for config in apps.get_app_configs() if config.name.split(".")[0] in ("jetrelay", "delivery", "subscriptions")}
    missing = sorted(f"{app}.{name}" for app, name in known() - applied)
    unknown = sorted(f"{app}.{name}" for app, name in applied - known() if app in ours)
    return Gap(missing, unknown)


@cache
def known() -> frozenset[tuple[str, str]]:
    """The migrations of this version. They do not change while it runs."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def objection(being_made: bool = False) -> str | None:
    """Why a process must not start on this database, and what to do; None where it may, or where the database cannot be asked now.

    `being_made`: it was not there a moment ago, so that somebody may be migrating it.
    """
    try:
        found = gap()
    except (DatabaseError, InterfaceError):
        # Away: it is waited for, as ever.
        return None
    if len(found.missing) == len(known()):
        # Empty: it is being made, or is another one than was meant. That is waited for, or told, as ever.
        return None
    if found.unknown and not settings.JETRELAY_ACCEPT_NEWER_DATABASE:
        return (
            f"A newer Jetrelay than {settings.VERSION} has migrated this database: {_some(found.unknown)}. Start that version, or restore the backup"
            " from before it. If you know that this one works on it all the same, set JETRELAY_ACCEPT_NEWER_DATABASE=true."
        )
    if found.missing and not being_made:
        return f"This database is not that of Jetrelay {settings.VERSION}: not applied: {_some(found.missing)}. Make a backup and run: python manage.py migrate"
    return None


def check() -> None:
    """End this process in words, with the exit code 1, if there is an objection."""
    if why := objection():
        logger.critical("%s", why)
        raise SystemExit(1)
    # Of the look: whoever forks later must not share it, and threads have their own.
    if not connection.in_atomic_block:
        connection.close()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
