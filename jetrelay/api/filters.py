"""What query parameters several lists share."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.db.models.lookups import Exact
from rest_framework.exceptions import ValidationError

from jetrelay.api.fields import NO_TIME, moment
from jetrelay.api.problems import bad_query
from subscriptions import validation
from subscriptions.ids import first_id

# Times outside of these fit no id (UUIDv7 counts 48 bits of milliseconds since 1970).
_FIRST_YEAR, _LAST = 1971, datetime(9998, 1, 1, tzinfo=UTC)
_SLACK = timedelta(minutes=1)

Q_ = TypeVar("Q_", bound="QuerySet[Any]")


def moments(wanted: Mapping[str, str], rows: Q_, field: str) -> Q_:
    """From `since` on, and before `until`. By id first, which the time is a part of; then by the time itself."""
    floor, ceiling = id_range(wanted)
    if (since := _moment(wanted, "since")) is not None:
        rows = rows.filter(**{f"{field}__gte": since}, **({"pk__gt": floor} if floor else {}))
    if (until := _moment(wanted, "until")) is not None:
        rows = rows.filter(**{f"{field}__lt": until}, **({"pk__lt": ceiling} if ceiling else {}))
    return rows


def id_range(wanted: Mapping[str, str]) -> tuple[UUID | None, UUID | None]:
    """Between which ids all rows of this time lie: an id is made a little after, or before, the moment that its row names."""
    since, until = _moment(wanted, "since"), _moment(wanted, "until")
    floor = first_id(min(since - _SLACK, _LAST)) if since and since.year >= _FIRST_YEAR else None
    return floor, first_id(min(until + _SLACK, _LAST)) if until and until.year >= _FIRST_YEAR else None


def _moment(wanted: Mapping[str, str], name: str) -> datetime | None:
    try:
        return moment(wanted[name]) if name in wanted else None
    except ValidationError as error:
        raise bad_query(name, NO_TIME) from error


def prefix_or_exact(field: str, text: str) -> Q:
    """`app.bsky.feed.post`, `app.bsky.feed.*`, or `*`."""
    try:
        pattern = validation.clean_pattern(text)
    except DjangoValidationError as error:
        raise bad_query(field.rpartition("__")[2], " ".join(error.messages)) from error
    if pattern == "*":
        return Q()
    # No LIKE: to SQLite, a and A are alike there.
    return Q(Exact(Left(field, len(pattern) - 1), pattern[:-1])) if pattern.endswith(".*") else Q(**{field: pattern})
