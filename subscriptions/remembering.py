"""What was read from the database a moment ago, for those who ask thousands of times a second."""

from collections.abc import Hashable
from contextlib import suppress
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Values that are good for so many seconds. Past half of that, one who asks is sent to look again, while the others go on with what there is.

    Nothing is kept of a key that is not there, whoever asks for it. Beyond `most` values, what was kept for longest goes.
    """

    def __init__(self, good_s: float, most: int = 10_000) -> None:
        self.good_s, self.most = good_s, most
        self._values: dict[K, tuple[float, V]] = {}
        # Those that somebody was sent to look for.
        self._looked_for: dict[K, float] = {}

    def fresh(self, key: K) -> V | None:
        """What was kept within half of the time."""
        at, value = self._values.get(key, (0.0, None))
        return value if monotonic() - at <= self.good_s / 2 else None

    def known(self, key: K) -> V | None:
        """What is still good; None as well for the one who is to look again."""
        at, value = self._values.get(key, (0.0, None))
        age_s = monotonic() - at
        if value is None:
            return None
        if age_s > self.good_s or (age_s > self.good_s / 2 and self._looked_for.get(key) != at):
            self._looked_for[key] = at
            return None
        return value

    def keep(self, key: K, value: V) -> None:
        # At the end, so that the first is always the oldest.
        self._values.pop(key, None)
        self._values[key] = monotonic(), value
        # Other threads keep and take away as well.
        while len(self._values) > self.most:
            with suppress(StopIteration, RuntimeError):
                oldest = next(iter(self._values))
                self._values.pop(oldest, None)
                self._looked_for.pop(oldest, None)

    def clear(self) -> None:
        self._values.clear()
        self._looked_for.clear()
