"""The Celery application: `celery -A jetrelay worker`, `celery -A jetrelay beat`."""

import os

from celery import Celery

from jetrelay import filebroker

# As `manage.py` does: what a worker or beat writes is nobody else's.
os.umask(0o077)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")

filebroker.register()
app = Celery("jetrelay")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["delivery"])

from jetrelay.logs import tasks  # noqa: E402, F401 - listens to Celery from here on
