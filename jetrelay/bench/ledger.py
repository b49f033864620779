"""What the tables of a benchmark's own database say."""

import sqlite3
from datetime import datetime
from typing import Any

import psycopg


class Ledger:
    """Reads the counts and times of a run. The database is another one than Django's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.delivered = self.attempts = 0
        self.seconds = self.stored_seconds = 0.0

    def read(self) -> None:
        """Take the figures as they are now."""
        (self.delivered,) = self._one("SELECT count(*) FROM delivery_delivery WHERE state = 1")
        (self.attempts,) = self._one("SELECT count(*) FROM delivery_attempt")
        began, stored, settled = self._one(
            "SELECT (SELECT min(connected_since) FROM delivery_streamcursor), (SELECT max(received_at) FROM delivery_event),"
            " (SELECT max(settled_at) FROM delivery_delivery)"
        )
        if began and stored and settled:
            self.seconds, self.stored_seconds = _seconds(began, settled), _seconds(began, stored)

    def _one(self, sql: str) -> Any:
        if self._url.startswith("sqlite"):
            with sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=30) as connection:
                return connection.execute(sql).fetchone()
        with psycopg.connect(self._url) as server:
            return server.execute(sql).fetchone()


def _seconds(start: Any, end: Any) -> float:
    if isinstance(start, str):
        start, end = datetime.fromisoformat(start), datetime.fromisoformat(end)
    return float((end - start).total_seconds())
