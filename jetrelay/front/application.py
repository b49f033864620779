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
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from http import HTTPStatus
from io import BufferedReader, BytesIO
from typing import Any, TypeGuard

from jetrelay import askers, busy
from jetrelay.api import problems
from jetrelay.forwarded import network_of
from jetrelay.front import caps
from jetrelay.front.heads import BadHead, Environ, environ_of
from jetrelay.front.lane import Lane
from jetrelay.front.reading import (
    SLOWEST_BYTES_PER_S,
    START_S,
    Body,
    Places,
    Room,
    Stay,
    settle,
)
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
        # What the body has of the room, where it may be a long one; and whether it is read.
        stay, is_read = None, True
        self.active[client] = protocol
        try:
            environ = environ_of(scope)
            path = environ["PATH_INFO"]
            length = _length(environ)
            # The body is held by the environ alone: the thread that has answered lets go of it.
            if length is None:
                stay = Stay(self._room)
                is_short, is_read = await self._take_chunks(protocol, environ, stay)
            else:
                if not (is_short := length <= caps.STRANGERS):
                    stay = Stay(self._room)
                    is_read = await self._admit(environ, length, stay)
                is_wanted = length and is_read
                environ["wsgi.input"] = BytesIO(
                    await self._read(protocol, environ, length) if is_wanted else b"",
                )
            may_be_plain = self._has_lane and length != 0 and is_short
            if may_be_plain and await self._lane.answered(environ, protocol):
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
            if stay:
                stay.end()

    # --- bodies ----------------------------------------------------------------------------

    async def _admit(self, environ: Environ, length: int, stay: Stay) -> bool:
        """Take room for a long body.

        False where nothing was shown that it would be read for. Raises Refused.
        """
        path = environ["PATH_INFO"]
        if length > caps.most(path):
            raise _too_large(path)
        shown = caps.known(environ) or await self._looked_up(environ)
        if shown is None:
            if caps.of_api(path) or path.startswith("/inbox/"):
                # The site has words for it, and needs no body for them.
                return False
            words = f"The request's body is larger than {caps.STRANGERS:,} bytes: sign in first."
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
        if not await stay.begin(shown, length):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, busy.BODIES)
        return True

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
        chunks, size = list[bytes](), 0
        with self._under_way(protocol, environ, length):
            async for chunk in protocol:
                size += len(chunk)
                chunks.append(chunk)
                if size >= length:
                    break
                # Small pieces cost more than what is in them.
                if len(chunks) >= _MOST_PIECES:
                    chunks = [b"".join(chunks)]
        if size != length:
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"The body was cut off: {length:,} bytes were promised, and {size:,} came.",
            )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _take_chunks(self, protocol: Any, environ: Environ, stay: Stay) -> tuple[bool, bool]:
        """Have the environ say of a body in chunks what it would of one with a length.

        Whether it is short, and whether it was read: as with `_admit`. Raises Refused.
        """
        body, is_short, path = BytesIO(), True, environ["PATH_INFO"]
        async with aclosing(_chunks(protocol)) as chunks:
            with self._under_way(protocol, environ, caps.STRANGERS):
                has_ended = await _ends_within(caps.STRANGERS, chunks, body)
            if not has_ended:
                is_short, most = False, caps.most(path)
                if not await self._admit(environ, most, stay):
                    environ["wsgi.input"] = BytesIO()
                    return False, False
                with self._under_way(protocol, environ, most):
                    if not await _ends_within(most, chunks, body):
                        raise _too_large(path)
                stay.shrink(body.tell())
        del environ["HTTP_TRANSFER_ENCODING"]
        environ["CONTENT_LENGTH"] = str(body.tell())
        body.seek(0)
        environ["wsgi.input"] = body
        return is_short, True

    @contextmanager
    def _under_way(self, protocol: Any, environ: Environ, length: int) -> Iterator[None]:
        """A place for a body that may be so long, and its time. It is given up with words."""
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
        self._places.take(body)
        try:
            yield
        finally:
            self._places.leave(body)

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


def _length(environ: Environ) -> int | None:
    """How long the body is; None where it comes in chunks. Raises BadHead."""
    text = environ.get("CONTENT_LENGTH", "")
    if (coding := environ.get("HTTP_TRANSFER_ENCODING")) is not None:
        # Whoever passes it on may have found another end of it than the server, and then takes a
        # part of it for the next request. (Of a length beside chunks, the server lets nobody know:
        # it goes by the chunks, and ends the connection.)
        if coding.strip().lower() != "chunked":
            raise BadHead("Transfer-Encoding is something else than chunked: leave it out.")
        if text:
            raise BadHead("Content-Length was sent with Transfer-Encoding: send one of them.")
        return None
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadHead("Content-Length is no number of bytes.")
    return int(text)


async def _chunks(protocol: Any) -> AsyncGenerator[bytes, None]:
    """What comes of a body in chunks. Raises Refused where its end does not come."""
    ends = 0
    async for chunk in protocol:
        if chunk:
            yield chunk
        else:
            ends += 1
    # The server hands over an empty piece for the end of a body, and one before it for whatever it
    # could not read. Trailers make one as well: nobody needs them, and they pass for a cut.
    if ends != 1:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "The body was cut off: its last chunk did not come, or trailers came behind it.",
        )


async def _ends_within(most: int, chunks: AsyncGenerator[bytes, None], body: BytesIO) -> bool:
    """Read on until the end, or until the body is longer than that."""
    if body.tell() > most:
        return False
    async for chunk in chunks:
        # Chunks may have a byte each: what is there already is not copied for each of them.
        body.write(chunk)
        if body.tell() > most:
            return False
    return True


def _too_large(path: str) -> Refused:
    most = f"{caps.most(path):,} bytes"
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request's body is larger than {most}, the most that is taken here.",
    )


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
