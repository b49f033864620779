"""The site on a few threads of its own, in fair turns; and what says whether it lives, which waits for none of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jetrelay import askers, busy, health, places
from jetrelay.fair_threads import Busy, FairThreads
from jetrelay.shares import Asker, GuardedShares

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class OnFairThreads:
    """The same application on `threads` of its own. All of an answer is made there, but for large files: their clients take them as they like."""

    def __init__(self, site: Wsgi, threads: int, calls: int, name: str, streams: int = 1) -> None:
        self._site = site
        self._threads: FairThreads[Iterable[bytes]] = FairThreads(threads, calls, places.TURN_WITHIN_S, name)
        self._streams = GuardedShares(streams)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        asker, said = environ[askers.NAME], _Said()
        try:
            answer = self._threads.run(asker, lambda: _made(self._site, environ, said))
        except Busy:
            return busy.refuse(environ, start_response, busy.CALLS)
        if not isinstance(answer, list):
            # A client that reads nothing of it keeps a thread of the server's for as long as it likes.
            if not self._streams.take(asker):
                _close(answer)
                return busy.refuse(environ, start_response, busy.CALLS)
            answer = _Streamed(answer, self._streams, asker)
        start_response(*said.said)
        return answer


class Vital:
    """In front of the site: `/health` on the server's own thread, with no database, and two more paths on threads apart from the site's."""

    def __init__(self, site: Wsgi, vital: Wsgi) -> None:
        self._site, self._inside = site, vital
        self._apart = {path: OnFairThreads(vital, places.VITAL_THREADS, places.VITAL_CALLS, path) for path in ("/health/ready", "/metrics")}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/health":
            environ[health.FOUND] = health.watch.problems()
            said = _Said()
            answer = _made(self._inside, environ, said)
            start_response(*said.said)
            return answer
        return self._apart.get(path, self._site)(environ, start_response)


class _Said:
    """What an application says first. It is passed on once there is leave for the rest."""

    def __init__(self) -> None:
        self.said: tuple[Any, ...] = ()

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        self.said = (status, headers)


def _made(site: Wsgi, environ: Environ, said: _Said) -> Iterable[bytes]:
    """The answer as a list, and everything that it used given back; a large file as it is."""
    answer = site(environ, said)
    if isinstance(answer, list) or (getattr(answer, "streaming", False) and not _is_small(said)):
        return answer
    try:
        return [b"".join(answer)]
    finally:
        _close(answer)


def _is_small(said: _Said) -> bool:
    length = next((value for name, value in said.said[1] if name.lower() == "content-length"), "")
    return length.isdecimal() and int(length) <= places.STREAMED_FROM_BYTES


def _close(answer: Iterable[bytes]) -> None:
    if hasattr(answer, "close"):
        answer.close()


class _Streamed:
    """An answer that gives its place back when the server has done with it."""

    def __init__(self, answer: Iterable[bytes], places: GuardedShares, asker: Asker) -> None:
        self._answer, self._places, self._asker = answer, places, asker
        self._held = True

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        try:
            _close(self._answer)
        finally:
            if self._held:
                self._held = False
                self._places.give_back(self._asker)
