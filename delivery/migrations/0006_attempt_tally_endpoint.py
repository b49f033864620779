from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0005_event_subject"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="attempttally",
            index=models.Index(fields=["endpoint", "minute"], name="attempt_tally_endpoint"),
        ),
    ]
