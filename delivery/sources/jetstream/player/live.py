"""A log that grows while clients are connected: for tests, which say what happens next."""

import threading
from collections.abc import Callable, Iterable

from delivery.sources.jetstream.player.log import FileLog


class LiveLog(FileLog):
    """What has been appended so far. A client without a cursor joins at the end, one with a cursor replays to it.

    Any thread may append; clients at the end are told at once.
    """

    live = True

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        super().__init__(lines)
        self._appending = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    def append(self, *lines: bytes) -> None:
        """Serve these lines next."""
        with self._appending:
            for line in lines:
                self._append(line)
            watchers = list(self._watchers)
        for grown in watchers:
            grown()

    def watch(self, grown: Callable[[], None]) -> Callable[[], None]:
        with self._appending:
            self._watchers.append(grown)

        def end() -> None:
            with self._appending:
                self._watchers.remove(grown)

        return end
