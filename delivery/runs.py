"""The claims of an ordered endpoint: of each subject the run that is next. See `order.py`.

What has become due since the last look names the subjects to look at; so does a subject of which something was taken, once that is settled.
Whichever of a subject's deliveries was found, its run is read from the first one on: the database says what is next, never what is remembered
here. A subject whose first is not due is let go of: it is found when that becomes due.

Besides, all subjects are looked at in turn, by their keys, with rests: nothing is forgotten for good. They are digests, so that a part of
the keys is about as large a part of the index, with all the entries of what was settled that nobody could clean up yet.
"""

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from uuid import UUID

from delivery.claims import BEGINNING, FIRST_SHARE, LATE_COMMITS, MAX_SHARE, Owned, Position, behind
from delivery.engines.base import Due, Head, Subjects, Want
from delivery.looking_back import Slice
from delivery.order import BEFORE_ALL, LAST_KEY

# How many subjects are looked at in one go, and how long a run of one is claimed, at least and at most.
SUBJECTS = 256
MIN_RUN, MAX_RUN = 16, 512
# Deliveries that are asked who has news, in one go; and subjects that may wait to be looked at.
NEWS, MOST_LEADS = 1000, 1000
# After a look at subjects in turn, rest for so many times as long as that took: thousands that wait for a retry cost a fiftieth of the time at most.
REST_FACTOR = 50
# The least rest after all of them, and what a look at some may take at about.
ROUND_S, LOOK_S = 1.0, 0.02
_NARROWEST = (LAST_KEY - BEFORE_ALL) >> 20


@dataclass
class Round:
    """All subjects in turn, by key; as many as there are in a part of all keys at a time."""

    # Anywhere at first: a turn may end before all are seen, and the next one must not begin with the same.
    after_key: int = field(default_factory=lambda: random.randrange(BEFORE_ALL, LAST_KEY))
    width: int = LAST_KEY - BEFORE_ALL
    rest_until: float = field(default_factory=lambda: monotonic() + ROUND_S)
    began: float = 0.0

    @property
    def until_key(self) -> int:
        return min(self.after_key + self.width, LAST_KEY)

    def begin(self) -> None:
        self.began = monotonic()

    def end(self, last_key: int | None) -> None:
        """Up to `last_key` all were seen; None: all of this part were."""
        took_s = monotonic() - self.began
        # Of what nobody has taken anything, the next part is due as soon.
        self.after_key = self.until_key if last_key is None else last_key
        if took_s > LOOK_S:
            self.width = max(self.width // 2, _NARROWEST)
        elif took_s < LOOK_S / 4:
            self.width = min(self.width * 2, LAST_KEY - BEFORE_ALL)
        whole = self.after_key >= LAST_KEY
        if whole:
            self.after_key = BEFORE_ALL
        self.rest_until = monotonic() + max(took_s * REST_FACTOR, ROUND_S if whole else 0.0)


@dataclass
class RunClaims:
    share: int = FIRST_SHARE
    fitting: int = MAX_SHARE
    exhausted: bool = True
    position: Position = BEGINNING
    # Subjects to look at, and those that there is more of than was taken; and since when they are due.
    leads: dict[int, datetime] = field(default_factory=dict)
    taken: dict[int, datetime] = field(default_factory=dict)
    round: Round = field(default_factory=Round)
    run: int = MIN_RUN
    asked: Want | Head | Subjects | None = None
    has_leads: bool = False
    # Whether all news was seen, at the last look.
    up_to_date: bool = False

    @property
    def standing(self) -> Position:
        return min((self.position, *(behind(due_at) for due_at in (*self.leads.values(), *self.taken.values()))))

    def rewind(self, to: datetime) -> None:
        self.position = min(self.standing, behind(to))
        self.leads, self.taken, self.up_to_date = {}, {}, False

    def want(self, endpoint: UUID, most: int, owned: Owned) -> Want | Head | Subjects | None:
        # Deliveries from before the endpoint was ordered, still on their way: their subjects are not known here.
        if None in owned.values():
            return None
        busy = set(owned.values())
        for key in self.taken.keys() - busy:
            self.leads.setdefault(key, self.taken.pop(key))
        ready = [key for key in self.leads if key not in busy]
        if monotonic() >= self.round.rest_until:
            self.round.begin()
            self.asked = Head(endpoint, self.round.after_key, SUBJECTS, self.run, self.round.until_key)
        elif ready and (isinstance(self.asked, Want) or len(self.leads) >= MOST_LEADS):
            self.asked = Subjects(endpoint, tuple(ready[:SUBJECTS]), self.run)
        elif len(self.leads) < MOST_LEADS:
            self.asked = Want(endpoint, min(NEWS, 4 * most), *self.position)
        else:
            return None
        return self.asked

    def choose(self, found: Sequence[Due], most: int, owned: Owned, now: datetime) -> Sequence[Due]:
        """Of each subject that nothing is on its way of, what is due without a break from its first delivery on."""
        busy, self.has_leads = set(owned.values()), False
        if isinstance(self.asked, Want):
            self._take_news(found, self.asked.most, owned, now)
            self.has_leads = not self.leads.keys() <= busy
            return []
        chosen, seen = _runs(found, most, busy, now)
        subjects = list(dict.fromkeys(due.order_key for due in found if due.order_key is not None))
        if len(chosen) >= most:
            self.share *= 2
        if isinstance(self.asked, Subjects):
            for key in {*self.asked.keys} - set(subjects[seen:]):
                self.leads.pop(key, None)
        else:
            self.round.end(subjects[seen - 1] if seen < len(subjects) or len(subjects) == SUBJECTS else None)
        self._note(found, chosen)
        self.run = max(MIN_RUN, min(MAX_RUN, MAX_SHARE // max(1, len(subjects))))
        self.exhausted = self.up_to_date and self.leads.keys() <= busy
        return chosen

    def _note(self, found: Sequence[Due], chosen: Sequence[Due]) -> None:
        """Those of the subjects are to be looked at again of which more is due than was taken, or was read."""
        read, took = (Counter(due.order_key for due in dues) for dues in (found, chosen))
        for due in chosen:
            key = due.order_key
            if key is None:
                continue
            self.leads.pop(key, None)
            if read[key] > took[key] or read[key] >= self.run:
                self.taken[key] = min(due.due_at, self.taken.get(key, due.due_at))

    def _take_news(self, found: Sequence[Due], asked: int, owned: Owned, now: datetime) -> None:
        known = len(self.leads)
        self._follow(found, owned)
        self.up_to_date = len(found) < asked
        self.position = behind(now - LATE_COMMITS) if self.up_to_date else (found[-1].due_at, found[-1].id)
        # What was found of subjects that are known already is no reason to go on at once.
        self.exhausted = self.up_to_date or len(self.leads) == known

    def _follow(self, found: Sequence[Due], owned: Owned) -> None:
        for due in found:
            if due.order_key is not None and due.id not in owned:
                self.leads.setdefault(due.order_key, due.due_at)

    def look_back(self, endpoint: UUID, slice: Slice, owned: Owned) -> Want | None:
        """Some of it: whatever waits for another one of its subject is found again each time. The others are found in their turn."""
        return Want(endpoint, SUBJECTS, *behind(slice.since)) if behind(slice.since) < self.position else None

    def seen(self, found: Sequence[Due], owned: Owned) -> None:
        if len(self.leads) < MOST_LEADS:
            self._follow(found, owned)


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
