"""Where a line's claims stand: what to ask the database for next, and what of the answer to take.

`LooseClaims` goes through an endpoint's due deliveries, oldest first. `RunClaims` goes from subject to subject, for an
ordered endpoint (see `order.py`). Both skip what is claimed already: it is still pending in the database.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Protocol
from uuid import UUID

from delivery.engines.base import Due, Head, Want
from delivery.order import BEFORE_ALL, LAST_KEY

# Deliveries of one endpoint that are claimed ahead, and the bytes of their bodies.
FIRST_SHARE = 64
MAX_SHARE = 1000
MAX_SHARE_BYTES = 16 * 1024 * 1024

LATE_COMMITS = timedelta(milliseconds=250)

# How many subjects are looked at in one go, and how long a run of one is claimed, at least and at most.
SUBJECTS = 256
MIN_RUN, MAX_RUN = 16, 512
# Having seen all subjects, rest for so many times as long as that took: thousands that wait for a retry cost a tenth of a core at most.
REST_FACTOR = 10

_FIRST = UUID(int=0)
_BEGINNING = (datetime.min.replace(tzinfo=UTC), _FIRST)

# Ids that are claimed and not yet settled, and their subjects if the endpoint is ordered.
Owned = Mapping[UUID, int | None]


class Claims(Protocol):
    # How much is claimed ahead: little at first, twice as much each time there was more.
    share: int
    # The most that fits into memory, by the size of what came last.
    fitting: int
    # Whether the last claim found all there is.
    exhausted: bool

    def rewind(self) -> None:
        """Start again from the oldest: a replay, or a commit that came late, may lie behind."""
        ...

    def want(self, endpoint: UUID, most: int, owned: Owned) -> Want | Head | None:
        """What to look for, to take `most` of it."""
        ...

    def choose(self, found: Sequence[Due], most: int, owned: Owned, now: datetime) -> Sequence[Due]:
        """What to take of what was found for the last `want`. The next one goes on from there."""
        ...


def fitting_share(count: int, size: int) -> int:
    """How much may be claimed ahead if bodies are as large as the last ones: so many, in bytes together."""
    return max(1, min(MAX_SHARE, int(MAX_SHARE_BYTES / (size / count + 1))))


@dataclass
class LooseClaims:
    share: int = FIRST_SHARE
    fitting: int = MAX_SHARE
    exhausted: bool = True
    # After a moment and an id.
    position: tuple[datetime, UUID] = _BEGINNING
    asked: int = 0

    def rewind(self) -> None:
        self.position = _BEGINNING

    def want(self, endpoint: UUID, most: int, owned: Owned) -> Want | None:
        # From the beginning, the rows that are owned already come first: they are asked for too, and skipped.
        self.asked = most + (len(owned) if self.position is _BEGINNING else 0)
        return Want(endpoint, self.asked, *self.position)

    def choose(self, found: Sequence[Due], most: int, owned: Owned, now: datetime) -> Sequence[Due]:
        self.exhausted = len(found) < self.asked
        if not self.exhausted:
            self.share *= 2
        # Where all has been seen, only what is newer is looked at, or a hundred requests that hang would be read forty
        # times a second. The margin is for commits that come a little late; what is later still, `rewind` finds.
        self.position = (now - LATE_COMMITS, _FIRST) if self.exhausted else (found[-1].due_at, found[-1].id)
        return [due for due in found if due.id not in owned]


@dataclass
class RunClaims:
    share: int = FIRST_SHARE
    fitting: int = MAX_SHARE
    exhausted: bool = True
    # Anywhere at first: a turn may end before all are seen, and the next one must not begin with the same.
    after_key: int = field(default_factory=lambda: random.randrange(BEFORE_ALL, LAST_KEY))
    # Whether this round began before all.
    whole: bool = False
    run: int = MIN_RUN
    rest_until: float = 0.0
    # What looking at the subjects has taken since the first of them, in seconds; and since when it looks.
    took_s: float = 0.0
    began: float = 0.0

    def rewind(self) -> None:
        """There is nothing to go back for: it comes round to every subject."""

    def want(self, endpoint: UUID, most: int, owned: Owned) -> Head | None:
        # Deliveries from before the endpoint was ordered, still on their way: their subjects are not known here.
        if monotonic() < self.rest_until or None in owned.values():
            return None
        self.began = monotonic()
        return Head(endpoint, self.after_key, SUBJECTS, self.run)

    def choose(self, found: Sequence[Due], most: int, owned: Owned, now: datetime) -> Sequence[Due]:
        """Of each subject that nothing is on its way of, what is due without a break from its first delivery on."""
        subjects = list(dict.fromkeys(due.order_key for due in found))
        chosen, seen = _runs(found, most, set(owned.values()), now)
        if len(chosen) >= most:
            self.share *= 2
        complete = len(subjects) < SUBJECTS and seen == len(subjects)
        self.after_key = BEFORE_ALL if complete else subjects[seen - 1] or 0
        self.run = max(MIN_RUN, min(MAX_RUN, MAX_SHARE // max(1, len(subjects))))
        self.exhausted = complete and self.whole
        self.whole = self.whole or complete
        self.took_s += monotonic() - self.began
        if self.exhausted:
            self.rest_until, self.took_s = monotonic() + self.took_s * REST_FACTOR, 0.0
        return chosen


def _runs(found: Sequence[Due], most: int, busy: Collection[int | None], now: datetime) -> tuple[list[Due], int]:
    """What is due of each subject's run, up to `most`, and how many subjects were looked at for it."""
    chosen, seen = list[Due](), 0
    key, blocked = None, False
    for due in found:
        if due.order_key != key:
            if len(chosen) >= most:
                break
            key, blocked, seen = due.order_key, due.order_key in busy, seen + 1
        blocked = blocked or due.due_at > now or len(chosen) >= most
        if not blocked:
            chosen.append(due)
    return chosen, seen
