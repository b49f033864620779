"""Shares for those who come from outside: tenants, people, and strangers, of whom no more is known than an address."""

import threading
from typing import NamedTuple

from delivery.shares import Shares


class Asker(NamedTuple):
    """Who asks: `kind` and `id` say who, and of a stranger no more is known than an address."""

    kind: str
    id: str
    stranger: bool = False


class GuardedShares:
    """Shares of which all strangers together hold no more than one asker, half: whoever has many addresses is still one of many.

    Thread-safe.
    """

    def __init__(self, total: int) -> None:
        self._all, self._strangers = Shares(total), Shares(total // 2)
        self._lock = threading.Lock()

    def take(self, asker: Asker, amount: int = 1) -> bool:
        """Take this much. False, and nothing taken, if it is more than a share."""
        with self._lock:
            who = _STRANGERS if asker.stranger else asker
            if not self._all.may_take(who, amount) or (asker.stranger and not self._strangers.may_take(asker, amount)):
                return False
            self._all.take(who, amount)
            if asker.stranger:
                self._strangers.take(asker, amount)
            return True

    def give_back(self, asker: Asker, amount: int = 1) -> None:
        with self._lock:
            self._all.give_back(_STRANGERS if asker.stranger else asker, amount)
            if asker.stranger:
                self._strangers.give_back(asker, amount)

    def held(self, asker: Asker) -> float:
        """How much this one has; a stranger, of those that all strangers have."""
        return self._strangers.held(asker) if asker.stranger else self._all.held(asker)

    @property
    def free(self) -> float:
        return self._all.free


_STRANGERS = "strangers"
