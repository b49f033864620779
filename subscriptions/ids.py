"""Ids: UUIDv7 in the database, `evt_…`, `dlv_…`, `ep_…` wherever people and programs see them.

Time-ordered ids make keyset pages and pruning index ranges, and keep inserts at the end of the index.
"""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Self

from django.db import models
from uuid_utils.compat import uuid7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
# Of a dashed UUID with a prefix, and spaces around it.
_LONGEST = 100
_PUBLIC = re.compile(r"(?:[a-z]+_)?([0-9a-f]{32})\Z")


def new_id() -> uuid.UUID:
    """A new UUIDv7 (RFC 9562), increasing within this process."""
    return uuid7()


def first_id(moment: datetime) -> uuid.UUID:
    """The lowest UUIDv7 of the moment's millisecond: every id made before is lower (RFC 9562, section 5.7)."""
    return uuid.UUID(int=((moment - _EPOCH) // timedelta(milliseconds=1)) << 80)


def moment_of(id: uuid.UUID) -> datetime:
    """When a UUIDv7 was made, to the millisecond. Of other ids it says nothing."""
    return _EPOCH + timedelta(milliseconds=min(id.int >> 80, _LAST_MS))


def to_public(prefix: str, id: uuid.UUID) -> str:
    return f"{prefix}_{id.hex}"


def from_public(text: str) -> uuid.UUID | None:
    """The id in `evt_0197…`, in bare hex or in a dashed UUID; None when there is none."""
    if len(text) > _LONGEST:
        return None
    match = _PUBLIC.match(text.strip().lower().replace("-", ""))
    return uuid.UUID(match[1]) if match else None


class PublicModel(models.Model):
    """A row with a time-ordered id that people see with a prefix."""

    prefix: ClassVar[str]

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)

    class Meta:
        abstract = True

    @property
    def public_id(self) -> str:
        return to_public(self.prefix, self.id)

    def refreshed(self) -> Self:
        self.refresh_from_db()
        return self

    def __str__(self) -> str:
        return self.public_id
