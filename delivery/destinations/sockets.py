"""The sockets that libcurl wants to hear of, for one sender's thread.

libcurl asks for a socket when a request waits for its answer, and drops it when that has come: twice for each request, although the
connection stays. Going through `selectors` each time costs a fifth of a sender. Here a socket that is dropped stays with the kernel
until something happens on it, so that a request costs no call, and that an answer comes is heard of as before.
"""

import contextlib
import select
import selectors
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pycurl


class Sockets(Protocol):
    def watch(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        """libcurl's CURLMOPT_SOCKETFUNCTION."""
        ...

    def opened(self) -> None:
        """To be called when libcurl opens a socket: it may get the number of one that was closed."""
        ...

    def wait(self, timeout_s: float | None) -> Sequence[tuple[Any, int]]:
        """Wait until something happens, for ever if that is None. What has happened is for `read`, and nobody else."""
        ...

    def read(self, happened: Sequence[tuple[Any, int]]) -> Iterator[tuple[int, int]]:
        """The sockets and what has happened on them, as `socket_action` takes it. The wake's own is among them, with 0."""
        ...

    def close(self) -> None: ...


class EpollSockets:
    def __init__(self, wake_fd: int) -> None:
        self._epoll = select.epoll()
        # What libcurl wants of each, 0 for nothing at the moment. It may have closed those, and another may have their number.
        self._wanted: dict[int, int] = {wake_fd: _WAKE}
        # What the kernel has of each that was not closed since: nothing has been opened since it was told.
        self._told: dict[int, int] = {}
        self._epoll.register(wake_fd, select.EPOLLIN)

    def watch(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            self._wanted[fd] = 0
            return
        mask = _MASKS[what]
        if self._told.get(fd) != mask:
            self._tell(fd, mask)
        self._wanted[fd] = mask

    def _tell(self, fd: int, mask: int) -> None:
        if fd in self._wanted:
            try:
                self._epoll.modify(fd, mask)
            except FileNotFoundError:
                self._epoll.register(fd, mask)  # it was closed, which takes it out of the kernel's list
        else:
            self._epoll.register(fd, mask)
        self._told[fd] = mask

    def opened(self) -> None:
        self._told.clear()

    def wait(self, timeout_s: float | None) -> Sequence[tuple[Any, int]]:
        return self._epoll.poll(timeout_s)

    def read(self, happened: Sequence[tuple[Any, int]]) -> Iterator[tuple[int, int]]:
        for fd, events in happened:
            wanted = self._wanted.get(fd, 0)
            if wanted > 0:
                yield fd, _HAPPENED[events & _LOOKED_AT]
            elif wanted == _WAKE:
                yield fd, 0
            else:
                # A connection at rest was ended by its peer, say. libcurl finds out when it wants it again, or did a moment ago, with
                # another event of this batch, and has closed it.
                self._wanted.pop(fd, None)
                self._told.pop(fd, None)
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)

    def close(self) -> None:
        self._epoll.close()


class SelectorSockets:
    """Where there is no epoll."""

    def __init__(self, wake_fd: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake_fd, selectors.EVENT_READ, _WAKE)

    def watch(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        watched = fd in self._selector.get_map()
        if what != pycurl.POLL_REMOVE:
            if watched:
                try:
                    self._selector.modify(fd, _EVENTS[what])
                    return
                except OSError:
                    self._selector.unregister(fd)  # another socket has this number by now
            self._selector.register(fd, _EVENTS[what])
        elif watched:
            self._selector.unregister(fd)

    def opened(self) -> None:
        pass

    def wait(self, timeout_s: float | None) -> Sequence[tuple[Any, int]]:
        return self._selector.select(timeout_s)

    def read(self, happened: Sequence[tuple[Any, int]]) -> Iterator[tuple[int, int]]:
        for key, events in happened:
            yield key.fd, 0 if key.data == _WAKE else _ACTIONS[events]

    def close(self) -> None:
        self._selector.close()


def watcher(wake_fd: int) -> Sockets:
    """The best that this system has. It also hears when `wake_fd` can be read."""
    return EpollSockets(wake_fd) if hasattr(select, "epoll") else SelectorSockets(wake_fd)


_WAKE = -1
_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}
_ACTIONS = {
    selectors.EVENT_READ: pycurl.CSELECT_IN,
    selectors.EVENT_WRITE: pycurl.CSELECT_OUT,
    selectors.EVENT_READ | selectors.EVENT_WRITE: pycurl.CSELECT_IN | pycurl.CSELECT_OUT,
}
if hasattr(select, "epoll"):
    _MASKS = {pycurl.POLL_IN: select.EPOLLIN, pycurl.POLL_OUT: select.EPOLLOUT, pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT}
    _LOOKED_AT = select.EPOLLIN | select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP
    # An error is something to read and to write: libcurl then tries, and finds it.
    _HAPPENED = [
        (pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0) | (pycurl.CSELECT_OUT if events & ~select.EPOLLIN else 0) for events in range(_LOOKED_AT + 1)
    ]
