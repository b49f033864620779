"""The Celery application: `celery -A jetrelay worker`, `celery -A jetrelay beat`."""

import os
import sys
from types import TracebackType

from celery import Celery
from celery.signals import worker_init
from django.core.exceptions import ImproperlyConfigured

from jetrelay import filebroker

# As `manage.py` does: what a worker or beat writes is nobody else's.
os.umask(0o077)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")


def _ended_by(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A wrong setting ends every program in a line, Celery's and the server's too (`manage.py` has its own words)."""
    if issubclass(kind, ImproperlyConfigured):
        sys.stderr.write(f"jetrelay: {error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


# Until logs are set up, which have a hook of their own.
if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _ended_by

filebroker.register()
app = Celery("jetrelay")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["delivery"])

from jetrelay.logs import tasks  # noqa: E402, F401 - listens to Celery from here on


@worker_init.connect
def check_database(**_: object) -> None:
    """A worker of another version than its database's does not start."""
    # Not at the top: it wants the apps, which this package is imported before.
    from subscriptions import versions

    versions.check()
