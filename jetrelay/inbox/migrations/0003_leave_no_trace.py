"""SQLite leaves what was deleted in its file until the space is used again: sessions and tokens of 0.1.0 could be read there.

So the file is written anew, where there is anything to hide and room to do it. On PostgreSQL no dump has what is deleted.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from django.db import OperationalError, migrations

logger = logging.getLogger("jetrelay.upgrade")
_LEFT = "What was deleted from the database can still be read in its file (%s). Stop everything, and run: sqlite3 %s VACUUM"


def write_anew(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    # An installation that starts now has nothing to hide yet: nobody has an account.
    if connection.vendor != "sqlite" or not apps.get_model("auth", "User").objects.using(connection.alias).exists():
        return
    path = Path(str(connection.settings_dict["NAME"]))
    # A new file, and the same once more in the -wal.
    if path.is_file() and shutil.disk_usage(path.parent).free < 3 * path.stat().st_size:
        logger.warning(_LEFT, "there is no room to write it anew: make some", path)
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except OperationalError as error:
        logger.warning(_LEFT, error, path)


class Migration(migrations.Migration):
    # VACUUM is no part of a transaction.
    atomic = False
    dependencies = [
        ("inbox", "0002_token_as_digest"),
        ("api", "0003_end_readable_sessions"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.RunPython(write_anew, migrations.RunPython.noop),
    ]
