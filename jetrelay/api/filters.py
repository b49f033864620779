"""What query parameters several lists share."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

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
    for name, compare, by_id in (("since", "gte", "gt"), ("until", "lt", "lt")):
        if (text := wanted.get(name)) is not None:
            try:
                at = moment(text)
            except ValidationError as error:
                raise bad_query(name, NO_TIME) from error
            # An id is made a little after, or before, the moment that its row names.
            slack = -_SLACK if name == "since" else _SLACK
            if at.year >= _FIRST_YEAR:
                rows = rows.filter(**{f"pk__{by_id}": first_id(min(at + slack, _LAST))})
            rows = rows.filter(**{f"{field}__{compare}": at})
    return rows


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
