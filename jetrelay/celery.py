"""The Celery application: `celery -A jetrelay worker`, `celery -A jetrelay beat`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")

app = Celery("jetrelay")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["delivery"])
