"""The only door to user-supplied addresses: POST requests on libcurl's multi interface.

A `Sender` is one thread that owns every connection of one `Door`. Lanes hand it requests and find the results in
their own `Inbox`; libcurl works outside the GIL meanwhile. There is one sender for each door in a process, because
libcurl reuses connections by host and port: a connection that the operator's own URL may have must never serve a
tenant's request to the same address.

Rules kept here and in `transfer.py`: the address is checked when its socket is opened; redirects are not followed; no
proxy, cookie or netrc comes from the environment; only http and https; headers and bodies are read to 64 KiB each and
kept to 4 KiB; a name that hangs holds up nobody else (`names.py`).
"""

import logging
import resource
import socket
import threading
from collections import deque
from collections.abc import Iterable
from time import monotonic, sleep
from typing import Any

import certifi
import pycurl
from django.conf import settings

from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Error, Gate, Request, Result, Timings
from delivery.destinations.failures import unsendable
from delivery.destinations.names import Names, Resolver, Wait, entry, name_and_port
from delivery.destinations.sockets import watcher
from delivery.destinations.transfer import Transfer
from delivery.destinations.turns import Turns
from delivery.shares import Shares

logger = logging.getLogger(__name__)

# Connections kept open for reuse, over all endpoints of a sender. libcurl's own bound counts those in use as well: it would close each
# one as soon as it is free while endpoints that hang hold more than the bound. It is moved along in steps.
MAX_IDLE_CONNECTIONS = 1024
CONNECTIONS_STEP = 256
# Fifty endpoints that hang take 1,600 descriptors; the usual soft limit is 1,024.
MAX_DESCRIPTORS = 65_536
# Requests open at once in one sender, over all endpoints, where the descriptors allow it; and started in one turn.
MAX_OPEN = 4096
MAX_STARTS = 64
# Handles kept for another request: each has buffers of its own. After a burst the rest is given back to the system.
MAX_IDLE_HANDLES = 512


class Sender:
    """One thread and one libcurl multi handle. `submit` may be called from any thread.

    `authorities` is a file of the certificates that receivers' certificates have to lead to; `most_idle`, how many connections
    are kept open for reuse; `most_open`, how many requests may be open (None: as many as this process's descriptors allow).
    """

    def __init__(
        self,
        door: Door,
        *,
        authorities: str | None = None,
        resolver: Resolver | None = None,
        most_idle: int = MAX_IDLE_CONNECTIONS,
        most_open: int | None = None,
    ) -> None:
        self.door = door
        self._authorities = authorities or certifi.where()
        self._names = Names(resolver or Resolver(), self._wake)
        self._submitted: deque[Request] = deque()
        # Gates where something new waits, or a place has come free.
        self._gates: deque[Gate] = deque()
        self._idle: list[Transfer] = []
        # libcurl knows nothing of our objects: a busy handle leads back to its transfer.
        self._busy: dict[Any, Transfer] = {}
        self._deadline: float | None = None
        # The rest is for idle connections, the database, the broker, and another sender.
        self._most_open = min(MAX_OPEN, _descriptors() // 3) if most_open is None else most_open
        # A request has a place from its turn to its result, also while its name is looked up.
        self._places = Shares(self._most_open)
        self._turns = Turns(self._places)
        self._stopping = False
        self._asleep = False
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._wake_fd = self._wake_out.fileno()
        self._sockets = watcher(self._wake_fd)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._sockets.watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._most_idle = min(most_idle, self._most_open)
        self._most_connections = 0
        self._make_room()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def submit(self, requests: Iterable[Request]) -> None:
        """Start these requests now."""
        self._submitted.extend(requests)
        if self._asleep:
            self._wake()

    def submit_to(self, gate: Gate, requests: Iterable[Request]) -> None:
        """Start these requests as the gate has places free."""
        gate.waiting.extend(requests)
        self._gates.append(gate)
        if self._asleep:
            self._wake()

    def stop(self) -> None:
        """End the thread; requests still open are dropped without a result."""
        self._stopping = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            pass  # its buffer is full of wakes already, or a look-up ended after the sender

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                # A fault of our own must not end the thread: every lane of this process sends through it.
                logger.exception("The sender failed; it goes on.")
                sleep(0.1)
        self._close()

    def _turn(self) -> None:
        """Start what was submitted, wait for sockets, timers or wakes, and report what has finished."""
        self._start_submitted()
        self._make_room()
        self._asleep = True
        happened = self._sockets.wait(self._seconds_left())
        self._asleep = False
        for fd, what in self._sockets.read(happened):
            if fd == self._wake_fd:
                self._wake_out.recv(4096)
            else:
                self._multi.socket_action(fd, what)
        if self._deadline is not None and monotonic() >= self._deadline:
            self._deadline = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._start_found()
        self._finish_completed()

    def _seconds_left(self) -> float | None:
        if self._submitted or self._gates:
            return 0.0
        waits = [max(0.0, deadline - monotonic()) for deadline in (self._deadline, self._names.deadline()) if deadline is not None]
        if self._places.free > 0 and (turn_s := self._turns.wait_s()) is not None:
            waits.append(turn_s)
        return min(waits, default=None)

    def _set_timer(self, timeout_ms: int) -> None:
        self._deadline = None if timeout_ms < 0 else monotonic() + timeout_ms / 1000

    def _start_submitted(self) -> None:
        while self._submitted:
            request = self._submitted.popleft()
            self._places.take(request.tenant)
            self._start(request)
        now, turns = monotonic(), self._turns
        while self._gates:
            turns.add(self._gates.popleft(), now)
        # Not too many before the sockets are looked at again: thousands of endpoints with a backlog must not starve those
        # that have answered already. Past what this process may open, requests wait for others to end instead of failing.
        left = min(MAX_STARTS, int(self._places.free))
        while left > 0 and (gate := turns.next(now)) is not None:
            left -= self._start_from(gate, now, left)
            turns.add(gate, now)

    def _start_from(self, gate: Gate, now: float, most: int) -> int:
        """Start the next request of a gate, or as many as may be if nobody else waits for a turn. Returns how many."""
        most = 1 if gate.interval_s or self._turns.others else most
        for started in range(most):
            if not gate.can_start(now) or (started and not self._places.may_take(gate.tenant)):
                return started
            try:
                request = gate.waiting.popleft()
            except IndexError:
                return max(started, 1)  # it was withdrawn this instant
            gate.started(now)
            request.tenant = gate.tenant
            self._places.take(request.tenant)
            self._start(request)
        return most

    def _start(self, request: Request) -> None:
        """Begin the request, once the addresses of its host are known."""
        host = name_and_port(request.url)
        if host is None:
            self._begin(request)
        elif addresses := self._names.addresses(host[0], request.tenant):
            self._begin(request, entry(*host, addresses))
        else:
            self._names.wait(*host, request)

    def _make_room(self) -> None:
        """Let libcurl keep as many idle connections as it may, besides those that are in use."""
        wanted = self._most_idle + -(-len(self._busy) // CONNECTIONS_STEP) * CONNECTIONS_STEP
        if wanted != self._most_connections:
            self._most_connections = wanted
            self._multi.setopt(pycurl.M_MAXCONNECTS, wanted)

    def _start_found(self) -> None:
        """Begin what has waited for a name that is known by now, and report what has waited in vain."""
        for wait, addresses, reason in self._names.ready():
            if addresses:
                self._begin(wait.request, entry(wait.name, wait.port, addresses), wait.waited_ms)
            else:
                self._give_up(wait, Error.DNS, f"Could not resolve host: {wait.name} ({reason})")
        for wait, addresses in self._names.expired():
            if addresses:
                self._begin(wait.request, entry(wait.name, wait.port, addresses), wait.waited_ms)
            else:
                self._give_up(wait, Error.TIMEOUT, f"Could not resolve host: {wait.name} (no answer after {wait.request.timeout_ms} ms)")

    def _give_up(self, wait: Wait, error: Error, detail: str) -> None:
        timings = Timings(0.0, 0.0, 0.0, 0.0, wait.waited_ms)
        self._hand_over(wait.request, Result(wait.request.tag, wait.started_at, None, error, detail, timings, "", b"", 0))

    def _begin(self, request: Request, known: str = "", waited_ms: float = 0.0) -> None:
        transfer = self._idle.pop() if self._idle else Transfer(self.door, self._authorities, self._sockets.opened)
        try:
            transfer.begin(request, known, waited_ms)
            self._busy[transfer.curl] = transfer
            self._multi.add_handle(transfer.curl)
        except (pycurl.error, ValueError, UnicodeError) as error:
            self._busy.pop(transfer.curl, None)
            self._report(transfer, transfer.result(None, Error.BAD_URL, unsendable(error)))

    def _finish_completed(self) -> None:
        while True:
            queued, good, bad = self._multi.info_read()
            for curl in good:
                transfer = self._release(curl)
                self._report(transfer, transfer.answered())
            for curl, code, detail in bad:
                transfer = self._release(curl)
                self._report(transfer, transfer.failed(code, detail))
            if not queued:
                return

    def _release(self, curl: Any) -> Transfer:
        self._multi.remove_handle(curl)
        return self._busy.pop(curl)

    def _report(self, transfer: Transfer, result: Result) -> None:
        """Pass the result on and keep the transfer for another request."""
        request, transfer.request = transfer.request, None
        assert request is not None
        if transfer.reusable and len(self._idle) < MAX_IDLE_HANDLES:
            self._idle.append(transfer)
        else:
            transfer.curl.close()
        self._hand_over(request, result)

    def _hand_over(self, request: Request, result: Result) -> None:
        self._places.give_back(request.tenant)
        self._turns.freed(request.tenant)
        if request.gate:
            request.gate.ended(result)
            self._turns.add(request.gate, monotonic())
        request.inbox.put(result, urgent=request.urgent)

    def _close(self) -> None:
        for curl in list(self._busy):
            self._multi.remove_handle(curl)
        self._multi.close()
        self._sockets.close()
        self._wake_in.close()
        self._wake_out.close()


def _descriptors() -> int:
    """How many descriptors this process may have, after asking for as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


_senders: dict[Door, Sender] = {}
_senders_lock = threading.Lock()


def sender(*, operators: bool = False) -> Sender:
    """This process's sender: for URLs that are the operator's own word, or for everybody's."""
    door = Door(everything=True) if operators else Door(allowed=tuple(settings.JETRELAY_ALLOWED_NETWORKS))
    with _senders_lock:
        if door not in _senders:
            _senders[door] = Sender(door)
        return _senders[door]


def stop_senders() -> None:
    """End this process's senders. New ones start when they are asked for."""
    with _senders_lock:
        while _senders:
            _senders.popitem()[1].stop()
