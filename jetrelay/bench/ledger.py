"""What the tables of a benchmark's own database say."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import psycopg
from django.core.management.base import CommandError


class Stay(NamedTuple):
    """How long deliveries took from being stored to being settled, in rising order; and all of them from first to last."""

    ms: list[float]
    seconds: float


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

    def count_owed(self, group: str) -> int:
        """How many deliveries are pending at the endpoints of this group, or at the one of this name."""
        endpoints = "SELECT id FROM subscriptions_endpoint WHERE name = %s OR name LIKE %s"
        (owed,) = self.one(f"SELECT count(*) FROM delivery_delivery WHERE state = 0 AND endpoint_id IN ({endpoints})", group, f"{group}-%")  # noqa: S608
        return int(owed)

    def stay(self, origin: str) -> Stay:
        """Of the deliveries of events with this origin. Raises CommandError where one was not delivered, or there are none."""
        return self._stay(
            "SELECT delivery.created_at, delivery.settled_at, delivery.state FROM delivery_delivery AS delivery"
            " JOIN delivery_event AS event ON event.id = delivery.event_id WHERE event.origin = %s",
            origin,
        )

    def stay_of_all(self) -> Stay:
        """Of all deliveries. Raises CommandError where one was not delivered, or there are none."""
        return self._stay("SELECT created_at, settled_at, state FROM delivery_delivery")

    def stay_since(self, first: Any) -> Stay:
        """Of the deliveries with this id (as the database keeps it) and later ones. Raises CommandError as `stay` does."""
        return self._stay("SELECT created_at, settled_at, state FROM delivery_delivery WHERE id >= %s", first)

    def _stay(self, sql: str, *parameters: Any) -> Stay:
        rows = self.all(sql, *parameters)
        if not rows or any(state != 1 for *_, state in rows):
            raise CommandError(f"{sum(state == 1 for *_, state in rows)} of {len(rows)} deliveries were delivered; it should be all.")
        ms = sorted(_seconds(created, settled) * 1000 for created, settled, _ in rows)
        return Stay(ms, _seconds(min(row[0] for row in rows), max(row[1] for row in rows)))

    def wait_until_sent(self, group: str, patience_s: float, log: Path) -> None:
        """Wait until nothing is owed to the group. Raises CommandError with the log after so long without progress."""
        last, since = -1, monotonic()
        while owed := self.count_owed(group):
            if owed != last:
                last, since = owed, monotonic()
            if monotonic() - since > patience_s:
                raise CommandError(f"{owed} deliveries are left, and it gets no further:\n{log.read_text(errors='replace')[-3000:]}")
            sleep(0.2)

    def one(self, sql: str, *parameters: Any) -> Any:
        """The first row of a query's answer."""
        return next(iter(self.all(sql, *parameters)), None)

    def all(self, sql: str, *parameters: Any) -> Sequence[Any]:
        """The rows of a query's answer."""
        if self._url.startswith("sqlite"):
            with sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=30) as connection:
                return connection.execute(sql.replace("%s", "?"), parameters).fetchall()
        with psycopg.connect(self._url) as server:
            return server.execute(sql, parameters or None).fetchall()


def _seconds(start: Any, end: Any) -> float:
    if isinstance(start, str):
        start, end = datetime.fromisoformat(start), datetime.fromisoformat(end)
    return float((end - start).total_seconds())
