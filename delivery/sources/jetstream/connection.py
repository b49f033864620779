"""One WebSocket connection to a Jetstream on the v1 wire. Bytes in, frames out; no model, no database."""

import os
import socket
import threading
from typing import Any
from urllib.parse import urlencode

import certifi
import msgspec
import websocket
from websocket._abnf import ABNF, continuous_frame, frame_buffer

from delivery.sources.jetstream.frames import MAX_FRAME
from subscriptions.matching import Wanted

CONNECT_TIMEOUT_S = 10.0
# After this much silence a ping goes out; after as much again the host counts as gone.
SILENCE_S = 30.0
# A message that is larger than this is not skipped but ends the connection: no event is near it. In bytes.
_MAX_SKIPPED = 64 * 1024 * 1024
# Filters longer than this do not go into the URL: servers refuse long request lines. In characters.
_MAX_QUERY = 4000


class Disconnected(Exception):
    """The connection could not be made, or it ended; the message says how."""


class _BoundedFrames(frame_buffer):
    """websocket-client's frame reader, which would hold a frame of any size in memory."""

    _kept = b""
    _left = 0

    def recv_strict(self, bufsize: int) -> bytes:
        if bufsize <= MAX_FRAME:
            return bytes(super().recv_strict(bufsize))
        if bufsize > _MAX_SKIPPED:
            raise websocket.WebSocketProtocolException(f"a frame claims to have {bufsize:,} bytes")
        # One byte more than allowed is kept, so that the parser refuses it by its size; the rest is read and dropped.
        # A timeout may interrupt this anywhere: the next call goes on from there.
        if not self._kept:
            self._kept = bytes(super().recv_strict(MAX_FRAME + 1))
            self._left = bufsize - len(self._kept)
        while self._left:
            self._left -= len(super().recv_strict(min(self._left, 65_536)))
        kept, self._kept = self._kept, b""
        return kept


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
        self.frame_buffer = _BoundedFrames(self._recv, skip_utf8_validation=True)
        self.cont_frame = _BoundedParts(fire_cont_frame=False, skip_utf8_validation=True)


class Connection:
    """An open subscription. `receive` belongs to one thread; `update` and `close` may come from another."""

    def __init__(self, url: str, wanted: Wanted, cursor: int | None, user_agent: str) -> None:
        self._closing = threading.Lock()
        hello = len(query(wanted, cursor)) > _MAX_QUERY
        asked = query(Wanted(), cursor, hello=True) if hello else query(wanted, cursor)
        try:
            # Validation of UTF-8 is the parser's: the library's own, in Python, is slower than all the rest.
            self._socket = websocket.create_connection(
                f"{url}?{asked}" if asked else url,
                timeout=CONNECT_TIMEOUT_S,
                class_=_WebSocket,
                skip_utf8_validation=True,
                enable_multithread=True,
                header=[f"User-Agent: {user_agent}"],
                suppress_origin=True,
                redirect_limit=0,
                sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                sslopt={} if os.environ.get("SSL_CERT_FILE") else {"ca_certs": certifi.where()},
            )
        except websocket.WebSocketBadStatusException as error:
            raise Disconnected(_refusal(error)) from error
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise Disconnected(f"cannot connect: {error}") from error
        self._socket.settimeout(SILENCE_S)
        if hello:
            try:
                self.update(wanted)
            except Disconnected:
                self.close()
                raise

    def receive(self) -> bytes:
        """The next message, as it came over the wire. Raises Disconnected; never returns a control frame."""
        silent = False
        while True:
            try:
                code, data = self._socket.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException as error:
                if silent:
                    raise Disconnected(f"no word from the host for {2 * SILENCE_S:.0f} s, not even a pong") from error
                silent = True
                self._ping()
                continue
            except (websocket.WebSocketException, OSError, ValueError) as error:
                # ValueError: `close` was called while this waited for the socket.
                raise Disconnected(str(error) or type(error).__name__) from error
            if code in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
                return bytes(data)
            if code == websocket.ABNF.OPCODE_CLOSE:
                raise Disconnected(_close_reason(bytes(data)))
            silent = False

    def update(self, wanted: Wanted) -> None:
        """Replace the filter of the running connection. Raises Disconnected."""
        payload = {"wantedCollections": wanted.collections, "wantedDids": wanted.dids, "maxMessageSizeBytes": 0}
        message = msgspec.json.encode({"type": "options_update", "payload": payload})
        try:
            self._socket.send(message.decode())
        except (websocket.WebSocketException, OSError) as error:
            raise Disconnected(str(error)) from error

    def close(self) -> None:
        """End the connection, also under a thread that is waiting in `receive`."""
        with self._closing:
            try:
                if self._socket.sock is not None:
                    self._socket.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
            self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _ping(self) -> None:
        try:
            self._socket.ping()
        except (websocket.WebSocketException, OSError) as error:
            raise Disconnected(str(error)) from error


def query(wanted: Wanted, cursor: int | None, *, hello: bool = False) -> str:
    """The query string of a subscription."""
    fields: list[tuple[str, str]] = [("wantedCollections", each) for each in wanted.collections]
    fields += [("wantedDids", did) for did in wanted.dids]
    if cursor is not None:
        fields.append(("cursor", str(cursor)))
    if hello:
        fields.append(("requireHello", "true"))
    return urlencode(fields, safe="*:.")


def _refusal(error: websocket.WebSocketBadStatusException) -> str:
    body = getattr(error, "resp_body", None) or b""
    text = body.decode(errors="replace").strip()[:200] if isinstance(body, bytes) else str(body)[:200]
    return f"the host answered {error.status_code}{f': {text}' if text else ''}"


def _close_reason(data: bytes) -> str:
    code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
    reason = data[2:].decode(errors="replace")
    return f"closed by the host with code {code}{f' ({reason})' if reason else ''}"
