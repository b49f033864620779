"""How far a replay has come, how fast it goes and how long it may take. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from delivery.models import Replay
from jetrelay.dashboard import words

# A worker takes a replay up within two seconds of being free.
SOON = timedelta(seconds=30)
# Before that a rate is a guess.
_LEAST = timedelta(seconds=2)


@dataclass(frozen=True)
class Progress:
    """`share` is from 0 to 1; None where nobody knows how many there are."""

    handled: int
    share: float | None
    rate_per_s: float | None
    left: timedelta | None
    # What to tell whoever waits.
    words: str

    @property
    def percent(self) -> int | None:
        """For the bar. A share short of all is not rounded up to all."""
        return None if self.share is None else int(self.share * 100)


def progress(replay: Replay, now: datetime) -> Progress:
    handled = replay.done + replay.skipped
    took = (replay.ended_at or now) - replay.created_at
    rate = handled / took.total_seconds() if handled and took >= _LEAST else None
    if not replay.running:
        share = 1.0 if replay.state == Replay.State.FINISHED else _share(replay, handled)
        return Progress(handled, share, rate, None, f"took {words.duration(took)}" if handled else "")
    left = _left(replay, handled, rate)
    return Progress(handled, _share(replay, handled), rate, left, _words(replay, left, took))


def _share(replay: Replay, handled: int) -> float | None:
    if replay.expected_more:
        return None
    return min(1.0, handled / replay.expected) if replay.expected else 0.0


def _left(replay: Replay, handled: int, rate: float | None) -> timedelta | None:
    """As long as it will take at its pace; without one, at the rate so far."""
    pace = min(filter(None, (replay.rate_per_s, rate if not replay.rate_per_s else None)), default=None)
    if not pace or replay.expected_more:
        return None
    return timedelta(seconds=min(max(0, replay.expected - handled) / pace, 10 * 365 * 86_400))


def _words(replay: Replay, left: timedelta | None, took: timedelta) -> str:
    if not replay.looked_at:
        return "no worker has taken it up yet: is one running?" if took > SOON else "a worker takes it up within seconds"
    if left is not None:
        return f"about {words.duration(left)} left" if left >= timedelta(seconds=1) else "nearly done"
    return "there are more than were counted: how long it takes cannot be told" if replay.expected_more else ""
