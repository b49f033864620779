"""Totals: sums of the tallies since the beginning. They only grow, whatever is folded or pruned.

    |—— closed: one row for each key ——|—— an hour, a row each ——|—— the tallies themselves ——|
    the beginning                  26 h ago                 10 min ago                      now

Whoever asks for a total adds up these three in one snapshot: a few thousand rows, however long the tallies are kept. Whoever
tallies knows nothing of it: the scheduled task that prunes and folds moves both marks on.

Some minutes are summed once they do not grow any more. A row that comes later still, from a process that stood still in between, is
counted when its hour is summed again: within an hour or two, or else when the hour is closed. No tally is pruned before that.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Min
from django.utils import timezone

from delivery.models import AttemptTally, AttemptTotal, EventTally, EventTotal, TotalMark
from delivery.models.tallies import HISTOGRAM

logger = logging.getLogger(__name__)

# Writers commit what they count within seconds.
SETTLES = timedelta(minutes=10)
# Before the minutes of an hour are folded (26 h): a sum of rounded times is the same only while its rows are.
CLOSES = timedelta(hours=25)
HOUR = timedelta(hours=1)
# So much is closed in one transaction; only a first run, or one after a long time, has more to do.
_STEP = timedelta(days=1)
# The hour of the rows that count everything closed.
LONG_PAST = datetime(2000, 1, 1, tzinfo=UTC)

# How long attempts took, as a whole number; of each row, so that it does not matter in which order they are added.
MICROSECONDS = "CAST(ROUND(total_ms * 1000) AS bigint)"


@dataclass(frozen=True)
class Book:
    """A table of tallies and its totals: `counts` maps each column of the totals to what of the tally it sums."""

    tally: type[EventTally | AttemptTally]
    total: type[EventTotal | AttemptTotal]
    keys: tuple[str, ...]
    counts: dict[str, str]

    @property
    def name(self) -> str:
        return self.tally._meta.model_name or ""


EVENTS = Book(EventTally, EventTotal, ("source_id",), {name: name for name in ("received", "stored", "duplicate", "unmatched", "invalid")})
ATTEMPTS = Book(
    AttemptTally,
    AttemptTotal,
    ("endpoint_id", "outcome"),
    {"attempts": "attempts", "total_us": MICROSECONDS, **{name: name for name in HISTOGRAM}},
)
BOOKS = (EVENTS, ATTEMPTS)


def add_up(now: datetime | None = None) -> None:
    """Move both marks of each table on."""
    now = now or timezone.now()
    for book in BOOKS:
        close(book, now - CLOSES)
        _count(book, (now - SETTLES).replace(second=0, microsecond=0))


def add_up_for_a_while() -> bool:
    """One run of the scheduled task. Returns whether the database could be used."""
    try:
        add_up()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Adding up tallies was cut short by the database; the next run goes on. %s", str(error).strip())
        return False
    return True


def close(book: Book, before: datetime) -> None:
    """Sum for good what was tallied before the hour of this moment. Costs one small query where that has been done."""
    limit = _hour(before)
    while True:
        mark = TotalMark.objects.filter(pk=book.name).first()
        if mark is not None and mark.closed >= limit:
            return
        with transaction.atomic():
            mark = _held(book, limit)
            if mark.closed < limit:
                _close(book, mark, limit)


def sums(book: Book) -> list[tuple[Any, ...]]:
    """(key …, count …) of everything ever tallied, some keys more than once. Three queries, which have to see the same snapshot."""
    # Read by itself: inside of the next statement the planner could not tell how few minutes come after it.
    since = TotalMark.objects.filter(pk=book.name).values_list("until", flat=True).first() or LONG_PAST
    keys = ", ".join(book.keys)
    totals, tallied = (", ".join(f"SUM({what})" for what in columns) for columns in (book.counts.keys(), book.counts.values()))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {keys}, {totals} FROM {_table(book.total)} GROUP BY {keys}")
        found = cursor.fetchall()
        cursor.execute(f"SELECT {keys}, {tallied} FROM {_table(book.tally)} WHERE minute >= %s GROUP BY {keys}", [_moment(since)])
        return [*found, *cursor.fetchall()]


def _count(book: Book, until: datetime) -> None:
    """Sum the hours that have grown, up to this moment."""
    with transaction.atomic():
        mark = _held(book, _hour(until))
        if mark.until >= until:
            return
        # One hour more than has grown, for what came late.
        hour = max(mark.closed, _hour(mark.until) - HOUR)
        book.total._default_manager.filter(hour__gte=hour).delete()
        while hour < until:
            _sum_up(book, hour, hour, min(hour + HOUR, until))
            hour += HOUR
        TotalMark.objects.filter(pk=mark.pk).update(until=until)


def _close(book: Book, mark: TotalMark, limit: datetime) -> None:
    """A day of it, from the first tally on that is not closed."""
    oldest = book.tally._default_manager.filter(minute__gte=mark.closed, minute__lt=limit).aggregate(oldest=Min("minute"))["oldest"]
    until = min(_hour(oldest) + _STEP, limit) if oldest else limit
    book.total._default_manager.filter(hour__gte=mark.closed, hour__lt=until).delete()
    _sum_up(book, LONG_PAST, mark.closed, until)
    TotalMark.objects.filter(pk=mark.pk).update(closed=until, until=max(mark.until, until))


def _held(book: Book, otherwise: datetime) -> TotalMark:
    """The table's marks, which nobody else moves before the caller's transaction ends. The first ones stand at the oldest tally."""
    marks = TotalMark.objects.select_for_update().filter(pk=book.name)
    if (mark := marks.first()) is None:
        oldest = book.tally._default_manager.aggregate(oldest=Min("minute"))["oldest"]
        beginning = min(_hour(oldest), otherwise) if oldest else otherwise
        TotalMark.objects.bulk_create([TotalMark(tally=book.name, until=beginning, closed=beginning)], ignore_conflicts=True)
        mark = marks.get()
    return mark


def _sum_up(book: Book, hour: datetime, since: datetime, until: datetime) -> None:
    """Add what was tallied between two moments to the rows of an hour."""
    table, keys = _table(book.total), ", ".join(book.keys)
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in book.counts)
    sums = ", ".join(f"SUM({what})" for what in book.counts.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (hour, {keys}, {', '.join(book.counts)}) SELECT {_cast('%s')}, {keys}, {sums} FROM {_table(book.tally)}"
            f" WHERE minute >= %s AND minute < %s GROUP BY {keys} ON CONFLICT (hour, {keys}) DO UPDATE SET {added}",
            [_moment(hour), _moment(since), _moment(until)],
        )


def _cast(mark: str) -> str:
    """A parameter among the columns of a SELECT has no type of its own on PostgreSQL; on SQLite none has."""
    return f"CAST({mark} AS timestamptz)" if connection.vendor == "postgresql" else mark


def _table(model: Any) -> str:
    return str(model._meta.db_table)


def _moment(at: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(at)


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
