"""A share of something that there is only so much of, for each who asks: one of them may take one more only while it holds fewer than are free.

    alone                  half                  (of 12 places: 6)
    two, as many as can    a third each          (4 and 4, and 4 are free)
    n                      1 / (n + 1) each      (and as much is free for whoever comes next)

So nobody has to be told what their share is, nobody has to be sent away when others come, and the last free place is only ever
given to somebody who holds none. (In switches, where many ports share one memory, this is known as a dynamic threshold.)
"""

import threading
from collections.abc import Hashable
from typing import NamedTuple


class Shares:
    """So many places, or bytes, or whatever is counted. Every call costs the same, however many hold something; who holds nothing is forgotten."""

    def __init__(self, total: int) -> None:
        self.total = self._free = total
        self._held: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def take(self, who: Hashable, amount: int = 1) -> bool:
        """Take this much, if `who` then holds no more than was free. False, and nothing taken, if not."""
        with self._lock:
            held = self._held.get(who, 0) + amount
            if held > self._free:
                return False
            self._held[who] = held
            self._free -= amount
            return True

    def give_back(self, who: Hashable, amount: int = 1) -> None:
        with self._lock:
            held = self._held[who] - amount
            if held < 0:
                raise ValueError(f"{who!r} gives back {amount}, and holds {held + amount}")
            self._free += amount
            if held:
                self._held[who] = held
            else:
                del self._held[who]

    @property
    def free(self) -> int:
        return self._free

    def held(self, who: Hashable) -> int:
        return self._held.get(who, 0)

    def __len__(self) -> int:
        """How many hold something."""
        return len(self._held)


class Asker(NamedTuple):
    """Who asks: `kind` and `id` say who, and of a stranger no more is known than an address."""

    kind: str
    id: str
    stranger: bool = False


class GuardedShares:
    """Shares of which all strangers together hold no more than one asker, half: whoever has many addresses is still one of many."""

    def __init__(self, total: int) -> None:
        self._all, self._strangers = Shares(total), Shares(total // 2)

    def take(self, asker: Asker, amount: int = 1) -> bool:
        if not asker.stranger:
            return self._all.take(asker, amount)
        if not self._strangers.take(asker, amount):
            return False
        if self._all.take(_STRANGERS, amount):
            return True
        self._strangers.give_back(asker, amount)
        return False

    def give_back(self, asker: Asker, amount: int = 1) -> None:
        if asker.stranger:
            self._strangers.give_back(asker, amount)
        self._all.give_back(_STRANGERS if asker.stranger else asker, amount)

    @property
    def free(self) -> int:
        return self._all.free


_STRANGERS = "strangers"
