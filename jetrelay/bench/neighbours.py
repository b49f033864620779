"""Addresses on loopback that are bad receivers, each as little work for this machine as it can be."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """A port that takes connections and requests, by the kernel alone, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        yield int(server.getsockname()[1])


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port that refuses every connection: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])
