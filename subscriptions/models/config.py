"""The version of the configuration, which moves with every change of what matches or where it goes."""

from typing import Any

from django.db import models, transaction

from subscriptions.ids import PublicModel


class ConfigVersion(models.Model):
    """One row whose number moves with every change of endpoints, sources or subscriptions."""

    value = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"version {self.value}"

    @classmethod
    def current(cls) -> int:
        return cls.objects.filter(pk=1).values_list("value", flat=True).first() or 0

    @classmethod
    def bump(cls) -> None:
        if not cls.objects.filter(pk=1).update(value=models.F("value") + 1):
            cls.objects.create(pk=1, value=1)


class ConfigModel(PublicModel):
    """A row that listeners and lanes keep compiled in memory: changing it moves the version."""

    class Meta:
        abstract = True

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        ConfigVersion.bump()

    @transaction.atomic
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        ConfigVersion.bump()
        return deleted
