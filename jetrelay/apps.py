from django.apps import AppConfig
from django.contrib.admin import apps
from django.db.backends.signals import connection_created


class JetrelayConfig(AppConfig):
    name = "jetrelay"

    def ready(self) -> None:
        from jetrelay import patience

        connection_created.connect(patience.bind_new, dispatch_uid="patience")


class AdminConfig(apps.AdminConfig):
    """In place of `django.contrib.admin`."""

    default = False
    default_site = "jetrelay.admin_site.Site"
