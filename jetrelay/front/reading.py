"""Bodies that are under way.

How many at once, for how long, and how much memory they may take together.

All of it happens on the event loop's thread, so nothing here is locked.

- **Places.** Each address has some, and all together have more. Where there is none left, the body
  that has been under way longest gives up its own: one that is on its way takes milliseconds, so
  that is one that dawdles, and of whoever holds the most.
- **Time.** A body has to come at `SLOWEST_BYTES_PER_S`, after a start.
- **Room.** What is longer than a stranger may send takes room of a budget until it is answered, of
  which each owner has a share (`delivery/shares.py`).

A body in chunks says how long it is when it ends. Until then it counts as the longest that it may
become: as a stranger's at first, and from there on as the longest that is taken at its path.
"""

from asyncio import AbstractEventLoop, CancelledError, Future, Task
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from delivery.shares import Shares

# As many as there may be connections, and connections of one address: short bodies take no more than 64 MB together.
PLACES = 4096
PLACES_OF_ONE = 512
START_S = 10.0
SLOWEST_BYTES_PER_S = 64 * 1024
ROOM = 64 * 1024 * 1024
# So many may wait for room, and so long.
WAITING = 256
PATIENCE_S = 10.0


Found = TypeVar("Found")


@dataclass(slots=True, eq=False)
class Body:
    """One that is being read by this task."""

    task: "Task[Any]"
    address: str
    deadline: float
    # Told why, before its task is cancelled.
    give_up: Callable[[str], None]


class Places:
    """Who may have bodies under way."""

    def __init__(self, total: int = PLACES, of_one: int = PLACES_OF_ONE) -> None:
        self._total, self._of_one = total, of_one
        self._taken: dict[str, dict[Body, None]] = {}
        self.count = 0

    def take(self, body: Body) -> None:
        own = self._taken.setdefault(body.address, {})
        own[body] = None
        self.count += 1
        if len(own) > self._of_one:
            self._end(next(iter(own)), "too many bodies from this address are under way")
        elif self.count > self._total:
            most = max(self._taken.values(), key=len)
            self._end(next(iter(most)), "too many bodies are under way")

    def leave(self, body: Body) -> None:
        own = self._taken.get(body.address)
        if own and body in own:
            del own[body]
            self.count -= 1
            if not own:
                del self._taken[body.address]

    def look(self, now: float) -> None:
        """End those that are late."""
        if self.count:
            under_way = [body for own in self._taken.values() for body in own]
            for body in (body for body in under_way if body.deadline < now):
                self._end(body, "it came too slowly")

    def _end(self, body: Body, why: str) -> None:
        self.leave(body)
        body.give_up(why)
        body.task.cancel()


class Room:
    """Memory for long bodies, in bytes."""

    def __init__(self, loop: AbstractEventLoop, total: int = ROOM) -> None:
        self._loop, self._most = loop, total // 2
        self._shares, self._places = Shares(total), Shares(WAITING)
        self._waiting: deque[tuple[Hashable, int, Future[bool]]] = deque()

    async def take(self, owner: Hashable, size: int) -> bool:
        """Wait for as much; False where it does not come free in time.

        A longer body than half of all counts as that.
        """
        size = min(size, self._most)
        if self._shares.may_take(owner, size):
            self._shares.take(owner, size)
            return True
        if not self._places.may_take(owner):
            return False
        self._places.take(owner)
        future: Future[bool] = self._loop.create_future()
        self._waiting.append((owner, size, future))
        timer = self._loop.call_later(PATIENCE_S, settle, future, False)
        try:
            return await future
        except CancelledError:
            # Whoever waited has gone, maybe after it was given and before the task had its turn.
            if not future.cancelled() and future.result():
                self.leave(owner, size)
            raise
        finally:
            timer.cancel()
            self._places.give_back(owner)

    def leave(self, owner: Hashable, size: int) -> None:
        self._give_back(owner, min(size, self._most))

    def shrink(self, owner: Hashable, size: int, left: int) -> None:
        """Give back what is too much of `size`, when no more than `left` of it is needed."""
        if (too_much := min(size, self._most) - min(left, self._most)) > 0:
            self._give_back(owner, too_much)

    def _give_back(self, owner: Hashable, size: int) -> None:
        self._shares.give_back(owner, size)
        for _ in range(len(self._waiting)):
            waits = self._waiting.popleft()
            if waits[2].done():
                continue
            if self._shares.may_take(waits[0], waits[1]):
                self._shares.take(waits[0], waits[1])
                waits[2].set_result(True)
            else:
                self._waiting.append(waits)


class Stay:
    """What one body has of the room, from when it is let in until it is answered."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._owner: Hashable = None
        self._size = 0

    async def begin(self, owner: Hashable, size: int) -> bool:
        """Wait for as much; False where it does not come free in time."""
        if not await self._room.take(owner, size):
            return False
        self._owner, self._size = owner, size
        return True

    def shrink(self, size: int) -> None:
        """Keep no more than what the body turned out to have, which is not more than was taken."""
        if self._owner is not None:
            self._room.shrink(self._owner, self._size, size)
            self._size = size

    def end(self) -> None:
        if self._owner is not None:
            self._room.leave(self._owner, self._size)
            self._owner = None


def settle(future: "Future[Found]", found: Found) -> None:
    """Answer who waits for it, if nobody did so before and they have not gone."""
    if not future.done():
        future.set_result(found)
