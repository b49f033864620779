import django.db.models.deletion
import django.utils.timezone
import subscriptions.fields
import subscriptions.ids
import subscriptions.validation
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0003_health_and_order"),
        ("subscriptions", "0003_endpoint_policies"),
    ]

    operations = [
        migrations.CreateModel(
            name="Replay",
            fields=[
                ("id", models.UUIDField(default=subscriptions.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("action", models.CharField(choices=[("replay", "Replay"), ("recover", "Recover"), ("dismiss", "Dismiss")], default="replay", max_length=16)),
                (
                    "delivery_state",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        choices=[(0, "pending"), (1, "delivered"), (2, "dead"), (3, "cancelled")],
                        help_text="Empty: all but pending ones, which are in the queue already.",
                        null=True,
                        verbose_name="state of deliveries",
                    ),
                ),
                ("since", models.DateTimeField(blank=True, help_text="Deliveries made from then on; for a recovery, events received from then on.", null=True)),
                ("until", models.DateTimeField(blank=True, help_text="… and before this.", null=True)),
                (
                    "collections",
                    subscriptions.fields.PatternListField(
                        blank=True, default=list, help_text="As in subscriptions. Empty: all.", verbose_name="collections or types"
                    ),
                ),
                (
                    "rate_per_s",
                    models.FloatField(
                        blank=True,
                        help_text="Empty: as fast as the database takes it.",
                        null=True,
                        validators=[subscriptions.validation.validate_rate],
                        verbose_name="rate cap (deliveries/s)",
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("running", "Running"), ("finished", "Finished"), ("cancelled", "Cancelled")], default="running", editable=False, max_length=16
                    ),
                ),
                ("after_endpoint", models.UUIDField(default=uuid.UUID("00000000-0000-0000-0000-000000000000"), editable=False)),
                ("after_id", models.UUIDField(default=uuid.UUID("00000000-0000-0000-0000-000000000000"), editable=False)),
                ("before_id", models.UUIDField(default=uuid.UUID("00000000-0000-0000-0000-000000000000"), editable=False)),
                ("expected", models.PositiveBigIntegerField(default=0, editable=False)),
                ("expected_more", models.BooleanField(default=False, editable=False)),
                ("looked_at", models.PositiveBigIntegerField(default=0, editable=False)),
                ("done", models.PositiveBigIntegerField(default=0, editable=False, help_text="Deliveries put back, made or dismissed so far.")),
                (
                    "skipped",
                    models.PositiveBigIntegerField(default=0, editable=False, help_text="Matched, but could not be done: the event or the endpoint is gone."),
                ),
                ("next_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("created_by", models.CharField(blank=True, editable=False, max_length=150)),
                ("ended_at", models.DateTimeField(editable=False, null=True)),
                ("ended_by", models.CharField(blank=True, editable=False, help_text="Who cancelled it.", max_length=150)),
                (
                    "endpoint",
                    models.ForeignKey(
                        blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name="replays", to="subscriptions.endpoint"
                    ),
                ),
                (
                    "event",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        error_messages={"invalid": "No event has this id: it may have been pruned."},
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="delivery.event",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty: all of them.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="replays",
                        to="subscriptions.tenant",
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
                "indexes": [models.Index(condition=models.Q(("state", "running")), fields=["id"], name="replay_running")],
            },
        ),
    ]
