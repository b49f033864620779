"""Logs: every line of every process in one form, with no secret in it.

    settings.LOGGING          what logs what, and how much of it: `settings.py`
    LOGGING_CONFIG            names `configure`, which Django calls with it
    jetrelay.logs.rendering   a record becomes a line
    jetrelay.logs.masking     what is hidden in it
    jetrelay.logs.repeats     what is said again and again is counted instead
    jetrelay.logs.stream      where it goes
    jetrelay.logs.requests    the id of a request, and a line for each if that is wanted
    jetrelay.logs.tasks       the id of a task; what Celery prints

A line for each attempt is made by `delivery/attempt_log.py`.
"""

import logging
import logging.config
import os
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import structlog

from jetrelay.logs import masking

FORMS = ("console", "json")


def configure(logging_settings: Mapping[str, Any]) -> None:
    """Set up logging as `settings.LOGGING` has it, structlog behind it, and what Python itself prints."""
    logging.config.dictConfig(dict(logging_settings))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    # Who has set hooks of their own, as test runners do, keeps them.
    if sys.excepthook is sys.__excepthook__ or sys.excepthook.__module__ == "jetrelay.celery":
        sys.excepthook = _ended_by
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_ended_by


def coloured() -> bool:
    """Whether stderr is a terminal, and its owner has not asked for no colours (https://no-color.org)."""
    return sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def know_secrets(*values: str, urls: tuple[str, ...] = ()) -> None:
    """What this process knows and must not log: these values, and the passwords in these URLs."""
    masking.know([*values, *(secret for url in urls for secret in masking.secrets_in_url(url))])


def _ended_by(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("jetrelay").critical("The process ends with an error.", exc_info=(kind, error, trace))


def _thread_ended_by(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread else "?"
        logging.getLogger("jetrelay").error("The thread %s has ended with an error.", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
