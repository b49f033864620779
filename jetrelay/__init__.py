"""Jetrelay: events in, signed webhooks out."""

__version__ = "0.2.0"

# Imported with the package, as Celery asks, so that every process sends its wakes to the configured broker.
from jetrelay.celery import app as celery_app

__all__ = ["__version__", "celery_app"]
