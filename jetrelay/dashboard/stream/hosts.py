"""How the hosts of the stream are doing, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from django.utils import timezone

from delivery.models import StreamHost
from delivery.sources.incoming import moment
from delivery.sources.jetstream.position import FIRST_TIME_US
from jetrelay.dashboard.words import ago

# A living listener renews `seen_at` every few seconds.
ALIVE = timedelta(seconds=10)
# Of the hosts that are no longer listened to, so many are shown: every demo leaves one behind.
PAST_SHOWN = 5


@dataclass(frozen=True)
class Alarm:
    """A collection that a host leaves out and another one brings."""

    collection: str
    brought_by: str
    since: datetime
    missed: int

    @classmethod
    def read(cls, shown: dict[str, object]) -> Self:
        since = datetime.fromisoformat(str(shown["since"]))
        return cls(str(shown["collection"]), str(shown["brought_by"]), since.astimezone(UTC), int(str(shown["missed"])))


@dataclass(frozen=True)
class Stream:
    """One host. `current`: the listener that runs, or that ran last, listens to it; `alive`: it does so now."""

    row: StreamHost
    current: bool
    alive: bool
    connected: bool
    words: str

    @property
    def host(self) -> str:
        return self.row.host

    @property
    def tone(self) -> str:
        return "good" if self.connected else "bad" if self.current else "still"

    @property
    def icon(self) -> str:
        return "check" if self.connected else "cross" if self.current else "minus"

    @property
    def label(self) -> str:
        return "stream connected" if self.connected else "stream not connected" if self.current else "no longer listened to"

    @property
    def alarms(self) -> list[Alarm]:
        """What it leaves out. A listener that has stopped compares nothing."""
        return [Alarm.read(shown) for shown in self.row.partial] if self.alive else []

    @property
    def cursor_at(self) -> datetime | None:
        """The time that its cursor stands for; None when there is none, or when it is a number of the host's own."""
        return moment(self.row.cursor) if self.row.cursor is not None and self.row.cursor >= FIRST_TIME_US else None

    @property
    def lag_s(self) -> float | None:
        """At the last event of this connection; one that has ended says nothing about now."""
        return self.row.lag_s if self.connected else None

    @property
    def reconnect_waits(self) -> bool:
        """A reconnect was asked for, and there has been no connection since."""
        asked, since = self.row.reconnect_asked_at, self.row.connected_since
        return asked is not None and (since is None or since < asked)

    @property
    def when(self) -> str:
        """When the listener does what it is asked for."""
        if self.alive:
            return "The listener does it within a second or so."
        if self.current:
            return "No listener is running: it is done when one starts."
        return "The host is no longer listened to: it is done when JETSTREAM_HOSTS names it again."


def streams(*, past_shown: int | None = PAST_SHOWN) -> list[Stream]:
    """The hosts that are listened to, by name, then some of those that were, the last one first."""
    now = timezone.now()
    rows = list(StreamHost.objects.order_by("host", "id"))
    newest = max((row.seen_at for row in rows if row.seen_at), default=None)
    found = [_stream(row, newest, now) for row in rows]
    past = sorted((stream for stream in found if not stream.current), key=lambda stream: stream.row.seen_at or stream.row.counted_since, reverse=True)
    return [*(stream for stream in found if stream.current), *past[:past_shown]]


def current(found: Sequence[Stream]) -> list[Stream]:
    return [stream for stream in found if stream.current]


def _stream(row: StreamHost, newest: datetime | None, now: datetime) -> Stream:
    """`newest`: when any host was seen last. A listener renews all of its hosts at once, so the others are behind."""
    seen_at = row.seen_at
    if newest is not None and (seen_at is None or newest - seen_at > ALIVE):
        return Stream(row, current=False, alive=False, connected=False, words=f"last listened to {ago(seen_at, now)}" if seen_at else "never listened to")
    # A sign of life from the future is that of a wrong clock.
    alive = seen_at is not None and abs(now - seen_at) <= ALIVE
    problem = _problem(row, now, alive=alive)
    words = problem or f"connected for {ago(row.connected_since, now).removesuffix(' ago')}"
    return Stream(row, current=True, alive=alive, connected=not problem, words=words)


def _problem(row: StreamHost, now: datetime, *, alive: bool) -> str:
    if row.seen_at is None:
        return "The listener has not started yet."
    if not alive:
        return f"The listener gave its last sign of life {ago(row.seen_at, now)}. “manage.py up” and “manage.py run_jetstream” start it."
    if row.problem:
        offline = row.problem.startswith("cannot connect")
        return row.problem + (". Is this machine offline, or JETSTREAM_HOSTS wrong? “make demo” needs no network." if offline else "")
    return "" if row.connected_since else "The listener is connecting."
