"""A request from end to end.

Its head is checked, its body taken in on the event loop, its work done on a thread, its answer
handed back.

An RSGI application (https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md),
because that interface hands over each header line as it came; and because a body that does not come
costs no thread.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from io import BufferedReader, BytesIO
from typing import Any, TypeGuard

from jetrelay import askers, busy
from jetrelay.api import problems
from jetrelay.forwarded import network_of
from jetrelay.front import caps
from jetrelay.front.heads import BadHead, Environ, environ_of
from jetrelay.front.lane import Lane
from jetrelay.front.reading import SLOWEST_BYTES_PER_S, START_S, Body, Places, Room, settle
from jetrelay.front.threads import FairThreads
from jetrelay.logs.requests import SERVED
from jetrelay.proxies import asker_of
from jetrelay.safety import HEADER_LINES
from jetrelay.shares import Asker
from subscriptions.ids import new_id, to_public

Wsgi = Callable[[Environ, Any], Iterable[bytes]]
# Which threads work on a request, and by which application.
Route = tuple[FairThreads, Wsgi]

logger = logging.getLogger(__name__)

_TICK_S = 0.5
_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.REQUEST_TIMEOUT: "too_slow",
    HTTPStatus.LENGTH_REQUIRED: "length_required",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: "busy",
}


class Refused(Exception):
    """An answer without work: it ends the connection, for the rest of the body is not read."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Front:
    """`route` says who works on a request.

    `looking` are the threads that look up what somebody has shown.

    With a lane, plain posts of events are answered without a thread.
    """

    def __init__(
        self,
        route: Callable[[Environ], Route],
        looking: FairThreads,
        *,
        has_lane: bool = True,
    ) -> None:
        self._route, self._looking, self._has_lane = route, looking, has_lane
        self._places = Places()
        # Clients whose requests are being worked on, as "address:port", with the newest of them:
        # their connections are not idle.
        self.active: dict[str, Any] = {}
        self._finished: deque[asyncio.Future[None]] = deque()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._room, self._lane = loop, Room(loop), Lane(loop)
        loop.call_later(_TICK_S, self._tick)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        client, path = scope.client, scope.path
        # Whose room the body takes, where it is a long one; and whether it is read.
        owner, is_read = None, True
        self.active[client] = protocol
        try:
            environ = environ_of(scope)
            path = environ["PATH_INFO"]
            length = _length(environ)
            is_short = length <= caps.STRANGERS
            if not is_short:
                owner = await self._admit(environ, path, length)
                is_read = owner is not None
            # Held by nothing else: the thread that has answered lets go of it.
            environ["wsgi.input"] = BytesIO(await self._read(protocol, environ, length) if length and is_read else b"")
            if self._has_lane and length and is_short and await self._lane.answered(environ, protocol):
                return
            done = self._loop.create_future()
            threads, application = self._route(environ)
            asker = environ[askers.NAME] = askers.asker_of(environ)

            def refuse() -> None:
                self._work(busy.refuse, environ, protocol, is_read, done)

            if not threads.do(
                asker,
                lambda: self._work(application, environ, protocol, is_read, done),
                refuse,
            ):
                refuse()
            if self._finished:
                self._wake()
            await done
        except BadHead as error:
            _refuse(protocol, path, HTTPStatus.BAD_REQUEST, str(error))
        except Refused as error:
            _refuse(protocol, path, error.status, error.words)
        except asyncio.CancelledError:
            # The client is gone, or was told so when its body was given up.
            pass
        finally:
            if self.active.get(client) is protocol:
                del self.active[client]
            if owner:
                self._room.leave(owner, length)

    # --- bodies ----------------------------------------------------------------------------

    async def _admit(self, environ: Environ, path: str, length: int) -> Asker | None:
        """Take room for a long body; whose it is.

        None where nothing was shown that it would be read for. Raises Refused.
        """
        if length > (most := caps.most(path)):
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The request's body is larger than {most:,} bytes, the most that is taken here.",
            )
        shown = caps.known(environ) or await self._looked_up(environ)
        if shown is None:
            if caps.of_api(path) or path.startswith("/inbox/"):
                # The site has words for it, and needs no body for them.
                return None
            words = f"The request's body is larger than {caps.STRANGERS:,} bytes: sign in first."
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
        if not await self._room.take(shown, length):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, busy.BODIES)
        return shown

    async def _looked_up(self, environ: Environ) -> Asker | None:
        found: asyncio.Future[Asker | Refused | None] = self._loop.create_future()

        def look() -> None:
            try:
                shown = caps.looked_up(environ)
            except Exception:  # noqa: BLE001 - the database is away: the site has words for that
                shown = None
            self._loop.call_soon_threadsafe(settle, found, shown)

        def late() -> None:
            self._loop.call_soon_threadsafe(settle, found, Refused(*_BUSY))

        if not self._looking.do(askers.asker_of(environ), look, late):
            raise Refused(*_BUSY)
        shown = await found
        if isinstance(shown, Refused):
            raise shown
        return shown

    async def _read(self, protocol: Any, environ: Environ, length: int) -> bytes:
        task = asyncio.current_task()
        assert task
        address, path = network_of(asker_of(environ)), environ["PATH_INFO"]

        def give_up(why: str) -> None:
            _refuse(
                protocol,
                path,
                HTTPStatus.REQUEST_TIMEOUT,
                f"The body was not waited for any longer: {why}.",
            )

        deadline = self._loop.time() + START_S + length / SLOWEST_BYTES_PER_S
        body = Body(task, address, deadline, give_up)
        chunks, size = list[bytes](), 0
        self._places.take(body)
        try:
            async for chunk in protocol:
                size += len(chunk)
                chunks.append(chunk)
                if size >= length:
                    break
                # Small pieces cost more than what is in them.
                if len(chunks) >= _MOST_PIECES:
                    chunks = [b"".join(chunks)]
        finally:
            self._places.leave(body)
        if size != length:
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"The body was cut off: {length:,} bytes were promised, and {size:,} came.",
            )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # --- work ------------------------------------------------------------------------------

    def _work(
        self,
        application: Wsgi,
        environ: Environ,
        protocol: Any,
        is_read: bool,
        done: "asyncio.Future[None]",
    ) -> None:
        """On a thread: have the site answer, and hand its answer over."""
        made = environ[SERVED] = list[Any]()
        try:
            _answer(application, environ, protocol, close=not is_read)
        except BaseException:
            logger.exception("The site failed on %s", environ.get("PATH_INFO", "")[:500])
            _refuse(
                protocol,
                environ.get("PATH_INFO", ""),
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "Jetrelay failed on this request. The log has the reason.",
            )
        # Django's requests stand in rings with what middleware made of them, and hold the body: it would
        # stay in memory until the next garbage collection, which is a rare thing here.
        for request in made:
            request.__dict__.clear()
        environ.clear()
        self._finished.append(done)
        # Waking the loop for each would cost as much as the hand-over: the next request, or the
        # tick, finds what is done. But a body that is not read has to be let go of: only then does
        # the server end the connection.
        if not is_read:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        finished = self._finished
        while finished:
            done = finished.popleft()
            if not done.done():
                done.set_result(None)

    def _tick(self) -> None:
        self._wake()
        self._places.look(self._loop.time())
        self._lane.look(self._loop.time())
        self._loop.call_later(_TICK_S, self._tick)


_MOST_PIECES = 256
_BUSY = HTTPStatus.SERVICE_UNAVAILABLE, busy.CALLS


class _File:
    """What WSGI calls `wsgi.file_wrapper`.

    A whole file is sent by the server itself, and takes no memory however slowly it is read.
    """

    def __init__(self, file: Any, block_size: int = 64 * 1024) -> None:
        self.file, self._block_size = file, block_size

    def __iter__(self) -> "_File":
        return self

    def __next__(self) -> bytes:
        if block := self.file.read(self._block_size):
            return bytes(block)
        raise StopIteration

    def close(self) -> None:
        if hasattr(self.file, "close"):
            self.file.close()


def _answer(application: Wsgi, environ: Environ, protocol: Any, *, close: bool) -> None:
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        said[:] = int(status[:3]), headers

    environ["wsgi.file_wrapper"] = _File
    parts = application(environ, start_response)
    try:
        if isinstance(parts, list):
            body = parts[0] if len(parts) == 1 else b"".join(parts)
        elif said[0] == HTTPStatus.OK and _is_whole_file(parts):
            protocol.response_file(said[0], said[1], str(parts.file.name))
            return
        else:
            body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    status, headers = said
    protocol.response_bytes(status, [*headers, ("Connection", "close")] if close else headers, body)


def _is_whole_file(parts: Iterable[bytes]) -> TypeGuard[_File]:
    return isinstance(parts, _File) and type(parts.file) is BufferedReader


def _length(environ: Environ) -> int:
    """Raises BadHead, or Refused for a body without an end that is known."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        raise Refused(
            HTTPStatus.LENGTH_REQUIRED,
            "Send the body with a Content-Length: in chunks it cannot be read here.",
        )
    text = environ.get("CONTENT_LENGTH", "")
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadHead("Content-Length is no number of bytes.")
    return int(text)


def _refuse(protocol: Any, path: str, status: HTTPStatus, words: str) -> None:
    headers = [("Cache-Control", "no-store"), ("Connection", "close"), *HEADER_LINES]
    body = f"{words}\n".encode()
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", "5"))
    if caps.of_api(path):
        id = to_public("req", new_id())
        problem = problems.Problem(status, _CODES.get(status, "internal"), words)
        body = json.dumps(problems.document(problem, id), separators=(",", ":")).encode()
        headers += [("Content-Type", problems.MEDIA_TYPE), ("X-Request-Id", id)]
    else:
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    protocol.response_bytes(status, headers, body)
