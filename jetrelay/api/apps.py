from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "jetrelay.api"
    label = "api"
    verbose_name = "API"
