"""Filters of the admin's lists that look at no more rows than they show: by time, by a few fixed words, by a row that is found by typing."""

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from subscriptions.ids import first_id, from_public

PERIOD = "time"
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
# Ids hold no time far outside of these.
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


class Period(NamedTuple):
    """From a moment until before another; None without a bound."""

    start: datetime | None = None
    end: datetime | None = None

    @property
    def first(self) -> uuid.UUID | None:
        return first_id(self.start) if self.start else None

    @property
    def before(self) -> uuid.UUID | None:
        """Ids of this period are lower."""
        return first_id(self.end) if self.end else None

    def of(self, rows: "QuerySet[Any]", column: str) -> "QuerySet[Any]":
        """Those of the rows that were made in it: by an id, or by a column that holds a time."""
        start, end = (self.first, self.before) if column == "id" else (self.start, self.end)
        if start is not None:
            rows = rows.filter(**{f"{column}__gte": start})
        return rows if end is None else rows.filter(**{f"{column}__lt": end})


class TableFilter(admin.SimpleListFilter):
    """One parameter of the URL. `problem` says in words what of it was not understood; then it counts for nothing."""

    problem: str = ""

    def chosen(self) -> Any:
        """What has been chosen, as the list needs it; None for all."""
        return self.value()

    def others(self, shown: Any) -> list[tuple[str, str]]:
        """The rest of the URL, for a form that changes this part of it."""
        return [(name, value) for name, value in shown.params.items() if name != self.parameter_name]


class PeriodFilter(TableFilter):
    """Time in UTC, by the bounds of an index: the past hour or days, any one day, or an hour of it (`time=2026-11-28T13`)."""

    title = "time (UTC)"
    parameter_name = PERIOD
    template = "admin/period_filter.html"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        self.now = timezone.now()
        self._column: str = getattr(model_admin, "period_column", "id")
        super().__init__(request, params, model, model_admin)
        self._period = self._read(self.value() or "")

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        today = self.now.astimezone(UTC)
        before = [today - _DAY * days for days in range(2, 7)]
        named = [("hour", "Past hour"), ("today", "Today"), ("yesterday", "Yesterday"), ("week", "Past 7 days")]
        return named + [(f"{day:%Y-%m-%d}", f"{day:%A, %d %B}") for day in before]

    def chosen(self) -> Period | None:
        return self._period

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return self._period.of(queryset, self._column) if self._period else queryset

    @property
    def day(self) -> str:
        """The day that has been chosen, or that the chosen hour is in."""
        period = self._period
        return f"{period.start:%Y-%m-%d}" if period and period.start and period.end else ""

    def hours(self, shown: Any) -> list[dict[str, Any]]:
        """The hours of that day."""
        values = [(f"{self.day}T{hour:02d}", f"{hour:02d}") for hour in range(24)] if self.day else []
        return [{"label": label, "url": shown.get_query_string({PERIOD: value}), "selected": value == self.value()} for value, label in values]

    def choices(self, changelist: Any) -> Iterator[Any]:
        yield from super().choices(changelist)
        yield {"hours": self.hours(changelist), "others": self.others(changelist), "more": True}

    def _read(self, value: str) -> Period | None:
        midnight = self.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match value:
            case "":
                return None
            case "hour":
                return Period(self.now - _HOUR)
            case "week":
                return Period(self.now - 7 * _DAY)
            case "today":
                return Period(midnight, midnight + _DAY)
            case "yesterday":
                return Period(midnight - _DAY, midnight)
        for form, length in (("%Y-%m-%d", _DAY), ("%Y-%m-%dT%H", _HOUR)):
            try:
                start = datetime.strptime(value, form).replace(tzinfo=UTC)
            except ValueError:
                continue
            if _EARLIEST <= start < _LATEST:
                return Period(start, start + length)
        self.problem = f"“{value[:40]}” is not a time such as 2026-11-28 or 2026-11-28T13: all times are shown."
        return None


class WordFilter(TableFilter):
    """One of a few fixed words. What they mean for the rows, `conditions` says."""

    words: ClassVar[Sequence[tuple[str, str]]] = ()
    conditions: ClassVar[dict[str, Any]] = {}

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return self.words

    def chosen(self) -> str | None:
        value = self.value()
        if value is not None and value not in self.conditions:
            self.problem = f"There is no {self.title} “{value[:40]}”: all are shown."
            return None
        return value

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        word = self.chosen()
        return queryset if word is None else queryset.filter(self.conditions[word])


def words(parameter: str, choices: Sequence[tuple[str, str, Any]], title: str = "") -> type[WordFilter]:
    """A filter by (word in the URL, label, condition)."""
    parts = {"title": title or parameter, "parameter_name": parameter, "words": [(word, label) for word, label, _ in choices]}
    return type("Filter", (WordFilter,), parts | {"conditions": {word: condition for word, _, condition in choices}})


class ChosenRow(TableFilter):
    """A row that the list's rows belong to, found by typing: no list of thousands to choose from."""

    template = "admin/row_filter.html"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        self._field = model._meta.get_field(self.parameter_name)
        self._related = self._field.remote_field.model
        self._site = model_admin.admin_site
        # Whoever may not see these rows cannot choose one.
        self._visible = self._site._registry[self._related].has_view_permission(request) if self._site.is_registered(self._related) else False
        super().__init__(request, params, model, model_admin)
        text = self.value() or ""
        self._id = from_public(text)
        if text and self._id is None:
            self.problem = f"“{text[:40]}” is not the id of {self.title}: all are shown."

    @staticmethod
    def media() -> Any:
        return AutocompleteSelect(None, admin.site).media

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return bool(self._visible)

    def chosen(self) -> uuid.UUID | None:
        return self._id

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return queryset.filter(**{self.parameter_name or "": self._id}) if self._id else queryset

    def choices(self, changelist: Any) -> Iterator[Any]:
        rows = self._related._default_manager.all()
        rows = rows.without_secrets() if hasattr(rows, "without_secrets") else rows
        field = forms.ModelChoiceField(rows, widget=AutocompleteSelect(self._field, self._site), required=False)
        name = self.parameter_name or ""
        box = field.widget.render(name, self._id, {"id": f"filter-{name}", "data-placeholder": "Type a part of its name"})
        clear = changelist.get_query_string(remove=[name]) if self._id else ""
        yield {"box": box, "id": f"filter-{name}", "others": self.others(changelist), "clear": clear}


def chosen(parameter: str, title: str = "") -> type[ChosenRow]:
    """A filter by the row that this foreign key points to; its id stands in the URL as `ep_…` or as a UUID."""
    return type("Filter", (ChosenRow,), {"parameter_name": parameter, "title": title or parameter})
