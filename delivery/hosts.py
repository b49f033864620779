"""One host as the listener sees it: its reader, how far its events are stored, and its row, where people see both."""

from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from time import monotonic

from django.db.models import F
from django.utils import timezone

from delivery.models import StreamHost
from delivery.outbox import Progress
from delivery.sources.incoming import Incoming, microseconds, moment
from delivery.sources.jetstream.comparison import Alarm
from delivery.sources.jetstream.frames import one_line
from delivery.sources.jetstream.position import FIRST_TIME_US, Position
from delivery.sources.jetstream.reader import Kit, Reader
from delivery.sources.jetstream.resuming import Gap
from subscriptions.matching import Wanted
from subscriptions.models import Source

# A host that joins starts so far before where the others have come: clocks differ.
JOIN_MARGIN = timedelta(seconds=90)
# Rates are those of so many looks, which are a second apart.
_LOOKS = 10
# Of the collections that a host leaves out, so many are shown.
MAX_SHOWN = 20


class ListenedHost:
    """One host of one run of the listener. Belongs to the thread that stores."""

    def __init__(self, source: Source, url: str, kit: Kit) -> None:
        self.url = url
        self._kit = kit
        row, made = StreamHost.objects.get_or_create(source=source, host=url)
        if made:
            _join(row)
        self.row_id = row.pk
        self._saved = row.cursor
        self._covered_from = row.covered_from
        self._asked_for = row.asked_for
        self._wanted: Wanted | None = None
        # A wish from before this run is fulfilled by the run.
        StreamHost.objects.filter(pk=row.pk).update(reconnect_asked_at=None)
        numbered = row.cursor is not None and row.cursor < FIRST_TIME_US
        reached_at = row.reached_at or row.cursor_saved_at
        key = bytes(row.cursor_key) if numbered and row.cursor_key else None
        self._begin(Position(row.cursor, microseconds(reached_at) if numbered and reached_at else None, key))
        self.reader.liveness.last_lag_us = None if row.lag_s is None else int(row.lag_s * 1_000_000)

    def _begin(self, position: Position) -> None:
        self.stored = position.copy()
        self.reader = Reader(self.url, position, self._kit)
        self._counted = (0, 0, 0)
        self._looks: deque[tuple[float, int, int]] = deque([(monotonic(), 0, 0)], maxlen=_LOOKS)

    def advance(self, batch: Sequence[Incoming], now_us: int) -> Progress | None:
        """What to save in the transaction that stores this batch. None when there is no news."""
        before = self.stored.cursor, self.stored.reached_us
        for event in batch:
            self.stored.advance(event, now_us)
        if not batch and self.reader.settled_us is not None:
            self.stored.settle(self.reader.settled_us)
            self.reader.settled_us = None
        cursor = self._safe(self.stored.cursor)
        if not batch and (self.stored.cursor, self.stored.reached_us) == before and cursor == self._saved:
            return None
        self._saved = cursor
        reached_at = None if self.stored.reached_us is None else moment(self.stored.reached_us)
        if self._covered_from is None:
            # It began with what came then, not with what an imported record says of its age.
            self._covered_from = self.reader.connected_since or timezone.now()
        key = self.stored.key if self.stored.numbered else None
        return Progress(self.row_id, cursor, reached_at, self._covered_from, timezone.now() if batch else None, key)

    def want(self, wanted: Wanted | None) -> None:
        """Ask for something else. What was stored so far says nothing about what is asked for now."""
        if wanted is self._wanted:
            return
        self._wanted = wanted
        digest = "" if wanted is None else sha256(repr(wanted).encode()).hexdigest()
        if wanted is not None and digest != self._asked_for:
            known = self._asked_for and self.stored.reached_us is not None
            self._asked_for = digest
            if known:
                self._covered_from = timezone.now()
            StreamHost.objects.filter(pk=self.row_id).update(asked_for=digest, covered_from=self._covered_from)
        self.reader.want(wanted)

    def _safe(self, cursor: int | None) -> int | None:
        """The cursor that may be saved: it stays behind a seam that was not read twice yet, but goes back for none."""
        behind = self.reader.seam.cursor(self.stored)
        if behind == cursor or behind is None or self._saved is None or self._saved < FIRST_TIME_US:
            return behind
        return max(behind, self._saved)

    # --- once a second -----------------------------------------------------------------------------------------

    def obey(self, wishes: StreamHost, wanted: Wanted | None) -> None:
        """Do what people have asked for in the host's row."""
        if wishes.rewind_to is not None:
            self._rewind(wishes, wanted)
        elif wishes.reconnect_asked_at is not None:
            StreamHost.objects.filter(pk=self.row_id, reconnect_asked_at=wishes.reconnect_asked_at).update(reconnect_asked_at=None)
            self.reader.reconnect("asked for by hand")

    def _rewind(self, row: StreamHost, wanted: Wanted | None) -> None:
        """Read again from a time on. What was read and not stored yet lies behind that time, and will come again."""
        assert row.rewind_to is not None
        self.reader.stop()
        covered_from = min(row.covered_from or row.rewind_to, row.rewind_to)
        cursor = max(microseconds(row.rewind_to), FIRST_TIME_US)
        news = {"cursor": cursor, "reached_at": row.rewind_to, "covered_from": covered_from, "rewind_to": None}
        StreamHost.objects.filter(pk=self.row_id, rewind_to=row.rewind_to).update(**news)
        self._saved, self._covered_from = cursor, covered_from
        self._begin(Position(cursor))
        self.reader.want(wanted)
        self.reader.start()

    def note(self, gap: Gap) -> None:
        """From here on nothing is missing; before it something may be."""
        self._covered_from = moment(gap.to_us)

    def show(self, alarms: Sequence[Alarm]) -> None:
        """Write down how the host is doing."""
        reader, now_s = self.reader, monotonic()
        counted = reader.events_in, reader.bytes_in, max(reader.connections - 1, 0)
        events, bytes_, reconnects = (new - old for new, old in zip(counted, self._counted, strict=True))
        since_s, events_then, bytes_then = self._looks[0]
        seconds = max(now_s - since_s, 0.001)
        self._looks.append((now_s, reader.events_in, reader.bytes_in))
        lag_us = reader.liveness.last_lag_us
        StreamHost.objects.filter(pk=self.row_id).update(
            seen_at=timezone.now(),
            connected_since=reader.connected_since,
            problem=one_line(reader.problem, 299),
            compressed=reader.compressed and reader.connected_since is not None,
            lag_s=None if lag_us is None else lag_us / 1_000_000,
            events_per_s=(reader.events_in - events_then) / seconds,
            bytes_per_s=(reader.bytes_in - bytes_then) / seconds,
            events=F("events") + events,
            bytes=F("bytes") + bytes_,
            reconnects=F("reconnects") + reconnects,
            rejected=F("rejected") + reader.rejects.unshown,
            partial=[_shown(alarm, now_s) for alarm in alarms[:MAX_SHOWN]],
        )
        reader.rejects.unshown = 0
        self._counted = counted


def _shown(alarm: Alarm, now_s: float) -> dict[str, object]:
    since = timezone.now() - timedelta(seconds=now_s - alarm.since_s)
    return {"collection": alarm.collection, "brought_by": alarm.brought_by, "since": since.isoformat(timespec="seconds"), "missed": alarm.missed}


def _join(row: StreamHost) -> None:
    """Start where the hosts that are there already have come, and a little before, so that nothing falls in between."""
    others = StreamHost.objects.filter(source=row.source, reached_at__isnull=False, cursor_saved_at__isnull=False).exclude(pk=row.pk)
    reached = [min(each.reached_at, each.cursor_saved_at) for each in others if each.reached_at and each.cursor_saved_at]
    if reached:
        row.reached_at = row.covered_from = max(reached) - JOIN_MARGIN
        row.cursor = microseconds(row.reached_at)
        row.save(update_fields=["reached_at", "covered_from", "cursor"])
