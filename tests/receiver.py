"""A local endpoint for tests: a real HTTP server on a free port that remembers every request."""

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[["Handler", Received], None]


class Handler(BaseHTTPRequestHandler):
    """One request. An answer may write to `wfile` itself, or use `reply`."""

    protocol_version = "HTTP/1.1"
    # An answer in two packets must not wait 40 ms for the first one to be acknowledged.
    disable_nagle_algorithm = True
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        received = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body, monotonic())
        self.server.receiver.remember(received)
        self.server.receiver.answer(self, received)

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def abort(self) -> None:
        """Close with a reset instead of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    receiver: "Receiver"

    def handle_error(self, *_: Any) -> None:
        pass  # a client that went away is what some tests are about


class Receiver:
    """`answer` may be replaced at any time; `wait_for` waits for requests, never for time."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answer: Answer = lambda handler, _: handler.reply(200, b"ok")
        # Set at the end, for answers that hang until then.
        self.closing = threading.Event()
        self._arrived = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.receiver = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def remember(self, received: Received) -> None:
        with self._arrived:
            self.requests.append(received)
            self._arrived.notify_all()

    def wait_for(self, enough: Callable[[list[Received]], bool], timeout_s: float = 30) -> list[Received]:
        """The requests, once they are enough. Raises TimeoutError with what there was instead."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: enough(self.requests), timeout_s):
                raise TimeoutError(f"after {timeout_s} s there are {len(self.requests)} requests")
            return list(self.requests)
