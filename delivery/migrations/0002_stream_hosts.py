import django.db.models.deletion
import django.utils.timezone
import subscriptions.ids
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0001_events_deliveries_attempts"),
        ("subscriptions", "0001_tenants_endpoints_subscriptions"),
    ]

    operations = [
        migrations.RenameModel("StreamCursor", "StreamHost"),
        migrations.AlterModelOptions(
            name="streamhost",
            options={"ordering": ("host",)},
        ),
        migrations.AddField(
            model_name="streamhost",
            name="asked_for",
            field=models.CharField(blank=True, help_text="A digest of what was asked for in that stretch.", max_length=64),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="bytes",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="bytes_per_s",
            field=models.FloatField(default=0),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="compressed",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="reconnects",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="counted_since",
            field=models.DateTimeField(default=django.utils.timezone.now),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="covered_from",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="cursor_key",
            field=models.BinaryField(max_length=16, null=True),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="events",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="events_per_s",
            field=models.FloatField(default=0),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="lag_s",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="partial",
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="reached_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="reconnect_asked_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="rejected",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="streamhost",
            name="rewind_to",
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name="streamhost",
            name="source",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="hosts", to="subscriptions.source"),
        ),
        migrations.CreateModel(
            name="RejectedFrame",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("host", models.CharField(max_length=255)),
                ("received_at", models.DateTimeField()),
                ("reason", models.CharField(max_length=300)),
                ("size", models.PositiveIntegerField(help_text="Of the whole frame, in bytes.")),
                ("head", models.BinaryField(help_text="Its first 4,096 bytes.")),
                ("source", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="rejected_frames", to="subscriptions.source")),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="StreamGap",
            fields=[
                ("id", models.UUIDField(default=subscriptions.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("host", models.CharField(max_length=255)),
                ("from_at", models.DateTimeField()),
                ("to_at", models.DateTimeField()),
                ("reason", models.CharField(max_length=200)),
                ("noticed_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("filled_by", models.CharField(blank=True, max_length=255)),
                ("filled_at", models.DateTimeField(null=True)),
                ("source", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="gaps", to="subscriptions.source")),
            ],
            options={
                "ordering": ("-id",),
                "indexes": [models.Index(condition=models.Q(("filled_by", "")), fields=["source", "from_at"], name="gap_open")],
                "constraints": [models.UniqueConstraint(fields=("source", "host", "from_at"), name="gap_per_host")],
            },
        ),
    ]
