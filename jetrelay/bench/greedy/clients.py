"""Clients that ask the same thing again and again until they are told to stop. Run as a process:

    python -m jetrelay.bench.greedy.clients SITE LOADS.json ANSWERS.json REQUESTS

They say so once all of them have asked, and count what they are answered. They stand for other
machines: they run at a lower priority, so that what they take of the processor counts less.
"""

import json
import os
import signal
import sys
from collections import Counter, deque
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pycurl

# Nobody who is refused asks again without a breath: it would be the clients' own work that slows
# the others down.
_BREATH_S = 0.1
_TIMEOUT_MS = 120_000
_NUMBERS = count()
ASKED = "all have asked"
# In place of a status: no answer came; none has come yet.
NONE, OPEN = 0, -1


class _Client:
    """One connection, which asks for what its load says."""

    def __init__(self, site: str, load: dict[str, Any], number: int) -> None:
        self._site, self._load = site, load
        credentials = load["credentials"]
        own = [credentials[number % len(credentials)]] if credentials else []
        self._headers, self.curl = [*own, *load["headers"], "Expect:"], pycurl.Curl()
        self._body: bytes = load["body"].encode()
        self.curl.setopt(pycurl.CUSTOMREQUEST, load["method"])
        self.curl.setopt(pycurl.PROXY, "")
        self.curl.setopt(pycurl.TIMEOUT_MS, _TIMEOUT_MS)
        self.curl.setopt(pycurl.WRITEFUNCTION, len)
        self.ready_at = 0.0

    def begin(self) -> None:
        number = str(next(_NUMBERS))

        def filled(text: str) -> str:
            return text.replace("%n%", number)

        self.curl.setopt(pycurl.URL, self._site + filled(self._load["path"]))
        self.curl.setopt(pycurl.HTTPHEADER, [filled(line) for line in self._headers])
        if self._body:
            self.curl.setopt(pycurl.POSTFIELDS, self._body.replace(b"%n%", number.encode()))

    def end(self, *, answered: bool) -> int:
        status = int(self.curl.getinfo(pycurl.RESPONSE_CODE)) if answered else NONE
        self.ready_at = monotonic() + (0.0 if 200 <= status < 400 else _BREATH_S)
        return status


class _Crowd:
    """All of the clients on one thread."""

    def __init__(self, site: str, loads: list[dict[str, Any]]) -> None:
        self._multi = pycurl.CurlMulti()
        self._waiting, self._busy = deque[_Client](), dict[pycurl.Curl, _Client]()
        for load in loads:
            self._waiting += [_Client(site, load, number) for number in range(load["connections"])]
        self.answers = Counter[int]()
        self.told = False

    def run(self, most: int) -> None:
        """Until told to stop; or until there are so many answers, if that is not 0."""
        said = False
        while not self.told and not (most and self.answers.total() >= most):
            self._begin(most)
            self._multi.perform()
            if not said:
                print(ASKED, flush=True)
                said = True
            _, good, bad = self._multi.info_read()
            for curl in good:
                self._end(curl, answered=True)
            for curl, *_ in bad:
                self._end(curl, answered=False)
            if not good and not bad:
                self._multi.select(_BREATH_S)
        self.answers[OPEN] = len(self._busy)

    def _begin(self, most: int) -> None:
        for _ in range(len(self._waiting)):
            client = self._waiting.popleft()
            enough = most and self.answers.total() + len(self._busy) >= most
            if enough or client.ready_at > monotonic():
                self._waiting.append(client)
                continue
            client.begin()
            self._multi.add_handle(client.curl)
            self._busy[client.curl] = client

    def _end(self, curl: pycurl.Curl, *, answered: bool) -> None:
        self._multi.remove_handle(curl)
        client = self._busy.pop(curl)
        self.answers[client.end(answered=answered)] += 1
        self._waiting.append(client)


def _main(site: str, loads: str, answers: str, most: str) -> None:
    os.nice(5)
    crowd = _Crowd(site, json.loads(Path(loads).read_text()))
    signal.signal(signal.SIGTERM, lambda *_: setattr(crowd, "told", True))
    crowd.run(int(most))
    Path(answers).write_text(json.dumps(crowd.answers))


if __name__ == "__main__":
    _main(*sys.argv[1:])
