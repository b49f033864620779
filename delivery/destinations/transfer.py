"""One request in libcurl's hands: a handle that is used again and again, and what has come back so far."""

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import pycurl

from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Error, Request, Result, Timings
from delivery.destinations.failures import LONG_HEADERS, named, unanswered

MAX_READ_BODY = 64 * 1024
MAX_KEPT_BODY = 4 * 1024
# Interim answers and trailers included. libcurl reads 300 KB, and keeps them all until its handle is used again: 4,096 requests
# at receivers that answer with so much cost a worker 2 GB.
MAX_READ_HEADERS = 64 * 1024
MAX_KEPT_HEADERS = 4 * 1024
# A handle that has read more is not kept for another request, and so its memory is not either.
_LARGE_HEADERS = 8 * 1024

# The longest that a connection is used, in whole seconds, and with it the longest that a host which has moved elsewhere is sent to where it
# was. libcurl looks before it uses one again: what is under way ends where it began.
CONNECTION_AGE_S = 60
# libcurl forgets the addresses it was told of after a minute, and would look them up itself. All handles share what it knows, so that
# another one may have told it of other addresses since: those are known for longer than this (`names.py`).
TOLD_AGAIN_S = 20.0

# We stopped reading a body that had grown past its bound: the status line is what counts.
_READ_ENOUGH = frozenset({pycurl.E_WRITE_ERROR, pycurl.E_FILESIZE_EXCEEDED})

_ENDS = (b"\r\n", b"\n")

_OPTIONS: tuple[tuple[int, Any], ...] = (
    (pycurl.POST, 1),
    (pycurl.NOSIGNAL, 1),
    (pycurl.FOLLOWLOCATION, 0),
    (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
    (pycurl.PROXY, ""),
    (pycurl.NOPROXY, "*"),
    # A pause before reading is no reason to hold a request back: keep-alive probes find dead peers.
    (pycurl.TCP_KEEPALIVE, 1),
    (pycurl.TCP_NODELAY, 1),
)


class _Socket(socket.socket):
    """pycurl takes a duplicate of the descriptor and drops this object, which is then no leak to be warned of."""

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True, eq=False)
class Transfer:
    """A reusable libcurl handle behind one door, with the buffers its callbacks fill."""

    door: Door
    authorities: str
    # Called for each socket that is opened.
    opened: Callable[[], None]
    curl: Any = field(default_factory=pycurl.Curl)
    request: Request | None = None
    started_at: float = 0.0
    # Milliseconds before libcurl had the request, while its name was looked up.
    waited_ms: float = 0.0
    # Of the last answer: interim ones come before it.
    lines: list[bytes] = field(default_factory=list)
    kept: int = 0
    # Of all answers to this request.
    header_bytes: int = 0
    reusable: bool = True
    body: bytearray = field(default_factory=bytearray)
    read: int = 0
    refusal: str = ""
    # What the handle has been told, and would tell libcurl again with the next request.
    url: str = ""
    timeout_ms: int = 0
    known: str = ""
    known_at: float = -math.inf

    def __post_init__(self) -> None:
        for option, value in _OPTIONS:
            self.curl.setopt(option, value)
        self.curl.setopt(pycurl.MAXLIFETIME_CONN, CONNECTION_AGE_S)
        self.curl.setopt(pycurl.CAINFO, self.authorities)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._read_header)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)

    def begin(self, request: Request, known: str, waited_ms: float) -> None:
        """Make the handle ready for a request. `known` is what is known of its host, for CURLOPT_RESOLVE.

        Raises pycurl.error, ValueError or UnicodeError where libcurl does not take the URL or a header.
        """
        now = time()
        self.request, self.waited_ms = request, waited_ms
        self.started_at = now - waited_ms / 1000
        curl = self.curl
        # What stays as it was is not said again: to say everything costs as much as the rest of this.
        if request.url != self.url:
            self.url = ""
            curl.setopt(pycurl.URL, request.url)
            self.url = request.url
        # An empty list would leave those of the request before.
        curl.setopt(pycurl.HTTPHEADER, (request.headers(now, request.body) if callable(request.headers) else request.headers) or None)
        curl.setopt(pycurl.POSTFIELDS, request.body)
        timeout_ms = max(1, round(request.timeout_ms - waited_ms))
        if timeout_ms != self.timeout_ms:
            curl.setopt(pycurl.TIMEOUT_MS, timeout_ms)
            self.timeout_ms = timeout_ms
        if known != self.known or (known and monotonic() - self.known_at > TOLD_AGAIN_S):
            curl.setopt(pycurl.RESOLVE, [known] if known else None)
            self.known, self.known_at = known, monotonic()

    def answered(self) -> Result:
        """What came of a request that libcurl is content with."""
        return self._settled(self.curl.getinfo(pycurl.RESPONSE_CODE))

    def failed(self, code: int, detail: str) -> Result:
        """What came of a request that ended with one of libcurl's errors."""
        if self.header_bytes > MAX_READ_HEADERS:
            return self.result(None, Error.BAD_RESPONSE, LONG_HEADERS)
        status = self.curl.getinfo(pycurl.RESPONSE_CODE)
        if code in _READ_ENOUGH and status:
            return self._settled(status)
        if code == pycurl.E_COULDNT_CONNECT and self.refusal:
            return self.result(None, Error.REFUSED_ADDRESS, self.refusal)
        return self.result(None, *named(code, detail, connected=bool(self.curl.getinfo(pycurl.PRIMARY_IP)), headers=b"".join(self.lines)))

    def _settled(self, status: int) -> Result:
        headers = b"".join(self.lines)
        detail = unanswered(status, headers)
        return self.result(None, Error.BAD_RESPONSE, detail, headers) if detail else self.result(status, None, "", headers)

    def result(self, status: int | None, error: Error | None, detail: str, headers: bytes | None = None) -> Result:
        """The result of the request; the transfer is then ready for another."""
        request = self.request
        assert request is not None
        shown = (b"".join(self.lines) if headers is None else headers)[:MAX_KEPT_HEADERS].decode("latin-1").replace("\0", "")
        # libcurl quotes hosts with whatever bytes they have; a database takes neither half characters nor NUL.
        detail = detail and detail.encode(errors="replace").decode().replace("\0", "")
        retry_after = self.curl.getinfo(pycurl.RETRY_AFTER) if status in (429, 503) else 0
        result = Result(request.tag, self.started_at, status, error, detail, self._timings(), shown, bytes(self.body), retry_after)
        self.reusable = self.header_bytes <= _LARGE_HEADERS
        self.lines.clear()
        self.body.clear()
        self.read, self.kept, self.header_bytes, self.refusal = 0, 0, 0, ""
        return result

    def _timings(self) -> Timings:
        info, waited_ms = self.curl.getinfo, self.waited_ms
        timings = Timings(
            info(pycurl.NAMELOOKUP_TIME) * 1000,
            info(pycurl.CONNECT_TIME) * 1000,
            info(pycurl.APPCONNECT_TIME) * 1000,
            info(pycurl.STARTTRANSFER_TIME) * 1000,
            info(pycurl.TOTAL_TIME) * 1000,
        )
        return Timings(*(ms and ms + waited_ms for ms in timings)) if waited_ms else timings

    # --- libcurl's callbacks -----------------------------------------------------------------------------------

    def _read_header(self, line: bytes) -> int | None:
        self.header_bytes += len(line)
        if line.startswith(b"HTTP/"):
            self.lines.clear()
            self.kept = 0
        if self.kept < MAX_KEPT_HEADERS:
            self.lines.append(line)
            self.kept += len(line)
        elif line in _ENDS:
            # Whether they have come to their end is looked at later.
            self.lines.append(b"\r\n\r\n")
        return None if self.header_bytes <= MAX_READ_HEADERS else -1

    def _write(self, chunk: bytes) -> int | None:
        room = MAX_KEPT_BODY - len(self.body)
        if room > 0:
            self.body += chunk[:room]
        self.read += len(chunk)
        return None if self.read <= MAX_READ_BODY else -1

    def _open_socket(self, _purpose: int, address: Any) -> Any:
        family, kind, protocol, where = address
        refusal = self.door.refusal(where[0]) if family in (socket.AF_INET, socket.AF_INET6) else f"address family {family}"
        if refusal:
            self.refusal = refusal
            return pycurl.SOCKET_BAD
        # Another address of the same name may still be refused: only the last word counts if none connects.
        self.refusal = ""
        self.opened()
        return _Socket(family, kind, protocol)
