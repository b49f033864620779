"""How many connections one address may keep."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jetrelay.front.connections import Connections, accepted
from tests.web import is_open


class Server:
    """A server that accepts and does no more."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self._listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.ours: list[socket.socket] = []

    def client(self, address: str = "127.0.0.1") -> socket.socket:
        to = self._listener.getsockname()
        made = socket.create_connection(to, 30, source_address=(address, 0))
        self.ours.append(self._held.enter_context(self._listener.accept()[0]))
        return self._held.enter_context(made)


def name(client: socket.socket) -> str:
    address, port = client.getsockname()
    return f"{address}:{port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as held:
        yield Server(held)


def shutting(active: set[str] = set(), **more: int) -> Connections:  # noqa: B006 - never changed
    return Connections(active, **{"most": 100, "of_one": 3, "few": 0, **more}, trusted=lambda _: False)


def test_those_that_were_silent_longest_give_way(server: Server) -> None:
    clients = [server.client() for _ in range(5)]
    while min(each.silent_ms for own in accepted(_files()).values() for each in own) < 20:
        pass  # the kernel's clock has to move on
    for client in (clients[0], clients[1], clients[4]):
        client.sendall(b"GET / HTTP/1.1\r\n")
    for ours in (server.ours[0], server.ours[1], server.ours[4]):
        ours.recv(100)
    assert shutting().look() == 2
    assert [is_open(client) for client in clients] == [True, True, False, False, True]


def test_those_that_are_worked_on_stay(server: Server) -> None:
    clients = [server.client() for _ in range(6)]
    assert shutting({name(client) for client in clients[:4]}).look() == 2
    assert [is_open(client) for client in clients] == [True] * 4 + [False] * 2


def test_other_addresses_and_other_sockets_are_left_alone(server: Server) -> None:
    greedy = [server.client("127.0.0.2") for _ in range(6)]
    modest = [server.client("127.0.0.3") for _ in range(3)]
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        outgoing = [socket.create_connection(elsewhere.getsockname(), 30) for _ in range(6)]
        assert shutting().look() == 3
        assert all(map(is_open, [*modest, *outgoing]))
        for each in outgoing:
            each.close()
    assert sum(map(is_open, greedy)) == 3


def test_whoever_has_most_gives_way_where_it_is_crowded(server: Server) -> None:
    greedy = [server.client("127.0.0.2") for _ in range(8)]
    modest = [server.client(f"127.0.0.{number}") for number in range(3, 7)]
    assert shutting(most=8, of_one=50).look() == 4
    assert (sum(map(is_open, greedy)), all(map(is_open, modest))) == (4, True)


def test_a_proxy_that_the_operator_has_named_speaks_for_many(server: Server) -> None:
    clients = [server.client() for _ in range(6)]
    trusting = Connections(set(), 100, 3, 0, trusted=lambda address: address == "127.0.0.1")
    assert trusting.look() == 0
    assert all(map(is_open, clients))


def test_a_look_leaves_no_file_open(server: Server) -> None:
    for _ in range(6):
        server.client()
    look = shutting()
    look.look()
    before = set(_files())
    for _ in range(5):
        look.look()
        accepted(range(300))
    assert len(set(_files()) - before) <= 1


def _files() -> list[int]:
    return [int(each.name) for each in Path("/proc/self/fd").iterdir()]
