"""Celery's part: it logs as everybody does, and its tasks' ids are in the lines that are logged while they run."""

import os
import select
import sys
from typing import Any

from celery.apps import worker
from celery.signals import setup_logging, task_postrun, task_prerun
from django.conf import settings
from structlog.contextvars import bind_contextvars, unbind_contextvars

from jetrelay import logs
from jetrelay.logs import rendering


@setup_logging.connect
def set_up(**_: object) -> None:
    """That somebody listens keeps Celery from setting up handlers, formats and levels of its own."""
    logs.configure(settings.LOGGING)
    worker.safe_say = _say


@task_prerun.connect
def bind(task_id: str = "", task: Any = None, **_: object) -> None:
    bind_contextvars(task=getattr(task, "name", ""), task_id=task_id)


@task_postrun.connect
def unbind(**_: object) -> None:
    unbind_contextvars("task", "task_id")


def _say(message: object, _stream: object = None) -> None:
    """What a worker says when a signal comes. In the signal's handler: no lock may be waited for, and nobody who does not read."""
    line = rendering.plain("info", "celery.worker", str(message)) if settings.JETRELAY_LOG_FORMAT == "json" else str(message)
    descriptor = sys.__stderr__.fileno() if sys.__stderr__ else 2
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    try:
        # A pipe that can be written to has room for a line.
        if poll.poll(0):
            os.write(descriptor, f"{line}\n".encode())
    except OSError:
        pass
