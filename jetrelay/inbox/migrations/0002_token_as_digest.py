"""Who knows an inbox's token may read it: it is found by a digest from now on, and kept encrypted.

The endpoint's URL held it too. Deliveries get an address of their own, which is no secret. The address that people have stays.
"""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.db import migrations, models

import jetrelay.inbox.models
import subscriptions.fields


def seal(apps: Any, schema_editor: Any) -> None:
    database = schema_editor.connection.alias
    endpoints = apps.get_model("subscriptions", "Endpoint").objects.using(database)
    inboxes = apps.get_model("inbox", "Inbox").objects.using(database)
    for inbox in inboxes.all():
        for id, url in endpoints.filter(pk=inbox.endpoint_id, url__endswith=f"/inbox/{inbox.token}").values_list("pk", "url"):
            address = urlunsplit(urlsplit(url)._replace(path=f"/inbox/of/ep_{id.hex}"))
            endpoints.filter(pk=id).update(url=address)
        # A dropped column's values may stay where they were: PostgreSQL leaves them in the row.
        digest = jetrelay.inbox.models.digest_of(inbox.token)
        inboxes.filter(pk=inbox.pk).update(sealed=inbox.token, token_digest=digest, token=f"moved {inbox.pk}")


class Migration(migrations.Migration):
    dependencies = [
        ("inbox", "0001_inbox"),
        ("subscriptions", "0005_key_rotated_at"),
    ]

    operations = [
        migrations.AddField("inbox", "sealed", subscriptions.fields.EncryptedTextField(default="")),
        migrations.AddField("inbox", "token_digest", models.BinaryField(max_length=32, null=True)),
        migrations.RunPython(seal),
        migrations.RemoveField("inbox", "token"),
        migrations.RenameField("inbox", "sealed", "token"),
        migrations.AlterField("inbox", "token", subscriptions.fields.EncryptedTextField(default=jetrelay.inbox.models._new_token)),
        migrations.AlterField("inbox", "token_digest", models.BinaryField(max_length=32, unique=True, editable=False)),
    ]
