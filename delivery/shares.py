"""Shares: who may take how much of something that there is a fixed number of, while others may come.

The rule is one sentence: whoever wants more may have it while they hold fewer than are free.

    100 places, one greedy tenant:  50 are theirs, 50 are free for whoever comes next
    100 places, two greedy ones:    33 each, 34 are free
    a tenant that holds nothing:    gets a place as long as there is one

Nothing has to be known of who will come, nothing is set aside by name, and what is given is never taken back: a share
shrinks as its holder gives back. (Choudhury and Hahne, "Dynamic queue length thresholds", 1998, with alpha 1.)
Pure, and not thread-safe: whoever shares it between threads brings a lock.
"""

from collections.abc import Hashable


class Shares:
    """`total` of something, as a number of places, rows or bytes."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.free = total
        self._held: dict[Hashable, float] = {}

    def held(self, who: Hashable) -> float:
        return self._held.get(who, 0)

    def may_take(self, who: Hashable, amount: float = 1) -> bool:
        """Whether `who` may have so much more: with it they hold no more than is free now. Who holds nothing may have all of that."""
        return self._held.get(who, 0) + amount <= self.free

    def room(self, who: Hashable) -> int:
        """How many more `who` may take one by one: half of what is free, if they hold nothing."""
        return max(0, int(self.free + 1 - self._held.get(who, 0)) // 2)

    def take(self, who: Hashable, amount: float = 1) -> None:
        """Count what `who` takes, whether they may or not: what must not wait is counted too."""
        self._held[who] = self._held.get(who, 0) + amount
        self.free -= amount

    def give_back(self, who: Hashable, amount: float = 1) -> None:
        """Count what `who` has given back. Those who hold nothing are forgotten."""
        left = self._held[who] - amount
        if left:
            self._held[who] = left
        else:
            del self._held[who]
        self.free += amount
