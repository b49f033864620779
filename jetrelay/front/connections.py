"""How many connections one address may keep.

Half a head, or nothing at all, must not take the places of others.

The server accepts connections and reads heads by itself, up to `CONNECTIONS` at once, and ends each
that has sent no whole head in time. It does not count by address, so this does: where many are
open, a thread looks at the process's own sockets, and shuts those of an address that has more than
its share: first those that have been silent longest, and none that is being worked on. A proxy that
the operator has named speaks for many, and is left alone: it has to count by itself.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from jetrelay.forwarded import network_of
from jetrelay.front.served import CONNECTIONS
from jetrelay.proxies import is_trusted

logger = logging.getLogger(__name__)

OF_ONE = 512
# From here on whoever has most of them loses some.
CROWDED = CONNECTIONS * 3 // 4
# So few need no look.
FEW = 256
_LOOK_S = 0.25
_TOLD_EVERY_S = 60.0
_FILES = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
# tcpi_last_data_recv of linux/tcp.h, in milliseconds.
_SILENT, _TCP_INFO_BYTES = struct.Struct("=52xI"), 104


class Connection(NamedTuple):
    """One that was accepted: its number as a file, who has it, and for how long nothing came."""

    number: int
    client: str
    silent_ms: int


class Connections:
    """The sockets of this process that were accepted.

    `active`: those that are being worked on, as "address:port".
    """

    def __init__(
        self,
        active: Container[str],
        most: int = CROWDED,
        of_one: int = OF_ONE,
        few: int = FEW,
        trusted: Callable[[str], bool] = is_trusted,
    ) -> None:
        self._active, self._trusted = active, trusted
        self._most, self._of_one, self._few = most, of_one, few
        self._told_at = -_TOLD_EVERY_S

    def watch(self) -> None:
        threading.Thread(target=self._run, name="connections", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_S):
            try:
                self.look()
            except Exception:
                # Whatever it was, it would be the same at the next look, and the one after.
                logger.exception("The connections could not be looked at")
                pause.wait(_TOLD_EVERY_S)

    def look(self) -> int:
        """Shut what is too much. Returns how many that were."""
        numbers = os.listdir(_FILES)  # noqa: PTH208 - names alone, and quickly
        if len(numbers) < self._few:
            return 0
        shut = sum(map(_shut, self._too_many(accepted(map(int, numbers)))))
        if shut and monotonic() - self._told_at >= _TOLD_EVERY_S:
            self._told_at = monotonic()
            logger.warning("%d idle connections were shut: one address had too many", shut)
        return shut

    def _too_many(self, accepted: dict[str, list[Connection]]) -> list[Connection]:
        found = list[Connection]()
        total = sum(map(len, accepted.values()))
        for address, own in sorted(accepted.items(), key=lambda item: -len(item[1])):
            # Whoever has most gives way first, and keeps half.
            excess = max(len(own) - self._of_one, min(total - self._most, len(own) // 2))
            if excess <= 0 or self._trusted(address):
                continue
            idle = [each for each in own if each.client not in self._active]
            idle.sort(key=lambda each: -each.silent_ms)
            found += idle[:excess]
            total -= len(idle[:excess])
        return found


def accepted(numbers: Iterable[int]) -> dict[str, list[Connection]]:
    """The connections among these open files that clients have made, by address."""
    ports, found = set[int](), list[tuple[int, str, Connection]]()
    for number in numbers:
        with contextlib.suppress(OSError), _borrowed(number) as each:
            if each.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            port = each.getsockname()[1]
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.add(port)
            else:
                address, client = _peer(each)
                found.append((port, address, Connection(number, client, _silent_ms(each))))
    by_address: dict[str, list[Connection]] = {}
    for port, address, connection in found:
        if port in ports:
            by_address.setdefault(network_of(address), []).append(connection)
    return by_address


@contextlib.contextmanager
def _borrowed(number: int) -> Iterator[socket.socket]:
    """A socket that stays the server's. Raises OSError if that file is none, or no longer."""
    each = socket.socket(fileno=number)
    try:
        yield each
    finally:
        each.detach()


def _peer(each: socket.socket) -> tuple[str, str]:
    """The address, and "address:port" as the server writes it."""
    address, port = each.getpeername()[:2]
    return address, f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _silent_ms(each: socket.socket) -> int:
    try:
        told = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(_SILENT.unpack_from(told)[0])
    except (AttributeError, OSError, struct.error):
        return 0


def _shut(connection: Connection) -> bool:
    """Shut it, unless its number has become another's meanwhile."""
    try:
        # A copy: were the number closed and given away now, the copy would still be this one.
        copy = socket.fromfd(connection.number, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return False
    with copy:
        try:
            if _peer(copy)[1] == connection.client:
                copy.shutdown(socket.SHUT_RDWR)
                return True
        except OSError:
            pass
        return False
