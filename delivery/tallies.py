"""Counting attempts between two settlements, for the tally rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from delivery.engines import engine
from delivery.models import AttemptTally
from delivery.retry import Outcome


class AttemptCounter:
    """Counts and histogram of one settlement, by (endpoint, outcome)."""

    def __init__(self) -> None:
        self._durations: dict[tuple[UUID, Outcome], list[float]] = {}

    def add(self, endpoint: UUID, outcome: Outcome, ms: float) -> None:
        self._durations.setdefault((endpoint, outcome), []).append(ms)

    def save(self, minute: datetime) -> None:
        """Add to the rows of this minute, in the caller's transaction."""
        engine().add_attempt_tallies(minute, {(endpoint, outcome.value): _counts(ms) for (endpoint, outcome), ms in self._durations.items()})


def _counts(durations: Sequence[float]) -> Mapping[str, float]:
    return {"attempts": len(durations), "total_ms": sum(durations), **Counter(map(AttemptTally.bucket, durations))}
