"""Sessions of 0.1.0 were kept under the words that their cookies hold: whoever read the table, or a dump of it, was signed in.

None of them opens the site any more, and old dumps hold the same words. So they go, and everybody signs in once more.
"""

import logging
from typing import Any

from django.db import migrations

logger = logging.getLogger("jetrelay.upgrade")


def end_sessions(apps: Any, schema_editor: Any) -> None:
    count, _ = apps.get_model("sessions", "Session").objects.using(schema_editor.connection.alias).all().delete()
    if count:
        said = "Sessions that were ended: %d. The database kept them readably until now: everybody who was signed in has to sign in once more."
        logger.warning(said, count)


class Migration(migrations.Migration):
    dependencies = [
        ("api", "0002_answers_of_who_asked"),
        ("sessions", "0001_initial"),
    ]

    operations = [
        migrations.RunPython(end_sessions, migrations.RunPython.noop),
    ]
