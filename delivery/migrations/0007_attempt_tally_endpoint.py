from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0006_attempt_batch"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="attempttally",
            index=models.Index(fields=["endpoint", "minute"], name="attempt_tally_endpoint"),
        ),
    ]
