"""The admin's site: what it is called, and in which order its index and its sidebar name the tables."""

from typing import Any

from django.contrib.admin import AdminSite

# In the order in which an operator looks: what happens, who wants it, where it comes from, who may do what, and what runs it. By label of the model.
_GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("flow", "Events and deliveries", ("delivery.Delivery", "delivery.Event", "delivery.Attempt", "delivery.Replay")),
    (
        "endpoints",
        "Endpoints",
        ("subscriptions.Endpoint", "subscriptions.Subscription", "subscriptions.Source", "delivery.EndpointHealth", "subscriptions.EndpointPastState"),
    ),
    ("stream", "Stream", ("delivery.StreamHost", "delivery.StreamGap", "delivery.RejectedFrame")),
    (
        "people",
        "Tenants and people",
        ("subscriptions.Tenant", "subscriptions.Membership", "subscriptions.ApiKey", "subscriptions.AuditEntry", "admin.LogEntry", "auth.User", "auth.Group"),
    ),
    ("counts", "Counts", ("delivery.EventTally", "delivery.AttemptTally", "delivery.EventTotal", "delivery.AttemptTotal", "delivery.TotalMark")),
    (
        "works",
        "What runs it",
        (
            *("django_celery_beat.PeriodicTask", "django_celery_beat.IntervalSchedule", "django_celery_beat.CrontabSchedule"),
            *("delivery.Lease", "api.IdempotentRequest"),
        ),
    ),
    ("inbox", "Built-in inbox", ("inbox.Inbox", "inbox.InboxMessage")),
)
# Where a table's own name says less.
_NAMES = {"admin.LogEntry": "What staff did here", "subscriptions.ApiKey": "API keys", "django_celery_beat.PeriodicTask": "Schedules"}


class Site(AdminSite):
    site_header = site_title = "Jetrelay"
    index_title = "Administration"

    def get_app_list(self, request: Any, app_label: str | None = None) -> list[Any]:
        """In groups of ours; what is in none of them comes last, app by app. The page of one app stays what it is."""
        apps = super().get_app_list(request, app_label)
        if app_label:
            return apps
        found = {model["model"]._meta.label: model for app in apps for model in app["models"]}
        for label in _NAMES.keys() & found.keys():
            found[label]["name"] = _NAMES[label]
        groups = [
            {"name": name, "app_label": label, "app_url": "", "has_module_perms": True, "models": models}
            for label, name, members in _GROUPS
            if (models := [found.pop(member) for member in members if member in found])
        ]
        rest = [app | {"models": left} for app in apps if (left := [model for model in app["models"] if model["model"]._meta.label in found])]
        return groups + rest
