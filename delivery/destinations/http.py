"""The only door to user-supplied addresses: POST requests on libcurl's multi interface.

A `Sender` is one thread that owns every connection of one `Door`. Lanes hand it requests and find the results in
their own `Inbox`; libcurl works outside the GIL meanwhile. There is one sender for each door in a process, because
libcurl reuses connections by host and port: a connection that the operator's own URL may have must never serve a
tenant's request to the same address.

Rules kept here: the address is checked when its socket is opened; redirects are not followed; no proxy, cookie or
netrc comes from the environment; only http and https; bodies are read to 64 KiB and kept to 4 KiB.
"""

import logging
import resource
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic, sleep, time
from typing import Any

import certifi
import pycurl
from django.conf import settings

from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Error, Gate, Request, Result, Timings
from delivery.destinations.turns import Turns

logger = logging.getLogger(__name__)

MAX_READ_BODY = 64 * 1024
MAX_KEPT_BODY = 4 * 1024
MAX_KEPT_HEADERS = 4 * 1024
# Connections kept open for reuse, over all endpoints of a process.
MAX_IDLE_CONNECTIONS = 1024
# Fifty endpoints that hang take 1,600 descriptors; the usual soft limit is 1,024.
MAX_DESCRIPTORS = 65_536
# Requests open at once in one sender, over all endpoints, where the descriptors allow it; and started in one turn.
MAX_OPEN = 4096
MAX_STARTS = 64


# libcurl's numbers that pycurl has no name for.
_E_HTTP2_STREAM, _E_TOO_LARGE = 92, 100

_ERRORS = {
    pycurl.E_COULDNT_RESOLVE_HOST: Error.DNS,
    pycurl.E_COULDNT_CONNECT: Error.CONNECT,
    pycurl.E_OPERATION_TIMEDOUT: Error.TIMEOUT,
    pycurl.E_SSL_CONNECT_ERROR: Error.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: Error.TLS,
    pycurl.E_SSL_CERTPROBLEM: Error.TLS,
    pycurl.E_SSL_CIPHER: Error.TLS,
    pycurl.E_RECV_ERROR: Error.RESET,
    pycurl.E_SEND_ERROR: Error.RESET,
    pycurl.E_GOT_NOTHING: Error.EMPTY_RESPONSE,
    pycurl.E_PARTIAL_FILE: Error.BAD_RESPONSE,
    pycurl.E_FTP_WEIRD_SERVER_REPLY: Error.BAD_RESPONSE,
    pycurl.E_UNSUPPORTED_PROTOCOL: Error.BAD_URL,
    pycurl.E_URL_MALFORMAT: Error.BAD_URL,
    pycurl.E_HTTP2: Error.BAD_RESPONSE,
    _E_HTTP2_STREAM: Error.BAD_RESPONSE,
    pycurl.E_BAD_CONTENT_ENCODING: Error.BAD_RESPONSE,
    _E_TOO_LARGE: Error.BAD_RESPONSE,
}
# How libcurl's E_RECV_ERROR starts when the connection is well and the answer is not.
_UNREADABLE = ("Too large response headers", "chunk hex-length", "Invalid chunk")
# We stopped reading a body that had grown past its bound: the status line is what counts.
_READ_ENOUGH = frozenset({pycurl.E_WRITE_ERROR, pycurl.E_FILESIZE_EXCEEDED})


class _Socket(socket.socket):
    """pycurl takes a duplicate of the descriptor and drops this object, which is then no leak to be warned of."""

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True)
class _Transfer:
    """A reusable libcurl handle with the buffers its callbacks fill."""

    curl: Any
    request: Request | None = None
    started_at: float = 0.0
    headers: list[bytes] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    read: int = 0
    refusal: str = ""

    def write(self, chunk: bytes) -> int | None:
        room = MAX_KEPT_BODY - len(self.body)
        if room > 0:
            self.body += chunk[:room]
        self.read += len(chunk)
        return None if self.read <= MAX_READ_BODY else -1


class Sender:
    """One thread and one libcurl multi handle. `submit` may be called from any thread."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._submitted: deque[Request] = deque()
        # Gates where something new waits, or a place has come free.
        self._gates: deque[Gate] = deque()
        self._turns = Turns()
        self._idle: list[_Transfer] = []
        # libcurl knows nothing of our objects: a busy handle leads back to its transfer.
        self._busy: dict[Any, _Transfer] = {}
        self._selector = selectors.DefaultSelector()
        self._deadline: float | None = None
        # The rest is for idle connections, the database, the broker, and another sender.
        self._most_open = min(MAX_OPEN, _descriptors() // 3)
        self._stopping = False
        self._asleep = False
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, min(MAX_IDLE_CONNECTIONS, self._most_open))
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
        except BlockingIOError:
            pass  # its buffer is full of wakes already

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._selector.register(self._wake_out, selectors.EVENT_READ)
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
        self._asleep = True
        ready = self._selector.select(self._seconds_left())
        self._asleep = False
        for key, events in ready:
            if key.fd == self._wake_out.fileno():
                self._wake_out.recv(4096)
            else:
                self._multi.socket_action(key.fd, _CURL_EVENTS[events])
        if self._deadline is not None and monotonic() >= self._deadline:
            self._deadline = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._finish_completed()

    def _seconds_left(self) -> float | None:
        if self._submitted or self._gates:
            return 0.0
        waits = [] if self._deadline is None else [max(0.0, self._deadline - monotonic())]
        if len(self._busy) < self._most_open and (turn_s := self._turns.wait_s()) is not None:
            waits.append(turn_s)
        return min(waits, default=None)

    def _set_timer(self, timeout_ms: int) -> None:
        self._deadline = None if timeout_ms < 0 else monotonic() + timeout_ms / 1000

    def _watch_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        watched = fd in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if watched:
                self._selector.unregister(fd)
        else:
            if watched:
                try:
                    self._selector.modify(fd, _SELECTOR_EVENTS[what])
                    return
                except OSError:
                    self._selector.unregister(fd)  # another socket has this number by now
            self._selector.register(fd, _SELECTOR_EVENTS[what])

    def _start_submitted(self) -> None:
        while self._submitted:
            self._start(self._submitted.popleft())
        now, turns = monotonic(), self._turns
        while self._gates:
            turns.add(self._gates.popleft(), now)
        # Not too many before the sockets are looked at again: thousands of endpoints with a backlog must not starve those
        # that have answered already. Past what this process may open, requests wait for others to end instead of failing.
        left = min(MAX_STARTS, self._most_open - len(self._busy))
        while left > 0 and (gate := turns.next(now)) is not None:
            left -= self._start_from(gate, now, left)
            turns.add(gate, now)

    def _start_from(self, gate: Gate, now: float, most: int) -> int:
        """Start the next request of a gate, or as many as may be if nobody else waits for a turn. Returns how many."""
        most = 1 if gate.interval_s or self._turns.others else most
        for started in range(most):
            if not gate.can_start(now):
                return started
            try:
                request = gate.waiting.popleft()
            except IndexError:
                return max(started, 1)  # it was withdrawn this instant
            gate.started(now)
            self._start(request)
        return most

    def _start(self, request: Request) -> None:
        transfer = self._idle.pop() if self._idle else self._new_transfer()
        transfer.request = request
        transfer.started_at = time()
        curl = transfer.curl
        try:
            curl.setopt(pycurl.URL, request.url)
            curl.setopt(pycurl.HTTPHEADER, request.headers() if callable(request.headers) else request.headers)
            curl.setopt(pycurl.POSTFIELDS, request.body)
            curl.setopt(pycurl.TIMEOUT_MS, request.timeout_ms)
            self._busy[curl] = transfer
            self._multi.add_handle(curl)
        except (pycurl.error, ValueError, UnicodeError) as error:
            self._busy.pop(curl, None)
            self._report(transfer, Error.BAD_URL, str(error), None)

    def _finish_completed(self) -> None:
        while True:
            queued, good, bad = self._multi.info_read()
            for curl in good:
                transfer = self._release(curl)
                self._report(transfer, None, "", curl.getinfo(pycurl.RESPONSE_CODE))
            for curl, code, detail in bad:
                transfer = self._release(curl)
                status = curl.getinfo(pycurl.RESPONSE_CODE) or None
                if code in _READ_ENOUGH and status:
                    self._report(transfer, None, "", status)
                elif transfer.refusal and code == pycurl.E_COULDNT_CONNECT:
                    self._report(transfer, Error.REFUSED_ADDRESS, transfer.refusal, None)
                else:
                    self._report(transfer, _named(code, detail, curl), detail or f"libcurl error {code}", None)
            if not queued:
                return

    def _release(self, curl: Any) -> _Transfer:
        self._multi.remove_handle(curl)
        return self._busy.pop(curl)

    def _report(self, transfer: _Transfer, error: Error | None, detail: str, status: int | None) -> None:
        """Pass the result on and make the transfer ready for another request."""
        request, info = transfer.request, transfer.curl.getinfo
        assert request is not None
        timings = Timings(
            info(pycurl.NAMELOOKUP_TIME) * 1000,
            info(pycurl.CONNECT_TIME) * 1000,
            info(pycurl.APPCONNECT_TIME) * 1000,
            info(pycurl.STARTTRANSFER_TIME) * 1000,
            info(pycurl.TOTAL_TIME) * 1000,
        )
        retry_after = info(pycurl.RETRY_AFTER) if status in (429, 503) else 0
        headers = b"".join(transfer.headers)[:MAX_KEPT_HEADERS].decode("latin-1").replace("\0", "") if transfer.headers else ""
        # libcurl quotes hosts with whatever bytes they have; a database takes neither half characters nor NUL.
        detail = detail.encode(errors="replace").decode().replace("\0", "")
        result = Result(request.tag, transfer.started_at, status, error, detail, timings, headers, bytes(transfer.body), retry_after)
        transfer.request = None
        transfer.headers.clear()
        transfer.body.clear()
        transfer.read, transfer.refusal = 0, ""
        self._idle.append(transfer)
        if request.gate:
            request.gate.ended(result)
            self._turns.add(request.gate, monotonic())
        request.inbox.put(result, urgent=request.urgent)

    def _new_transfer(self) -> _Transfer:
        curl = pycurl.Curl()
        transfer = _Transfer(curl)
        for option, value in _OPTIONS:
            curl.setopt(option, value)
        curl.setopt(pycurl.HEADERFUNCTION, transfer.headers.append)
        curl.setopt(pycurl.WRITEFUNCTION, transfer.write)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._opener(transfer))
        return transfer

    def _opener(self, transfer: _Transfer) -> Callable[[int, Any], Any]:
        def open_socket(_purpose: int, address: Any) -> Any:
            family, kind, protocol, where = address
            refusal = self.door.refusal(where[0]) if family in (socket.AF_INET, socket.AF_INET6) else f"address family {family}"
            if refusal:
                transfer.refusal = refusal
                return pycurl.SOCKET_BAD
            # Another address of the same name may still be refused: only the last word counts if none connects.
            transfer.refusal = ""
            return _Socket(family, kind, protocol)

        return open_socket

    def _close(self) -> None:
        for curl in list(self._busy):
            self._multi.remove_handle(curl)
        self._multi.close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()


def _named(code: int, detail: str, curl: Any) -> Error:
    """Our name for libcurl's error. It uses two of its numbers for HTTP that it cannot read as well."""
    unreadable = (code == pycurl.E_UNSUPPORTED_PROTOCOL and curl.getinfo(pycurl.PRIMARY_IP)) or (code == pycurl.E_RECV_ERROR and detail.startswith(_UNREADABLE))
    return Error.BAD_RESPONSE if unreadable else _ERRORS.get(code, Error.OTHER)


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


_OPTIONS: tuple[tuple[int, Any], ...] = (
    (pycurl.POST, 1),
    (pycurl.NOSIGNAL, 1),
    (pycurl.FOLLOWLOCATION, 0),
    (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
    (pycurl.PROXY, ""),
    (pycurl.NOPROXY, "*"),
    (pycurl.CAINFO, certifi.where()),
    # A pause before reading is no reason to hold a request back: keep-alive probes find dead peers.
    (pycurl.TCP_KEEPALIVE, 1),
    (pycurl.TCP_NODELAY, 1),
)
_SELECTOR_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}
_CURL_EVENTS = {
    selectors.EVENT_READ: pycurl.CSELECT_IN,
    selectors.EVENT_WRITE: pycurl.CSELECT_OUT,
    selectors.EVENT_READ | selectors.EVENT_WRITE: pycurl.CSELECT_IN | pycurl.CSELECT_OUT,
}
