"""Receivers that are hard on whoever delivers to them. Run as a process:

    python -m jetrelay.bench.greedy.receivers PORT KIND

- `wordy`: 290 KB of headers and 128 KB of body with each answer, at once.
- `trickling`: the same headers, and then one more line a second, without an end.
- `failing`: 500, at once.
"""

import asyncio
import contextlib
import os
import sys

from jetrelay.bench.sink import FramingOnly

# libcurl gives up at 300 KB of headers (curl 8.4, CVE-2023-38039): as many as it takes.
_HEADERS = b"".join(b"X-Word-%d: %s\r\n" % (number, b"w" * 7980) for number in range(36))
_LINE = b"X-Word: again\r\n"
_BODY = b"b" * 128 * 1024


class Wordy(FramingOnly):
    _ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(_BODY), _HEADERS, _BODY)


class Trickling(FramingOnly):
    _ANSWER = b"HTTP/1.1 200 OK\r\n" + _HEADERS

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._go_on()

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_LINE)
            asyncio.get_running_loop().call_later(1.0, self._go_on)


class Failing(FramingOnly):
    _ANSWER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


KINDS = {"wordy": Wordy, "trickling": Trickling, "failing": Failing}


async def _serve(port: int, kind: str) -> None:
    server = await asyncio.get_running_loop().create_server(
        KINDS[kind],
        "127.0.0.1",
        port,
        backlog=4096,
    )
    await server.serve_forever()


if __name__ == "__main__":
    # It stands for another machine.
    os.nice(5)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
