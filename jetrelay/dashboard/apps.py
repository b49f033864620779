from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "jetrelay.dashboard"
