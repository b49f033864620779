"""Where a line's claims stand: what to ask the database for next, and what of the answer to take.

`LooseClaims` goes through an endpoint's due deliveries, oldest first. For an ordered endpoint there is `RunClaims`, in `runs.py`. Both go on
where they ended, and skip what is claimed already: it is still pending in the database. What lies below is looked for by `looking_back.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from delivery.engines.base import Due, Head, Subjects, Want
from delivery.looking_back import DAWN, Slice

# Deliveries of one endpoint that are claimed ahead, and the bytes of their bodies.
FIRST_SHARE = 64
MAX_SHARE = 1000
MAX_SHARE_BYTES = 16 * 1024 * 1024

LATE_COMMITS = timedelta(milliseconds=250)

_FIRST = UUID(int=0)

# Behind a moment and an id: the order in which what is due is claimed.
Position = tuple[datetime, UUID]
BEGINNING: Position = (DAWN, _FIRST)

# Ids that are claimed and not yet settled, and their subjects if the endpoint is ordered.
Owned = Mapping[UUID, int | None]


class Claims(Protocol):
    # How much is claimed ahead: little at first, twice as much each time there was more.
    share: int
    # The most that fits into memory, by the size of what came last.
    fitting: int
    # Whether the last claim found all there is.
    exhausted: bool

    @property
    def has_leads(self) -> bool:
        """Whether what was found last says where to look at once."""
        ...

    def rewind(self, to: datetime) -> None:
        """Start again from there, or from where it stands if that is earlier; for what was claimed has been given back."""
        ...

    def want(self, endpoint: UUID, most: int, owned: Owned) -> Want | Head | Subjects | None:
        """What to look for, to take `most` of it."""
        ...

    def choose(self, found: Sequence[Due], most: int, owned: Owned, now: datetime) -> Sequence[Due]:
        """What to take of what was found for the last `want`. The next one goes on from there."""
        ...

    def look_back(self, endpoint: UUID, slice: Slice, owned: Owned) -> Want | None:
        """What to look for among that is due in a slice of the past; `seen` is told what there was."""
        ...

    def seen(self, found: Sequence[Due], owned: Owned) -> None: ...


def fitting_share(count: int, size: int) -> int:
    """How much may be claimed ahead if bodies are as large as the last ones: so many, in bytes together."""
    return max(1, min(MAX_SHARE, int(MAX_SHARE_BYTES / (size / count + 1))))


@dataclass
class LooseClaims:
    share: int = FIRST_SHARE
    fitting: int = MAX_SHARE
    exhausted: bool = True
    position: Position = BEGINNING
    # Whether what is owned already may lie behind the position.
    rewound: bool = True
    asked: int = 0
    has_leads: bool = False

    def rewind(self, to: datetime) -> None:
        self.position, self.rewound = min(self.position, behind(to)), True

    def want(self, endpoint: UUID, most: int, owned: Owned) -> Want | None:
        # After a rewind, rows that are owned already may come first: they are asked for too, and skipped.
        self.asked = most + (len(owned) if self.rewound else 0)
        return Want(endpoint, self.asked, *self.position)

    def choose(self, found: Sequence[Due], most: int, owned: Owned, now: datetime) -> Sequence[Due]:
        self.exhausted = len(found) < self.asked
        if not self.exhausted:
            self.share *= 2
        # Where all has been seen, only what is newer is looked at, or a hundred requests that hang would be read forty
        # times a second. The margin is for commits that come a little late; what is later still is found by looking back.
        self.position = behind(now - LATE_COMMITS) if self.exhausted else (found[-1].due_at, found[-1].id)
        self.rewound = False
        return [due for due in found if due.id not in owned]

    def look_back(self, endpoint: UUID, slice: Slice, owned: Owned) -> Want | None:
        # Whatever lies ahead is found in its turn.
        return Want(endpoint, len(owned) + 1, *behind(slice.since)) if behind(slice.since) < self.position else None

    def seen(self, found: Sequence[Due], owned: Owned) -> None:
        missed = next((due for due in found if due.id not in owned), None)
        if missed:
            self.rewind(missed.due_at)


def behind(moment: datetime) -> Position:
    """Before all that is due at a moment."""
    return moment, _FIRST
