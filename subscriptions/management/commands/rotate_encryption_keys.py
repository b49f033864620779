"""`manage.py rotate_encryption_keys`: put every stored secret under the first of JETRELAY_ENCRYPTION_KEYS.

It may run while everything else does, be stopped at any moment and be run again. A row is written only if it still holds
what was read, and only in its encrypted columns: whoever changes it meanwhile wins, and the next pass finds the row again.
What is encrypted stays the same, so listeners, lanes and signatures have nothing to notice and ConfigVersion stays.
"""

import math
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from cryptography.fernet import InvalidToken
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Model, QuerySet, TextField, Value
from django.db.models.functions import Cast

from subscriptions.fields import EncryptedTextField, is_current, reencrypt

# Rows that are read at a time.
CHUNK = 200
# A row that somebody changes in every pass is left to the next run.
PASSES = 5


@dataclass
class Survey:
    """Encrypted values by the key they are under. `shut` names, by kind, a row whose value no key opens, and how many there are."""

    current: int = 0
    older: int = 0
    shut: dict[str, tuple[str, int]] = field(default_factory=dict)
    # Whether everything was counted.
    complete: bool = True

    @property
    def total(self) -> int:
        return self.current + self.older + sum(count for _, count in self.shut.values())

    def add_shut(self, kind: str, row: str) -> None:
        first, count = self.shut.get(kind, (row, 0))
        self.shut[kind] = (first, count + 1)


def encrypted_columns() -> dict[type[Model], list[EncryptedTextField]]:
    """Every model that has encrypted fields of its own, and these."""
    models = (model for model in apps.get_models(include_auto_created=True) if not model._meta.proxy)
    found = {model: [field for field in model._meta.local_concrete_fields if isinstance(field, EncryptedTextField)] for model in models}
    return {model: fields for model, fields in found.items() if fields}


def survey(until: float = math.inf) -> Survey:
    """Count, and change nothing. `until`: on the monotonic clock; what is not counted by then is left out."""
    counted = Survey()
    for model, fields in encrypted_columns().items():
        for pk, stored in _rows(model, fields):
            if monotonic() > until:
                counted.complete = False
                return counted
            for name, value in stored.items():
                if is_current(value):
                    counted.current += 1
                elif _reencrypted(value):
                    counted.older += 1
                else:
                    counted.add_shut(_kind(model, name), _id(model, pk))
    return counted


def rotate() -> int:
    """One pass over everything. Returns how many values it wrote; those that no key opens are left as they are."""
    return sum(rotate_row(model, pk, stored) for model, fields in encrypted_columns().items() for pk, stored in _rows(model, fields))


def rotate_row(model: type[Model], pk: Any, stored: dict[str, str]) -> int:
    """Write the columns that are under an older key, unless one of them is no longer what is given. Returns how many were written."""
    renewed = {name: new for name, value in stored.items() if not is_current(value) and (new := _reencrypted(value))}
    if not renewed:
        return 0
    unchanged = _as_stored(model, list(renewed)).filter(pk=pk, **{f"stored_{name}": stored[name] for name in renewed})
    # An expression goes in as it is; a string would be encrypted once more.
    changes = {name: Value(new, output_field=TextField()) for name, new in renewed.items()}
    return len(renewed) if unchanged.update(**changes) else 0


def _rows(model: type[Model], fields: list[EncryptedTextField]) -> Iterator[tuple[Any, dict[str, str]]]:
    """Each row's key and what its encrypted columns hold, empty ones left out; in chunks, by rising key."""
    names = [field.attname for field in fields]
    rows = _as_stored(model, names).order_by("pk").values_list("pk", *(f"stored_{name}" for name in names))
    chunk = list(rows[:CHUNK])
    while chunk:
        for pk, *stored in chunk:
            yield pk, {name: value for name, value in zip(names, stored, strict=True) if value}
        chunk = list(rows.filter(pk__gt=chunk[-1][0])[:CHUNK])


def _as_stored(model: type[Model], names: list[str]) -> "QuerySet[Any]":
    """Rows with `stored_…` for each column as the database holds it: a cast, because the field itself would decrypt."""
    rows: QuerySet[Any] = model._base_manager.annotate(**{f"stored_{name}": Cast(name, TextField()) for name in names})
    return rows


def _reencrypted(value: str) -> str:
    """Under the first key; empty if no key opens it."""
    try:
        return reencrypt(value)
    except InvalidToken:
        return ""


def _kind(model: type[Model], name: str) -> str:
    return f"{model._meta.verbose_name} {model._meta.get_field(name).verbose_name}"  # type: ignore[union-attr]


def _id(model: type[Model], pk: Any) -> str:
    return str(getattr(model(pk=pk), "public_id", pk))


class Command(BaseCommand):
    help = (
        "Re-encrypt stored secrets with the first of JETRELAY_ENCRYPTION_KEYS. First put the new key in front of the old ones and restart every process;"
        " a process without the new key could not read what this writes. Then run this. It says when the old keys can go."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="only count what is still under an older key; the exit status is 1 if anything is")

    def handle(self, *, check: bool, **options: Any) -> None:
        try:
            counted, written = survey(), 0
            if not check:
                for _ in range(PASSES):
                    if not counted.older:
                        break
                    written += rotate()
                    counted = survey()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if not check:
            self.stdout.write(f"Re-encrypted {written:,} of {counted.total:,} values.")
        self._refuse_shut(counted)
        if counted.older:
            words = f"{counted.older:,} of {counted.total:,} values are under an older key: keep the older keys"
            raise CommandError(f"{words} and run this again." if not check else f"{words} until rotate_encryption_keys has run.")
        self.stdout.write(self._farewell(counted))

    def _refuse_shut(self, counted: Survey) -> None:
        if counted.shut:
            kinds = "; ".join(f"{kind}: {count:,}, such as that of {row}" for kind, (row, count) in counted.shut.items())
            raise CommandError(
                f"None of the keys in JETRELAY_ENCRYPTION_KEYS opens these values ({kinds})."
                " Put the key that they were written with back into the list and run this again, or set them anew. Remove no key yet."
            )

    def _farewell(self, counted: Survey) -> str:
        words = f"All {counted.total:,} values are under the first key."
        if len(settings.JETRELAY_ENCRYPTION_KEYS) == 1:
            return f"{words} There is no older key in JETRELAY_ENCRYPTION_KEYS."
        return f"{words} The older keys can be removed from JETRELAY_ENCRYPTION_KEYS, if every process has been restarted with the new one in front."
