from django.apps import AppConfig
from django.contrib.admin import apps


class JetrelayConfig(AppConfig):
    name = "jetrelay"


class AdminConfig(apps.AdminConfig):
    """In place of `django.contrib.admin`."""

    default = False
    default_site = "jetrelay.admin_site.Site"
