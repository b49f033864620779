"""The product's settings for `bench soak`, but what is over goes after minutes: retention is set in whole days, and a soak has no days.

All of the product's processes run with these, so it is the worker's own pruning, started by beat, that deletes: at the pace at which
events come, from the moment the first of them are over.
"""

import os

from jetrelay.settings import *  # noqa: F403
from jetrelay.settings import CELERY_BEAT_SCHEDULE

KEEP_S = float(os.environ["SOAK_KEEP_S"])
JETRELAY_RETENTION_DAYS = KEEP_S / 86_400  # type: ignore[assignment]
CELERY_BEAT_SCHEDULE["prune"]["schedule"] = max(1.0, min(10.0, KEEP_S / 4))
