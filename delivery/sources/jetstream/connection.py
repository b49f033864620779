"""One WebSocket connection to a Jetstream. Bytes in, frames out; no model, no database."""

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import certifi
import msgspec
import websocket
from websocket._abnf import ABNF, continuous_frame, frame_buffer

from delivery.sources.jetstream.compression import Dictionary, Undecodable
from delivery.sources.jetstream.frames import MAX_FRAME, one_line
from delivery.sources.jetstream.wires import Asked, Wire
from subscriptions.matching import Wanted

CONNECT_TIMEOUT_S = 10.0
# For connecting and the handshake together, however slowly a host answers.
HANDSHAKE_TIMEOUT_S = 20.0
# After this much silence a ping goes out; after as much again the host counts as gone.
SILENCE_S = 30.0
# A message that is larger than this is not skipped but ends the connection: no event is near it. In bytes.
_MAX_SKIPPED = 64 * 1024 * 1024
# Asked of the socket in one go: some thirty events. In bytes.
_READ_AHEAD = 16_384


class Disconnected(Exception):
    """The connection could not be made, or it ended; the message says how."""


class Refused(Disconnected):
    """The host answered the handshake with this HTTP status instead, and an error name on the v2 wire."""

    def __init__(self, status: int, body: str, retry_after_s: float | None) -> None:
        # A page of HTML says nothing that the status does not.
        words = "" if body.startswith("<") else one_line(body).rstrip(".")
        super().__init__(f"the host answered {status}{f': {words}' if words else ''}")
        self.status = status
        self.error = _error_name(body)
        self.retry_after_s = retry_after_s


class _BoundedFrames(frame_buffer):
    """websocket-client's frame reader, which would hold a frame of any size in memory, and asks the socket three times for each."""

    def __init__(self, recv: Callable[[int], bytes]) -> None:
        super().__init__(recv, skip_utf8_validation=True)
        # What has been read, and how much of it has been taken.
        self._ahead = bytearray()
        self._taken = 0
        # Of a frame that is too large.
        self._kept = b""
        self._left = 0

    def recv_strict(self, bufsize: int) -> bytes:
        if bufsize <= MAX_FRAME:
            return self._take(bufsize)
        if bufsize > _MAX_SKIPPED:
            raise websocket.WebSocketProtocolException(f"a frame claims to have {bufsize:,} bytes")
        # One byte more than allowed is kept, so that the parser refuses it by its size; the rest is read and dropped.
        # A timeout may interrupt this anywhere: the next call goes on from there.
        if not self._kept:
            self._kept = self._take(MAX_FRAME + 1)
            self._left = bufsize - len(self._kept)
        while self._left:
            self._left -= len(self._take(min(self._left, _READ_AHEAD)))
        kept, self._kept = self._kept, b""
        return kept

    def _take(self, size: int) -> bytes:
        while len(self._ahead) - self._taken < size:
            # If this is interrupted by a timeout, nothing has changed.
            self._ahead += self.recv(_READ_AHEAD)
            del self._ahead[: self._taken]
            self._taken = 0
        end = self._taken + size
        taken = bytes(self._ahead[self._taken : end])
        self._taken = end
        return taken


class _BoundedParts(continuous_frame):
    """websocket-client's collector of a message that comes in parts, which would collect without end."""

    _size = 0

    def add(self, frame: ABNF) -> None:
        size = len(frame.data)
        if self.cont_data is None:
            self._size = 0
            if not frame.fin:
                # Small parts are added to it in place.
                frame.data = bytearray(frame.data)  # type: ignore[assignment, arg-type]
        else:
            frame.data = frame.data[: MAX_FRAME + 1 - len(self.cont_data[1])]
        # Parts without content count too, or they could go on for ever.
        self._size += max(size, 1)
        if self._size > _MAX_SKIPPED:
            raise websocket.WebSocketProtocolException(f"a message in parts has more than {_MAX_SKIPPED:,} bytes")
        super().add(frame)


class _WebSocket(websocket.WebSocket):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.frame_buffer = _BoundedFrames(self._recv)
        self.cont_frame = _BoundedParts(fire_cont_frame=False, skip_utf8_validation=True)


class Connection:
    """A subscription, made by `open`. `open` and `receive` belong to one thread; `update` and `close` may come from another."""

    def __init__(self, wire: Wire, asked: Asked, user_agent: str, dictionary: Dictionary | None = None) -> None:
        self.asked = asked
        self.bytes_in = 0
        self._wire = wire
        self._user_agent = user_agent
        self._dictionary = dictionary
        self._closing = threading.Lock()
        self._telling = threading.Lock()
        # Whether the filter can be replaced.
        self.established = False
        self._silent = False
        self._closed = threading.Event()
        # Validation of UTF-8 is the parser's: the library's own, in Python, is slower than all the rest.
        self._socket = _WebSocket(skip_utf8_validation=True, enable_multithread=True, sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], sslopt=_tls())

    def open(self, silence_s: float = SILENCE_S) -> None:
        """Connect and subscribe. Raises Disconnected. `close` ends it from another thread, whatever the host does.

        After `silence_s` without a word a ping goes out; after as long again the host counts as gone.
        """
        self._silence_s = silence_s
        url, hello = self._wire.address(self.asked)
        # The library bounds every step of the handshake, but not all of them together.
        deadline = threading.Timer(HANDSHAKE_TIMEOUT_S, self.close)
        deadline.daemon = True
        deadline.start()
        try:
            self._socket.connect(url, timeout=CONNECT_TIMEOUT_S, header=[f"User-Agent: {self._user_agent}"], suppress_origin=True, redirect_limit=0)  # type: ignore[no-untyped-call]
            self._socket.settimeout(silence_s)
        except websocket.WebSocketBadStatusException as error:
            raise _refusal(error) from error
        except (websocket.WebSocketException, OSError, ValueError, AttributeError) as error:
            # OSError, AttributeError: `close` may have taken the socket away under the handshake, or right after it.
            raise Disconnected("the handshake was cut off" if self._closed.is_set() else f"cannot connect: {_words(error)}") from error
        finally:
            deadline.cancel()
        if self._closed.is_set():
            self.close()
            raise Disconnected("the handshake was cut off")
        if hello:
            try:
                self.update(lambda: self.asked.wanted)
            except Disconnected:
                self.close()
                raise
        self.established = True

    def receive(self) -> bytes | None:
        """The next message, as text. None: no event for a while, but the host is alive.

        Raises Disconnected, and Undecodable for a compressed frame that does not decompress.
        """
        if self._closed.is_set():
            # What has been read ahead is no longer wanted.
            raise Disconnected("closed from here")
        try:
            code, data = self._socket.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException as error:
            if self._silent:
                raise Disconnected(f"no word from the host for {2 * self._silence_s:.0f} s, not even a pong") from error
            self._silent = True
            self._ping()
            return None
        except (websocket.WebSocketException, OSError, ValueError, AttributeError) as error:
            # ValueError, AttributeError: `close` was called while this waited for the socket.
            raise Disconnected("closed from here" if self._closed.is_set() else _words(error)) from error
        self._silent = False
        if code in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
            self.bytes_in += len(data)
            if code == websocket.ABNF.OPCODE_BINARY and self._dictionary is not None:
                try:
                    return self._dictionary.decompress(bytes(data))
                except Undecodable as error:
                    error.frame = bytes(data)
                    raise
            return bytes(data)
        if code == websocket.ABNF.OPCODE_CLOSE:
            raise Disconnected(_close_reason(bytes(data)))
        return None

    def update(self, newest: Callable[[], Wanted | None]) -> None:
        """Replace the filter of the running connection, on the v1 wire. Raises Disconnected.

        The filter is asked for when it is its turn, so that of two changes the later one stays.
        """
        with self._telling:
            wanted = newest() or Wanted()
            payload = {"wantedCollections": wanted.collections, "wantedDids": wanted.dids, "maxMessageSizeBytes": 0}
            message = msgspec.json.encode({"type": "options_update", "payload": payload})
            try:
                self._socket.send(message.decode())
            except (websocket.WebSocketException, OSError, AttributeError) as error:
                raise Disconnected(str(error)) from error

    def close(self) -> None:
        """End the connection, also under a thread that is waiting in `open` or `receive`."""
        with self._closing:
            self._closed.set()
            try:
                if self._socket.sock is not None:
                    self._socket.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
            # Also where the library counts it as ended already: it leaves the descriptor open.
            if self._socket.sock is not None:
                self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _ping(self) -> None:
        try:
            self._socket.ping()
        except (websocket.WebSocketException, OSError, AttributeError) as error:
            raise Disconnected(str(error)) from error


def _words(error: Exception) -> str:
    return one_line(str(error).rstrip(".") or type(error).__name__)


def _tls() -> dict[str, str]:
    return {} if os.environ.get("SSL_CERT_FILE") else {"ca_certs": certifi.where()}


def _refusal(error: websocket.WebSocketBadStatusException) -> Refused:
    body = getattr(error, "resp_body", None) or b""
    text = body.decode(errors="replace").strip() if isinstance(body, bytes) else str(body)
    after = str((getattr(error, "resp_headers", None) or {}).get("retry-after", ""))
    return Refused(error.status_code, text, float(after) if after.isascii() and after.isdigit() else None)


def _error_name(body: str) -> str:
    """What an XRPC error calls itself."""
    try:
        return str(msgspec.json.decode(body, type=dict)["error"])
    except (msgspec.MsgspecError, KeyError):
        return ""


def _close_reason(data: bytes) -> str:
    code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
    reason = data[2:].decode(errors="replace")
    return f"closed by the host with code {code}{f' ({one_line(reason)})' if reason else ''}"
