"""Counting attempts between two settlements, for the tally rows."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from delivery.engines import engine
from delivery.models import AttemptTally
from delivery.retry import Outcome


class AttemptCounter:
    """Counts and histogram of one settlement, by (endpoint, outcome)."""

    def __init__(self) -> None:
        self._counts: dict[tuple[UUID, str], dict[str, float]] = {}

    def add(self, endpoint: UUID, outcome: Outcome, ms: float) -> None:
        counts = self._counts.setdefault((endpoint, outcome.value), {"attempts": 0, "total_ms": 0.0})
        bucket = AttemptTally.bucket(ms)
        counts["attempts"] += 1
        counts["total_ms"] += ms
        counts[bucket] = counts.get(bucket, 0) + 1

    def save(self, minute: datetime) -> None:
        """Add to the rows of this minute, in the caller's transaction."""
        counts: Mapping[tuple[UUID, str], Mapping[str, float]] = self._counts
        engine().add_attempt_tallies(minute, counts)
