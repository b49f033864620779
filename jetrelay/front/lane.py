"""Plain posts of events, without a thread for each.

The loop hands them to the committer, and answers when they are stored.

What an event costs beside its JSON and its part of a transaction is mostly threads that wake each
other. Whatever is not plain, or would wait for something (another part of a key's requests, a key
that was not looked at for a second), goes the way of all others.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any

from delivery import ingest
from delivery.ingest import PATIENCE_S, Accepted, GroupCommit, NotStored
from delivery.shares import Shares
from jetrelay import heads
from jetrelay.api import express, limits
from jetrelay.front import places
from jetrelay.front.heads import Environ
from jetrelay.front.reading import settle

Found = Accepted | NotStored


class Lane:
    """What is under way to the committer of this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # In the order in which they came: when each has waited long enough.
        self._under_way: dict[asyncio.Future[Found], float] = {}
        self._stored: deque[tuple[asyncio.Future[Found], Found]] = deque()
        self._is_woken = False
        # By tenant: one whose posts wait leaves places for those of others.
        self._places = Shares(places.PLAIN_POSTS)

    async def answered(self, environ: Environ, protocol: Any) -> bool:
        """Store the event and answer, if this is a plain post of one."""
        bearer, publisher = express.bearer_of(environ), ingest.publisher
        if bearer is None or not isinstance(publisher, GroupCommit) or heads.is_long(environ):
            return False
        tenant = bearer.tenant_id
        if not self._places.may_take(tenant) or not limits.has_part(bearer):
            return False
        plain = express.plainly(environ, bearer, environ["wsgi.input"].getvalue())
        if plain is None:
            return False
        future: asyncio.Future[Found] = self._loop.create_future()
        self._under_way[future] = self._loop.time() + PATIENCE_S
        self._places.take(tenant)

        def then(accepted: list[Accepted], error: Exception | None) -> None:
            self._stored.append((future, accepted[0] if error is None else _not_stored(error)))
            # One wake for all that one transaction has stored.
            if not self._is_woken:
                self._is_woken = True
                with contextlib.suppress(RuntimeError):  # the loop has ended, and all clients
                    self._loop.call_soon_threadsafe(self._wake)

        publisher.submit(plain.source, [plain.event], then)
        try:
            status, headers, text = plain.answer(await future)
        finally:
            self._under_way.pop(future, None)
            self._places.give_back(tenant)
        protocol.response_bytes(int(status[:3]), headers, text)
        return True

    def look(self, now: float) -> None:
        """Answer those that have waited too long."""
        while self._under_way:
            future, until = next(iter(self._under_way.items()))
            if until > now:
                return
            del self._under_way[future]
            settle(future, NotStored(f"The database has not answered within {PATIENCE_S:.0f} s."))

    def _wake(self) -> None:
        self._is_woken = False
        while self._stored:
            settle(*self._stored.popleft())


def _not_stored(error: Exception) -> NotStored:
    found = NotStored("The database did not take the events.")
    found.__cause__ = error
    return found
