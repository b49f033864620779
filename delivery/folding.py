"""Folding: the tallies of minutes that are long past become tallies of hours.

    12:00 12:01 12:02 … 12:59  ->  12:00        once the hour is 26 hours over

Charts show minutes for an hour and half hours for a day; what lies further back is looked at by the hour, and a month of minutes
would be read for it each time. An hour is folded in one transaction: its sums stay what they were at any moment.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import F, Min, Sum
from django.utils import timezone

from delivery.leases import Holding
from delivery.models import AttemptTally, EventTally

logger = logging.getLogger(__name__)

# A day, which the pages and the API show in finer steps, and some time for those who write late.
AFTER = timedelta(hours=26)
LEASE = "fold"
LEASE_S = 60.0
# An hour of a thousand busy endpoints takes a second or so.
HOURS_A_RUN = 50
HOUR = timedelta(hours=1)

Tally = type[EventTally | AttemptTally]
_KEYS: dict[Tally, tuple[str, ...]] = {EventTally: ("source_id", "kind", "type"), AttemptTally: ("endpoint_id", "outcome")}


@dataclass
class Folder:
    """Goes through the hours, oldest first. Where it stands is kept in memory: starting afresh costs a look at each hour."""

    _next: dict[Tally, datetime] = field(default_factory=dict, init=False)

    def run(self, rest: Callable[[float], bool], now: datetime | None = None) -> int:
        """Fold what is due. Returns how many hours were; 0 as well while somebody else folds."""
        holding, folded = Holding(LEASE, LEASE_S), 0
        if not holding.take():
            return 0
        try:
            until = _hour((now or timezone.now()) - AFTER)
            for tally in _KEYS:
                while folded < HOURS_A_RUN and (hour := self._due(tally, until)) is not None:
                    folded += fold(tally, hour)
                    self._next[tally] = hour + HOUR
                    if rest(0) or (holding.ripe and not holding.renew()):
                        return folded
        finally:
            holding.release()
        return folded

    def _due(self, tally: Tally, until: datetime) -> datetime | None:
        """The next hour before `until` that has any row."""
        rows = tally._default_manager.filter(minute__lt=until)
        if tally in self._next:
            rows = rows.filter(minute__gte=self._next[tally])
        first = rows.aggregate(first=Min("minute"))["first"]
        return _hour(first) if first else None


def fold(tally: Tally, hour: datetime) -> bool:
    """Make one row of each hour's rows that count the same thing. Returns whether there was anything to fold."""
    keys = _KEYS[tally]
    counts = [each.name for each in tally._meta.concrete_fields if each.attname not in ("id", "minute", *keys)]
    manager: Any = tally._default_manager
    rows = manager.filter(minute__gte=hour, minute__lt=hour + HOUR)
    with transaction.atomic():
        if not rows.filter(minute__gt=hour).exists():
            return False
        sums = list(rows.order_by().values(*keys).annotate(**{f"sum_{name}": Sum(F(name)) for name in counts}))
        rows._raw_delete(rows.db)
        manager.bulk_create(
            [tally(minute=hour, **{key: row[key] for key in keys}, **{name: row[f"sum_{name}"] for name in counts}) for row in sums], batch_size=500
        )
    return True


def fold_for_a_while(rest: Callable[[float], bool]) -> None:
    """One run of the scheduled task."""
    try:
        folder.run(rest)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Folding tallies was cut short by the database; the next run goes on. %s", str(error).strip())


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


folder = Folder()
