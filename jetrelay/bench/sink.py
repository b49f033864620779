"""A receiver that costs next to nothing, or it would be what gets measured: nginx, else a bare asyncio protocol."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jetrelay.bench.processes import free_port, python, running, wait_for_port

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    log_format ids $http_webhook_id; access_log {journal};
    keepalive_requests 1000000000; client_body_buffer_size 64k; client_max_body_size 8m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200; }} }}
}}
"""


@contextlib.contextmanager
def sink(folder: Path, journal: Path | None = None) -> Iterator[tuple[str, str]]:
    """The URL of a running sink, and what it is. It answers under every host name.

    With a journal it writes the `webhook-id` of every request into that file, a line each, within two seconds.
    """
    port, log = free_port(), folder / "sink.log"
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx:
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, port=port, journal=f"{journal} ids buffer=64k flush=1s" if journal else "off"))
        argv, name = [nginx, "-c", str(config), "-e", str(folder / "nginx.log")], "nginx"
    else:
        argv, name = python("-m", "jetrelay.bench.sink", str(port), *([str(journal)] if journal else [])), "asyncio"
    with running(argv, dict(os.environ), log) as process:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}/sink", name


class FramingOnly(asyncio.Protocol):
    """Answers every request with 200 and looks at nothing but where it ends, and for a journal at its id. Trusts its client."""

    journal: BinaryIO | None = None
    _ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.waiting = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (head := self.waiting.find(b"\r\n\r\n")) >= 0:
            lowered = self.waiting[:head].lower()
            at = lowered.find(b"content-length:")
            size = int(lowered[at + 15 :].split(b"\r", 1)[0]) if at >= 0 else 0
            if len(self.waiting) < head + 4 + size:
                return
            if self.journal:
                at = lowered.find(b"webhook-id:")
                self.journal.write(lowered[at + 11 :].split(b"\r", 1)[0].strip() + b"\n")
            del self.waiting[: head + 4 + size]
            self.transport.write(self._ANSWER)


async def _serve(port: int, journal: str = "") -> None:
    if journal:
        FramingOnly.journal = Path(journal).open("ab", buffering=0)  # noqa: SIM115  open until this process ends
    server = await asyncio.get_running_loop().create_server(FramingOnly, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), *sys.argv[2:]))
