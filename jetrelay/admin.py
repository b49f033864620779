"""Tables of others in the admin: what beat runs and when, and the admin's own log.

Schedules of ours stand in the settings. Beat writes them into the database whenever it starts, so a change by hand would be lost then, and would do harm
until then: nobody makes one here.
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_celery_beat.admin import CrontabScheduleAdmin, PeriodicTaskAdmin
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from delivery.admin import links
from jetrelay.dashboard import words
from subscriptions.tables import ReadOnlyAdmin

# Celery's own entry clears results away, of which there are none here.
_CELERYS = {"celery.backend_cleanup": "Celery's own: there are no results here to clear away."}
_FOR_SUNRISE_AND_ONCE = (ClockedSchedule, SolarSchedule)

for model in (*_FOR_SUNRISE_AND_ONCE, PeriodicTask, IntervalSchedule, CrontabSchedule):
    admin.site.unregister(model)


def is_ours(task: PeriodicTask) -> bool:
    return task.name in settings.CELERY_BEAT_SCHEDULE or task.name in _CELERYS


@admin.register(PeriodicTask)
class ScheduleAdmin(PeriodicTaskAdmin):  # type: ignore[misc] # carries no types
    """Jetrelay's own to look at, an operator's own to change."""

    list_display = ("name", "enabled", "every", "what", "last_run_at", "total_run_count", "whose")
    list_filter = ("enabled",)
    list_select_related = ("interval", "crontab")
    date_hierarchy = None
    search_help_text = "A part of the name or of the task."
    actions = ("enable_tasks", "disable_tasks", "run_tasks")
    change_list_template = "admin/schedules.html"
    # Its script would be inline.
    change_form_template = None
    fieldsets = (
        (None, {"fields": ("name", "whose", "what", "regtask", "task", "enabled", "description")}),
        ("Schedule", {"fields": ("every", "interval", "crontab", "start_time", "last_run_at", "total_run_count", "one_off")}),
        ("Arguments", {"fields": ("args", "kwargs")}),
        ("Sending", {"fields": ("queue", "expire_seconds", "expires", "headers")}),
    )
    readonly_fields = ("whose", "what", "every", "last_run_at", "total_run_count")

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        # What is to be read of ours; the boxes are for those that somebody adds.
        if obj and is_ours(obj):
            shown = ("name", "whose", "what", "task", "enabled", "every", "last_run_at", "total_run_count", "queue", "expire_seconds")
            return ((None, {"fields": shown}),)
        return super().get_fieldsets(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: PeriodicTask | None = None) -> bool:
        return bool(super().has_change_permission(request, obj)) and not (obj and is_ours(obj))

    def has_delete_permission(self, request: HttpRequest, obj: PeriodicTask | None = None) -> bool:
        return bool(super().has_delete_permission(request, obj)) and not (obj and is_ours(obj))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}

    @admin.action(description="Enable selected tasks", permissions=["change"])
    def enable_tasks(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        super().enable_tasks(request, queryset)

    @admin.action(description="Disable selected tasks that are not Jetrelay's own", permissions=["change"])
    def disable_tasks(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        super().disable_tasks(request, queryset.exclude(name__in=[*settings.CELERY_BEAT_SCHEDULE, *_CELERYS]))

    @admin.action(description="Run selected tasks now", permissions=["change"])
    def run_tasks(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        super().run_tasks(request, queryset)

    @admin.display(description="every", ordering="interval")
    def every(self, task: PeriodicTask) -> str:
        if task.interval:
            return words.duration(timedelta(**{task.interval.period: task.interval.every}))
        return task.crontab.human_readable if task.crontab else "–"

    @admin.display(description="what it does")
    def what(self, task: PeriodicTask) -> str:
        return _CELERYS.get(task.name) or task.description or task.task

    @admin.display(description="whose")
    def whose(self, task: PeriodicTask) -> str:
        if task.name in settings.CELERY_BEAT_SCHEDULE:
            return "Jetrelay's own"
        return "Celery's own" if task.name in _CELERYS else "added here"


class TimesAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Intervals and the like, which tasks share: what one of ours runs by stays as it is."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and not self._is_ours(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not self._is_ours(obj)

    def _is_ours(self, obj: Any) -> bool:
        return bool(obj) and any(is_ours(task) for task in obj.periodictask_set.all())


@admin.register(IntervalSchedule)
class IntervalAdmin(TimesAdmin):
    list_display = ("__str__", "tasks")
    fields = ("every", "period", "tasks")
    readonly_fields = ("tasks",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[IntervalSchedule]":
        return super().get_queryset(request).prefetch_related("periodictask_set")

    @admin.display(description="tasks")
    def tasks(self, interval: IntervalSchedule) -> str:
        names = [task.name for task in interval.periodictask_set.all()] if interval.pk else []
        return ", ".join(names) or "–"


@admin.register(CrontabSchedule)
class CrontabAdmin(TimesAdmin, CrontabScheduleAdmin):  # type: ignore[misc] # carries no types
    inlines = ()


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    """What staff did in the admin. What came by the API, by the pages or by a command is among the audit entries."""

    list_display = ("action_time", "user", "content_type", "object_repr", "change")
    list_filter = ("action_flag",)
    list_select_related = ("user", "content_type")
    search_fields = ("user__username", "object_repr", "object_id")
    search_help_text = "A part of a user's name, of what was changed, or its id as a UUID."
    fields = ("action_time", "user", "content_type", "object_id", "object_repr", "action_flag", "change", "row")
    readonly_fields = ("change", "row")
    # By the primary key: the time has no index.
    ordering = ("-id",)
    sortable_by = ()

    @admin.display(description="change")
    def change(self, entry: LogEntry) -> str:
        return entry.get_change_message()

    @admin.display(description="row")
    def row(self, entry: LogEntry) -> SafeString | str:
        url = entry.get_admin_url()
        return links.to(url, entry.object_repr) if url and not entry.is_deletion() else "–"
