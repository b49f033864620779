"""Bodies that are under way: their places, their time and their room."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jetrelay.front import reading
from jetrelay.front.reading import Body, Places, Room, Stay

Run = Callable[[Awaitable[None]], None]


class Reader:
    """A task that waits for a body which does not come."""

    def __init__(self, places: Places, address: str, deadline: float = 1e9) -> None:
        self.told: list[str] = []
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        self.body = Body(self.task, address, deadline, self.told.append)
        places.take(self.body)

    @property
    def waits(self) -> bool:
        return not self.told


def test_the_one_that_dawdles_longest_of_an_address_gives_way() -> None:
    async def run() -> None:
        places = Places(total=100, of_one=3)
        other = Reader(places, "192.0.2.9")
        readers = [Reader(places, "192.0.2.1") for _ in range(5)]
        assert [each.waits for each in readers] == [False, False, True, True, True]
        assert "too many" in readers[0].told[0]
        assert other.waits
        await asyncio.sleep(0)
        assert readers[0].task.cancelled()
        assert places.count == 4

    asyncio.run(run())


def test_whoever_has_most_gives_way_where_all_places_are_taken() -> None:
    async def run() -> None:
        places = Places(total=6, of_one=4)
        greedy = [Reader(places, "192.0.2.1") for _ in range(4)]
        modest = [Reader(places, f"192.0.2.{number}") for number in range(2, 6)]
        assert [each.waits for each in greedy] == [False, False, True, True]
        assert all(each.waits for each in modest)

    asyncio.run(run())


def test_a_body_that_is_late_is_not_waited_for() -> None:
    async def run() -> None:
        places = Places()
        late, early = Reader(places, "192.0.2.1", 10), Reader(places, "192.0.2.1", 30)
        places.look(20)
        assert (late.waits, early.waits, places.count) == (False, True, 1)
        # Whoever was told so leaves as well, and is counted once.
        places.leave(late.body)
        places.leave(early.body)
        assert places.count == 0

    asyncio.run(run())


def test_nobody_gets_more_than_half_of_the_room() -> None:
    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=100)
        assert await room.take("a", 50)
        waits = asyncio.ensure_future(room.take("a", 10))
        assert await room.take("b", 50)
        await asyncio.sleep(0)
        assert not waits.done()
        room.leave("a", 50)
        assert await waits

    asyncio.run(run())


def test_room_goes_to_the_first_that_it_is_enough_for() -> None:
    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=200)
        assert await room.take("x", 100)
        assert await room.take("a", 90)
        large, small = (asyncio.ensure_future(room.take(*wish)) for wish in (("b", 50), ("c", 20)))
        await asyncio.sleep(0)
        room.leave("a", 90)
        assert await large
        assert await small
        # A longer one than a share takes as much as that.
        room.leave("b", 50)
        room.leave("c", 20)
        room.leave("x", 100)
        assert await room.take("d", 1000)
        room.leave("d", 1000)
        assert await room.take("e", 100)

    asyncio.run(run())


def test_it_says_no_where_room_does_not_come_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE_S", 0.01)

    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=200)
        assert await room.take("a", 100)
        assert await room.take("z", 100)
        assert not await room.take("b", 1)
        # And what was given up is not given any more.
        room.leave("a", 100)
        assert await room.take("c", 100)

    asyncio.run(run())


def test_room_that_is_given_to_who_has_just_gone_comes_free() -> None:
    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=200)
        assert await room.take("a", 100)
        assert await room.take("z", 100)
        gone = asyncio.ensure_future(room.take("b", 50))
        await asyncio.sleep(0)
        # Given, and gone before its task has had its turn.
        room.leave("a", 100)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        room.leave("z", 100)
        assert await room.take("c", 100)
        assert await room.take("d", 100)

    asyncio.run(run())


def test_one_owner_leaves_others_places_to_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE_S", 0.05)
    monkeypatch.setattr(reading, "WAITING", 8)

    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=100)
        assert await room.take("a", 50)
        assert await room.take("b", 50)
        greedy = [asyncio.ensure_future(room.take("a", 10)) for _ in range(20)]
        await asyncio.sleep(0)
        assert sum(each.done() for each in greedy) == 16
        waits = asyncio.ensure_future(room.take("c", 10))
        await asyncio.sleep(0)
        assert not waits.done()
        assert not any(await asyncio.gather(*greedy, waits))
        # And those that have waited in vain keep no place.
        waits = asyncio.ensure_future(room.take("c", 10))
        await asyncio.sleep(0)
        room.leave("b", 50)
        assert await waits

    asyncio.run(run())


def test_a_stay_keeps_what_its_body_turned_out_to_have() -> None:
    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=100)
        stay, other = Stay(room), Stay(room)
        # As much as half of all, of which a part is given back.
        assert await stay.begin("a", 1000)
        waits = asyncio.ensure_future(other.begin("a", 30))
        await asyncio.sleep(0)
        assert not waits.done()
        stay.shrink(10)
        assert await waits
        for each in (stay, other, other):
            each.end()
        assert await room.take("b", 50)
        assert await room.take("c", 50)

    asyncio.run(run())


def test_a_stay_that_did_not_begin_gives_nothing_back() -> None:
    async def run() -> None:
        room = Room(asyncio.get_running_loop(), total=100)
        stay = Stay(room)
        stay.shrink(10)
        stay.end()
        assert await room.take("a", 50)

    asyncio.run(run())
