"""What the tables of a benchmark's own database say."""

import sqlite3
from datetime import datetime
from typing import Any

import psycopg


class Ledger:
    """Reads the counts and times of a run. The database is another one than Django's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.delivered = self.attempts = self.owed = self.stored = 0
        self.seconds = self.stored_seconds = 0.0

    def read(self) -> None:
        """Take the figures as they are now."""
        (self.delivered,) = self.one("SELECT count(*) FROM delivery_delivery WHERE state = 1")
        (self.owed,) = self.one("SELECT count(*) FROM delivery_delivery WHERE state = 0")
        (self.attempts,) = self.one("SELECT count(*) FROM delivery_attempt")
        began, stored, settled = self.one(
            "SELECT (SELECT min(connected_since) FROM delivery_streamhost), (SELECT max(received_at) FROM delivery_event),"
            " (SELECT max(settled_at) FROM delivery_delivery)"
        )
        if began and stored:
            self.stored_seconds = _seconds(began, stored)
        if began and settled:
            self.seconds = _seconds(began, settled)

    def count_stored(self) -> int:
        """How many events are stored, and owed to the one endpoint there is, by the tallies: cheap at any size."""
        (self.stored,) = self.one("SELECT coalesce(sum(stored), 0) FROM delivery_eventtally")
        return int(self.stored)

    def one(self, sql: str) -> Any:
        """The first row of a query's answer."""
        if self._url.startswith("sqlite"):
            with sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=30) as connection:
                return connection.execute(sql).fetchone()
        with psycopg.connect(self._url) as server:
            return server.execute(sql).fetchone()


def _seconds(start: Any, end: Any) -> float:
    if isinstance(start, str):
        start, end = datetime.fromisoformat(start), datetime.fromisoformat(end)
    return float((end - start).total_seconds())
