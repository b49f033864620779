"""Which events a page shows: everything about it is in the URL. The live tail has the same filters, but for time and text."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import BinaryField, F, Func, IntegerField, Q, Value
from django.db.models.functions import Coalesce, Left
from django.db.models.lookups import Exact, In
from django.utils.dateparse import parse_datetime

from delivery.models import Event
from subscriptions import validation
from subscriptions.ids import first_id, from_public, to_public
from subscriptions.models import Source

MAX_TEXT = 200
# Quick choices of a time: what stands in the URL, and in the list.
SPANS = {"5m": (timedelta(minutes=5), "Last 5 minutes"), "1h": (timedelta(hours=1), "Last hour"), "1d": (timedelta(days=1), "Last day")}
# An id is made a little before or after the moment that its row names.
SLACK = timedelta(seconds=5)
# Times outside of these fit no id (UUIDv7 counts 48 bits of milliseconds since 1970).
_FIRST_YEAR, _LAST_YEAR = 1971, 9998
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)?(?:Z|\+00:00)?\Z", re.ASCII)


class BodyHolds(Func):
    """Where in the body these bytes begin, and 0 where they do not. It looks for bytes: %, _, \\ and NUL stand for themselves."""

    output_field = IntegerField()

    def __init__(self, text: str) -> None:
        super().__init__(F("body"), Value(text.encode(), BinaryField()))

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="INSTR", **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        body, held = self.get_source_expressions()
        turned = self.copy()
        turned.set_source_expressions([held, body])
        return turned.as_sql(compiler, connection, function="POSITION", arg_joiner=" IN ", **context)


@dataclass(frozen=True)
class Filters:
    """`problem` says in words what of the URL was not understood; the rest still counts."""

    type: str = ""
    subject: str = ""
    kind: str = ""
    operation: str = ""
    source: uuid.UUID | None = None
    span: str = ""
    since: datetime | None = None
    until: datetime | None = None
    # Text to look for in bodies, or an event's id.
    search: str = ""
    before: uuid.UUID | None = None
    problem: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        read = _Reader(query)
        return cls(
            type=read.pattern("type"),
            subject=read.line("subject"),
            kind=read.one_of("kind", validation.KINDS),
            operation=read.one_of("operation", validation.OPERATIONS),
            source=read.id("source", "a source's id", "events of all sources are shown"),
            span=read.one_of("last", SPANS),
            since=read.moment("from"),
            until=read.moment("to"),
            search=read.text("q"),
            before=read.id("before", "an event's id", "the newest are shown"),
            problem=" ".join(read.problems),
        )

    @property
    def any(self) -> bool:
        return self != type(self)(before=self.before, problem=self.problem)

    def parts(self) -> dict[str, str]:
        parts = {
            "type": self.type,
            "subject": self.subject,
            "kind": self.kind,
            "operation": self.operation,
            "source": to_public(Source.prefix, self.source) if self.source else "",
            "last": self.span,
            "from": self.since_text,
            "to": self.until_text,
            "q": self.search,
            "before": to_public(Event.prefix, self.before) if self.before else "",
        }
        return {name: value for name, value in parts.items() if value}

    def query(self, **more: str) -> str:
        return urlencode(self.parts() | more)

    @property
    def newest(self) -> Self:
        return replace(self, before=None)

    @property
    def live(self) -> Self:
        """Without what makes no sense of events that are still to come."""
        return replace(self, span="", since=None, until=None, search="", before=None)

    @property
    def spans(self) -> list[tuple[str, str, bool]]:
        """(label, query, chosen) of each quick choice of a time."""
        of = replace(self.newest, since=None, until=None)
        timed = self.span or self.since or self.until
        return [
            ("Any time", replace(of, span="").query(), not timed),
            *((label, replace(of, span=name).query(), name == self.span) for name, (_, label) in SPANS.items()),
        ]

    @property
    def since_text(self) -> str:
        return _written(self.since)

    @property
    def until_text(self) -> str:
        return _written(self.until)

    @property
    def first(self) -> datetime | None:
        """From when on: as written, and no longer ago than was chosen."""
        ago = self.now - SPANS[self.span][0] if self.span else None
        return max(filter(None, (ago, self.since)), default=None)

    @property
    def floor(self) -> uuid.UUID | None:
        """No event that is wanted has an id below this one."""
        return first_id(self.first - SLACK) if self.first else None

    @property
    def ceiling(self) -> uuid.UUID | None:
        """Every event that is wanted has an id below this one."""
        ends = [self.before, first_id(self.until + SLACK) if self.until else None]
        return min((end for end in ends if end), default=None)

    @property
    def narrow(self) -> Q:
        """What no index serves. The subject and the bounds of ids are not in it."""
        found = Q(Exact(BodyHolds(self.search), 0), _negated=True) if self.search else Q()
        if self.type.endswith(".*"):
            # No LIKE: to SQLite, a and A are alike there.
            found &= Q(Exact(Left("type", len(self.type) - 1), self.type[:-1]))
        elif self.type not in ("", "*"):
            found &= Q(type=self.type)
        for name in ("kind", "operation"):
            if value := getattr(self, name):
                found &= Q(**{name: value})
        if self.source:
            found &= of_sources([self.source])
        if self.first:
            found &= Q(received_at__gte=self.first)
        if self.until:
            found &= Q(received_at__lt=self.until)
        return found


def of_sources(ids: list[uuid.UUID]) -> Q:
    """Written so that it is no reason to go by the index that begins with the source: its rows are in no order of time."""
    return Q(In(Coalesce("source", "source"), ids))


class _Reader:
    """Takes the parameters apart, and notes what it could not understand."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.query, self.problems = query, list[str]()

    def text(self, name: str) -> str:
        value = self.query.get(name, "")
        if len(value) > MAX_TEXT:
            self.problems.append(f"Only the first {MAX_TEXT} characters of the text are looked for.")
        return value[:MAX_TEXT]

    def line(self, name: str) -> str:
        value = self.query.get(name, "").strip()
        # No column holds these.
        if "\0" in value or len(value) > validation.MAX_DID:
            self.problems.append(f"No {name} is like this one: every {name} is shown.")
            return ""
        return value

    def pattern(self, name: str) -> str:
        value = self.query.get(name, "").strip()
        try:
            return validation.clean_pattern(value) if value else ""
        except ValidationError as error:
            self.problems.append(f"{' '.join(error.messages)} All are shown.")
            return ""

    def one_of(self, name: str, known: Any) -> str:
        value = self.query.get(name, "").strip()
        if value and value not in known:
            what = "span of time" if name == "last" else name
            self.problems.append(f"There is no {what} “{value[:40]}”: write {', '.join(known)}. All are shown.")
            return ""
        return value

    def id(self, name: str, what: str, instead: str) -> uuid.UUID | None:
        value = self.query.get(name, "")
        found = from_public(value)
        if value and found is None:
            self.problems.append(f"“{value[:40]}” is not {what}: {instead}.")
        return found

    def moment(self, name: str) -> datetime | None:
        value = self.query.get(name, "").strip()
        if not value:
            return None
        found = None
        if _TIME.match(value):
            try:
                found = parse_datetime(value if len(value) > 10 else f"{value} 00:00")
            except ValueError:
                pass
        if found is None or not _FIRST_YEAR <= found.year <= _LAST_YEAR:
            self.problems.append(f"“{value[:40]}” is not a time: write it in UTC, such as 2026-11-22 10:00:00.")
            return None
        return found.replace(tzinfo=UTC)


def _written(moment: datetime | None) -> str:
    """As a field of the type datetime-local has it."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds" if moment.microsecond else "seconds") if moment else ""
