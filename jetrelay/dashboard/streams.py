"""Whether the stream is connected, and in words why not."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from delivery.models import StreamHost
from jetrelay.dashboard.words import ago

# A living listener renews `seen_at` every few seconds.
ALIVE = timedelta(seconds=10)
# Hosts that are no longer listened to leave a cursor behind; after this long it is history, not news.
FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True)
class Stream:
    host: str
    connected: bool
    words: str
    last_event_at: datetime | None


def streams(now: datetime | None = None) -> list[Stream]:
    """The streams that are or were lately listened to; when all are long gone, the last of them."""
    now = now or timezone.now()
    rows = sorted(StreamHost.objects.all(), key=lambda row: row.seen_at.timestamp() if row.seen_at else 0, reverse=True)
    lately = [row for row in rows if row.seen_at and now - row.seen_at < FORGOTTEN] or rows[:1]
    return [_stream(row, now) for row in lately]


def _stream(row: StreamHost, now: datetime) -> Stream:
    problem = _problem(row, now)
    words = problem or f"connected for {ago(row.connected_since, now).removesuffix(' ago')}"
    return Stream(row.host, not problem, words, row.last_event_at)


def _problem(row: StreamHost, now: datetime) -> str:
    if row.seen_at is None:
        return "The listener has not started yet."
    if now - row.seen_at > ALIVE:
        return f"The listener gave its last sign of life {ago(row.seen_at, now)}. “manage.py up” and “manage.py run_jetstream” start it."
    if row.problem:
        offline = row.problem.startswith("cannot connect")
        return row.problem + (". Is this machine offline, or JETSTREAM_HOSTS wrong? “make demo” needs no network." if offline else "")
    return "" if row.connected_since else "The listener is connecting."
