"""A server that is gone without a word: whoever asks it does not wait for minutes.

A proxy that only stops to forward would not do: its side of the connection still acknowledges what is sent. Here the kernel throws away
what comes in on one socket before TCP sees it, as a firewall does that drops packets.
"""

import contextlib
import ctypes
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from jetrelay import environment
from jetrelay.away import is_away

pytestmark = pytest.mark.django_db

# What a second is for the operator, in a test.
SHORT = "keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=1500"
_SO_ATTACH_FILTER = 26
# A program of the packet filter with one step: let nothing of it in.
_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))


class Link:
    """The way to a server for one connection, which may be cut without either end being told."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._held = contextlib.ExitStack()
        self._listener = self._held.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self._listener.getsockname()[1]
        self._connected = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def cut(self) -> None:
        assert self._connected.wait(10)
        self._client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(_NOTHING)))

    def _run(self) -> None:
        self._client = self._held.enter_context(self._listener.accept()[0])
        self._server = self._held.enter_context(socket.create_connection(self._there, 10))
        self._server.settimeout(None)
        self._connected.set()
        threading.Thread(target=_pump, args=[self._client, self._server], daemon=True).start()
        _pump(self._server, self._client)


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)


@contextlib.contextmanager
def database(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A connection as the settings make it of this DATABASE_URL, not open yet."""
    monkeypatch.setenv("DATABASE_URL", url)
    connection = ConnectionHandler({"default": environment.database("DATABASE_URL", Path())})["default"]
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as held:
        silent = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        connection = held.enter_context(database(f"postgres://jetrelay@127.0.0.1:{silent.getsockname()[1]}/jetrelay", monkeypatch))
        began = monotonic()
        with pytest.raises(OperationalError) as caught:
            ask(connection, "SELECT 1")
        assert 4 < monotonic() - began < 20
    assert is_away(caught.value)


@pytest.mark.postgresql
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to drop what comes in on one socket")
@pytest.mark.parametrize("when", ["before it is asked", "while it works"])
def test_a_server_whose_packets_are_dropped_is_given_up(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = urlsplit(os.environ["TEST_DATABASE_URL"])
    assert real.hostname
    user = real.netloc.rpartition("@")[0]
    with contextlib.ExitStack() as held:
        link = held.enter_context(Link(real.hostname, real.port or 5432))
        connection = held.enter_context(database(f"postgres://{user}@127.0.0.1:{link.port}{real.path}?{SHORT}", monkeypatch))
        ask(connection, "SELECT 1")
        if when == "while it works":
            threading.Timer(0.3, link.cut).start()
        else:
            link.cut()
        began = monotonic()
        with pytest.raises(OperationalError) as caught:
            ask(connection, "SELECT pg_sleep(20)")
        assert monotonic() - began < 15
        assert is_away(caught.value)
