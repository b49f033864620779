"""What libcurl's sockets are watched with: the same answers from either, whichever numbers the sockets have."""

import os
import select
import socket
from collections.abc import Iterator

import pycurl
import pytest

from delivery.destinations.sockets import EpollSockets, SelectorSockets, Sockets

KINDS = [pytest.param(EpollSockets, marks=pytest.mark.skipif(not hasattr(select, "epoll"), reason="only Linux has epoll")), SelectorSockets]


@pytest.fixture(params=KINDS)
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    ours, other = socket.socketpair()
    with ours, other:
        watching: Sockets = request.param(ours.fileno())
        yield watching
        watching.close()


def heard(sockets: Sockets) -> list[tuple[int, int]]:
    """What happens within a moment."""
    return list(sockets.read(sockets.wait(0.05)))


def ask(sockets: Sockets, what: int, sock: socket.socket) -> None:
    sockets.watch(what, sock.fileno(), None, None)


def test_a_connection_that_is_used_again_is_heard_again(sockets: Sockets) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        sockets.opened()
        for answer in (b"1", b"2", b"3"):
            ask(sockets, pycurl.POLL_IN, ours)
            assert heard(sockets) == []
            peer.send(answer)
            assert heard(sockets) == [(ours.fileno(), pycurl.CSELECT_IN)]
            ours.recv(1)
            ask(sockets, pycurl.POLL_REMOVE, ours)


def test_what_is_wanted_of_a_socket_may_change(sockets: Sockets) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        sockets.opened()
        ask(sockets, pycurl.POLL_OUT, ours)
        assert heard(sockets) == [(ours.fileno(), pycurl.CSELECT_OUT)]
        ask(sockets, pycurl.POLL_IN, ours)
        assert heard(sockets) == []
        ask(sockets, pycurl.POLL_INOUT, ours)
        peer.send(b"1")
        assert heard(sockets) == [(ours.fileno(), pycurl.CSELECT_IN | pycurl.CSELECT_OUT)]


def test_a_new_socket_with_the_number_of_one_that_was_closed_is_heard(sockets: Sockets) -> None:
    ours, gone = socket.socketpair()
    new, peer = socket.socketpair()
    with ours, gone, new, peer:
        sockets.opened()
        ask(sockets, pycurl.POLL_IN, ours)
        ask(sockets, pycurl.POLL_REMOVE, ours)
        # Closes the one and gives its number to the other.
        os.dup2(new.fileno(), ours.fileno())
        sockets.opened()
        ask(sockets, pycurl.POLL_IN, ours)
        peer.send(b"1")
        assert heard(sockets) == [(ours.fileno(), pycurl.CSELECT_IN)]


def test_a_connection_at_rest_that_ends_is_no_news(sockets: Sockets) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        sockets.opened()
        ask(sockets, pycurl.POLL_IN, ours)
        ask(sockets, pycurl.POLL_REMOVE, ours)
        peer.close()
        assert heard(sockets) == heard(sockets) == []
        # libcurl looks at it when it wants it again, and may ask.
        ask(sockets, pycurl.POLL_IN, ours)
        [(number, happened)] = heard(sockets)
        assert number == ours.fileno()
        assert happened & pycurl.CSELECT_IN


def test_a_connection_at_rest_that_was_closed_since_the_kernel_told_of_it_is_no_news(sockets: Sockets) -> None:
    ours, peer = socket.socketpair()
    busy, other = socket.socketpair()
    with ours, peer, busy, other:
        sockets.opened()
        ask(sockets, pycurl.POLL_IN, ours)
        ask(sockets, pycurl.POLL_REMOVE, ours)
        ask(sockets, pycurl.POLL_IN, busy)
        peer.close()
        other.send(b"1")
        happened = sockets.wait(1)
        ours.close()
        assert list(sockets.read(happened)) == [(busy.fileno(), pycurl.CSELECT_IN)]
