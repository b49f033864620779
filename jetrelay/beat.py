"""Beat's scheduler: the database's, which is waited for when it is away at the start.

Without this beat ends, and whoever starts it again waits longer each time, and the retries with it. A task that ran last in the
future ran when the clock was ahead: it runs now, and not when that time has come.
"""

import logging
from datetime import datetime, timedelta
from time import sleep
from typing import Any, ClassVar

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

from subscriptions import versions

logger = logging.getLogger(__name__)

# Between two looks at a database that is away.
_LOOK_EVERY_S = 1.0
# Somebody else's clock, if beat has moved to another machine, may differ by a little.
_LEEWAY = timedelta(seconds=5)


class Entry(ModelEntry):  # type: ignore[misc] # carries no types
    """A task of the schedule."""

    last_run_at: datetime

    def is_due(self) -> Any:
        if self.last_run_at - timezone.now() > _LEEWAY:
            words = "%s ran last at %s UTC, which is still to come: the clock must have been ahead. It runs now."
            logger.warning(words, self.name, f"{self.last_run_at:%F %T}")
            # Long ago enough for every schedule, and kept at once: beat writes it down only after it has run.
            self.last_run_at = self.model.last_run_at = timezone.now() - timedelta(days=1)
        return super().is_due()


class PatientScheduler(DatabaseScheduler):  # type: ignore[misc] # carries no types
    """A database that goes away later is beat's own to survive, and it does."""

    Entry = Entry
    _starting: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ticked_at = timezone.now()
        self._cannot_send = False
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        now = timezone.now()
        if self._ticked_at - now > _LEEWAY:
            # What is planned next was planned by the clock as it was: plan anew.
            self._heap = None
        self._ticked_at = now
        return float(super().tick(*args, **kwargs))

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a task. What the broker does not take is said once: Celery writes two tracebacks for each, several a second."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 - whatever the broker's client raises, the next one is tried
            if not self._cannot_send:
                words = "Beat cannot send %s: %s. It goes on trying; meanwhile workers look for due deliveries themselves, and pruning and replays wait."
                logger.warning(words, entry.name, " ".join(str(error).split())[:300])
            self._cannot_send = True
        else:
            if self._cannot_send:
                logger.warning("Beat can send again.")
            self._cannot_send = False

    def setup_schedule(self) -> None:
        # Told to end while it starts, beat makes a second scheduler, in the signal's handler, to save the schedule of: there is none
        # yet, and the first one's connection may be in any state.
        if PatientScheduler._starting:
            raise SystemExit
        PatientScheduler._starting = True
        try:
            _wait_for_database()
            versions.check()
            super().setup_schedule()
        finally:
            PatientScheduler._starting = False


def _wait_for_database() -> None:
    said = False
    while True:
        try:
            connection.ensure_connection()
        except (OperationalError, InterfaceError) as error:
            if not said:
                logger.warning("The database cannot be used; beat waits for it before it starts. %s", str(error).strip())
            said = True
            sleep(_LOOK_EVERY_S)
        else:
            return
