"""Tables to look at: rows that nobody changes by hand, and too many of them to count, to sort or to search through.

A list of a `BigTable` costs the same however long the table is. It goes in the one order that an index has, and stops at so many rows. A filter
that an index serves may look anywhere; any other looks through the newest rows only, within the chosen time. The page says so.
"""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import IGNORED_PARAMS, ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from subscriptions.ids import from_public
from subscriptions.table_filters import PERIOD, ChosenRow, Period, PeriodFilter, TableFilter

Rows = QuerySet[Any]


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages of a big table. Counting all of its rows would take seconds, so it stops at the limit; and so do the pages."""

    limit = 10_000

    @cached_property
    def count(self) -> int:
        rows: Rows = self.object_list  # type: ignore[assignment]
        return rows.order_by()[: self.limit].count()


class PlainChangeList(ChangeList):
    """Joins what it is told to. The admin would join every foreign key where a list shows one of them, and so read and decrypt endpoints' secrets."""

    def apply_select_related(self, qs: Rows) -> Rows:
        return super().apply_select_related(qs) if self.list_select_related else qs


class PicksRows(admin.ModelAdmin):  # type: ignore[type-arg]
    """Has filters by a row of another table, which is found by typing: `chosen(…)`."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PlainChangeList

    @property
    def media(self) -> Any:
        picks = any(isinstance(each, type) and issubclass(each, ChosenRow) for each in self.list_filter)
        return super().media + ChosenRow.media() if picks else super().media


class ReadOnlyAdmin(PicksRows):
    """Rows to look at. Nobody changes a log."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class BoundedChangeList(PlainChangeList):
    """The list of a `BigTable`. `notes` say what of the URL was not understood, and how far it was looked."""

    model_admin: "BigTable"

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        # A column that no filter is for would be looked for in the whole table.
        known = self.model_admin.parameters()
        return {name: value for name, value in super().get_filters_params(params).items() if name in known}

    def get_ordering(self, request: HttpRequest, queryset: Rows) -> list[Any]:
        return list(self.model_admin.get_ordering(request))

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Rows:
        self.notes: list[str] = []
        rows = super().get_queryset(request, exclude_parameters)
        for name in set(self.filter_params) - self.model_admin.parameters() - set(IGNORED_PARAMS):
            self.notes.append(f"There is no filter “{name[:40]}” here: it was left out.")
        self.notes += [spec.problem for spec in self.table_filters if spec.problem]
        self.notes_on_url = list(self.notes)
        return self.model_admin.bounded(self, rows)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.result_count >= self.model_admin.paginator.limit:
            self.notes.append(f"There are more: the newest {self.result_count:,} can be paged through. Choose a time or search to see others.")

    @property
    def table_filters(self) -> list[TableFilter]:
        return [spec for spec in self.filter_specs if isinstance(spec, TableFilter)]

    def chosen(self, name: str) -> Any:
        """What the filter with this name has been set to; None for all."""
        return next((spec.chosen() for spec in self.table_filters if spec.parameter_name == name), None)

    @property
    def period(self) -> Period:
        return self.chosen(PERIOD) or Period()

    @property
    def filtered(self) -> bool:
        """By anything but time and search."""
        return any(spec.chosen() is not None for spec in self.table_filters if spec.parameter_name != PERIOD)


class BigTable(ReadOnlyAdmin):
    """A table of millions of rows. All of its filters are those of `subscriptions/table_filters.py`, and the first is by time."""

    change_list_template = "admin/big_table.html"
    list_filter: ClassVar[Any] = (PeriodFilter,)
    ordering: ClassVar[Any] = ("-id",)
    list_per_page = 50
    # As one page, and no further.
    list_max_show_all = 200
    sortable_by = ()
    # Its time: an id that is made in the order of time, or a column that an index begins with.
    period_column: ClassVar[str] = "id"
    # So many of the newest rows are looked through where no index helps.
    window: ClassVar[int] = 10_000

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def parameters(self) -> set[str]:
        return {each.parameter_name for each in self.list_filter}

    def bounded(self, shown: BoundedChangeList, rows: Rows) -> Rows:
        """The rows that are shown, read in a time that does not grow with the table."""
        return self.windowed(shown, rows) if shown.filtered else rows

    def windowed(self, shown: BoundedChangeList, rows: Rows, among: Rows | None = None) -> Rows:
        """Those of the rows that are in the window: in the newest of the chosen time, or the newest `among` some that have an index."""
        column = self.period_column
        newest = shown.period.of(self.model._default_manager.all() if among is None else among, column).order_by(f"-{column}")
        last = newest.values_list(column, flat=True)[self.window : self.window + 1].first()
        if last is None:
            return rows
        shown.notes.append(f"The newest {self.window:,} {self.opts.verbose_name_plural} were looked through. Choose an earlier time to look further back.")
        return rows.filter(**{f"{column}__gte": last})

    def get_search_results(self, request: HttpRequest, queryset: Rows, search_term: str) -> tuple[Rows, bool]:
        term = search_term.strip()
        return (self.found(queryset, term, term.partition("_")[0]) if term else queryset), False

    def found(self, rows: Rows, term: str, prefix: str) -> Rows:
        """Those that are searched for, by an index. `prefix` is that of an id such as `evt_…`."""
        id = from_public(term)
        return rows.filter(pk=id) if id else rows.none()
