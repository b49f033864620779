"""What every source turns its input into. Plain data: no model, no database."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_US = 253_402_300_799_000_000  # the end of the year 9999
_US = timedelta(microseconds=1)


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """One event as it came in. `time_us` is Unix microseconds, by the clock of whoever sent it."""

    dedup_key: bytes
    kind: str
    type: str
    operation: str
    subject: str
    time_us: int
    cursor: int | None
    body: bytes
    # The host that brought this copy.
    origin: str = ""
    # Of an event whose id its body names; the outbox gives others theirs.
    id: UUID | None = None


def dedup_key(parts: Iterable[str]) -> bytes:
    """16 bytes that are the same for two copies of one event, whatever the lengths of its parts."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def moment(time_us: int) -> datetime:
    """The time of an event, kept within what a database can hold."""
    return _EPOCH + timedelta(microseconds=min(max(time_us, 0), _MAX_US))


def microseconds(moment: datetime) -> int:
    """Unix microseconds, exactly."""
    return (moment - _EPOCH) // _US
