import logging

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps
from django.db.backends.signals import connection_created

logger = logging.getLogger(__name__)


class JetrelayConfig(AppConfig):
    name = "jetrelay"

    def ready(self) -> None:
        from jetrelay import patience

        # Found by the settings, when there was nowhere to say it.
        for line in settings.JETRELAY_FILES_MENDED:
            logger.warning("%s", line)
        connection_created.connect(patience.bind_new, dispatch_uid="patience")


class AdminConfig(apps.AdminConfig):
    """In place of `django.contrib.admin`."""

    default = False
    default_site = "jetrelay.admin_site.Site"
