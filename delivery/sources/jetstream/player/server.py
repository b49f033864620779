"""The server: hosts that serve one log, each on a port of its own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from websockets import http11
from websockets.asyncio.server import Server, ServerConnection, serve

from delivery.sources.jetstream.player.connection import HostConnection
from delivery.sources.jetstream.player.dictionaries import Dictionaries
from delivery.sources.jetstream.player.handshake import SUBPROTOCOL, Reception, select_subprotocol
from delivery.sources.jetstream.player.host import V1_PATH, Host
from delivery.sources.jetstream.player.listener import Listener
from delivery.sources.jetstream.player.log import Log
from delivery.sources.jetstream.player.misbehaviour import GOOD, HostOptions, Misbehaviour
from delivery.sources.jetstream.player.playhead import Playhead

PATH = V1_PATH
MAX_MESSAGE_BYTES = 10_000_000  # an options_update, as on the real hosts
MAX_REQUEST_LINE_BYTES = 1_048_576  # 10,000 DIDs in a URL are about half of it
PING_INTERVAL_S = 30
CLOSE_TIMEOUT_S = 2

# The library reads its limit here at each request; it has a parameter for nothing but the environment.
http11.MAX_LINE_LENGTH = max(http11.MAX_LINE_LENGTH, MAX_REQUEST_LINE_BYTES)

# A probe of the port that never speaks is no error worth a traceback.
logger = logging.getLogger("delivery.sources.jetstream.player.websockets")
logger.setLevel(logging.WARNING)
logger.addFilter(lambda record: record.msg != "opening handshake failed")


class CannotListen(OSError):
    """The port of one of the hosts cannot be had; `errno` and `strerror` say why."""

    def __init__(self, error: OSError, port: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.port = port


@asynccontextmanager
async def playing(
    log: Log,
    *,
    rate: float | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    options: HostOptions | None = None,
    misbehaviour: Misbehaviour = GOOD,
    dictionaries: Dictionaries | None = None,
) -> AsyncIterator[int]:
    """Serve the log on one host while the context lasts; yields the port. Clients are closed with 1001 at the end.

    `options` say all about the host, `misbehaviour` is short for options with that alone. Raises CannotListen, an OSError.
    """
    one = HostOptions(misbehaviour=misbehaviour) if options is None else options
    async with hosting(log, [one], rate=rate, address=host, port=port, dictionaries=dictionaries) as (only,):
        yield only.port


@asynccontextmanager
async def hosting(
    log: Log,
    options: Sequence[HostOptions],
    *,
    rate: float | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
    dictionaries: Dictionaries | None = None,
) -> AsyncIterator[list[Host]]:
    """The same for several hosts, on `port`, `port + 1` …, or on free ports for port 0; yields them.

    With a rate they share one pace: an event is due on all of them at once.
    """
    playhead, dictionaries = Playhead(log, rate), dictionaries or Dictionaries(log)
    async with AsyncExitStack() as stack:
        hosts = [Host(log, playhead, dictionaries, each) for each in options]
        for number, host in enumerate(hosts):
            host.address = address
            await stack.enter_async_context(_serving(host, port + number if port else 0))
        yield hosts


@asynccontextmanager
async def _serving(host: Host, port: int) -> AsyncIterator[None]:
    class OfThisHost(HostConnection):
        pass

    OfThisHost.host = host

    async def attend(connection: ServerConnection) -> None:
        assert isinstance(connection, HostConnection)
        assert connection.admission is not None  # it has been through the reception
        await Listener(connection, host, connection.admission).run()

    try:
        server = await serve(
            attend,
            host.address,
            port,
            create_connection=OfThisHost,
            process_request=Reception(host).check,
            subprotocols=[SUBPROTOCOL],
            select_subprotocol=select_subprotocol,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=None,  # a reader that lags behind its backlog is what trials are for: TCP holds it back, no clock ends it
            open_timeout=None,  # a host that never answers a handshake must outlast the client's patience
            close_timeout=CLOSE_TIMEOUT_S,
            logger=logger,
        )
    except OSError as error:
        raise CannotListen(error, port) from error
    host.port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    unwatch = host.log.watch(partial(_tell, loop, host))
    try:
        yield
    finally:
        unwatch()
        await _close(server, host)


def _tell(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    loop.call_soon_threadsafe(host.bell.ring)


async def _close(server: Server, host: Host) -> None:
    """Close with 1001, and without ceremony where a client does not read any more or has not got its handshake."""
    server.close()
    try:
        await asyncio.wait_for(asyncio.shield(server.wait_closed()), CLOSE_TIMEOUT_S)
    except TimeoutError:
        host.abort_all()
        await server.wait_closed()
