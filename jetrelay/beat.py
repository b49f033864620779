"""Beat's scheduler: the database's, which is waited for when it is away at the start.

Without this beat ends, and whoever starts it again waits longer each time, and the retries with it.
"""

import logging
from time import sleep
from typing import ClassVar

from django.db import InterfaceError, OperationalError, connection
from django_celery_beat.schedulers import DatabaseScheduler

logger = logging.getLogger(__name__)

# Between two looks at a database that is away.
_LOOK_EVERY_S = 1.0


class PatientScheduler(DatabaseScheduler):  # type: ignore[misc] # carries no types
    """A database that goes away later is beat's own to survive, and it does."""

    _starting: ClassVar[bool] = False

    def setup_schedule(self) -> None:
        # Told to end while it starts, beat makes a second scheduler, in the signal's handler, to save the schedule of: there is none
        # yet, and the first one's connection may be in any state.
        if PatientScheduler._starting:
            raise SystemExit
        PatientScheduler._starting = True
        try:
            _wait_for_database()
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
