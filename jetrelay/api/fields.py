"""Fields that take what the schema says and nothing that resembles it, and serializers that know all their names.

How long a text is, and how many there are of anything, is looked at before what it holds: DRF would first read all of it.
Of what is wrong with many items, so much is told as somebody reads.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.fields import empty, get_error_detail

from jetrelay.api.problems import MOST_ERRORS
from subscriptions.ids import from_public, to_public

# Of a time, an id, or one of a few words: whatever is longer is none.
_LONGEST_WORD = 100
NO_TIME = "Write a time with its zone as RFC 3339 has it, such as 2026-11-28T12:00:00Z."


class Text(serializers.CharField):
    """A string: neither a number nor true, nothing that a database cannot hold, and kept as it came."""

    def __init__(self, pattern: str = "", words: str = "", **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.pattern = pattern
        if pattern:
            self.validators.append(RegexValidator(pattern, words))

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise ValidationError("Write a string.")
        _check_length(self, data)
        if any(ord(char) < 32 or ord(char) == 127 for char in data):
            raise ValidationError("Leave out control characters, such as line breaks and NUL.")
        if data != data.strip():
            raise ValidationError("Leave out the spaces at its beginning and its end.")
        return str(super().to_internal_value(data))


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or abs(data) > 1e300:
            raise ValidationError("Write a number.")
        return float(data)


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        # 1.0 is the same number as 1 (JSON Schema, 6.3).
        if isinstance(data, bool) or not (isinstance(data, int) or (isinstance(data, float) and data.is_integer())):
            raise ValidationError("Write a whole number.")
        return int(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("Write true or false.")
        return data


class Choice(serializers.ChoiceField):
    """One of a few words: no number that looks like one, and no list."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or len(data) > _LONGEST_WORD:
            self.fail("invalid_choice", input=f"{str(data)[:_LONGEST_WORD]}…" if isinstance(data, str) else type(data).__name__)
        return super().to_internal_value(data)


class Moment(serializers.DateTimeField):
    """A time with its zone; shown in UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        return moment(value)

    def to_representation(self, value: datetime | None) -> Any:
        return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(value: Any) -> datetime:
    """The time in this string. Raises ValidationError."""
    try:
        short = isinstance(value, str) and len(value) <= _LONGEST_WORD
        found = msgspec.convert(value, datetime, strict=True) if short else None
    except msgspec.ValidationError:
        found = None
    if found is None or found.tzinfo is None or not 1970 <= found.year <= 9998:
        raise ValidationError(NO_TIME)
    return found.astimezone(UTC)


class PublicId(serializers.Field):  # type: ignore[type-arg]
    """`ep_…` outside, a UUID inside."""

    def __init__(self, prefix: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prefix = prefix

    def to_internal_value(self, data: Any) -> UUID:
        found = id_of(self.prefix, data) if isinstance(data, str) else None
        if found is None:
            raise ValidationError(f"Write an id such as {self.prefix}_ and 32 hexadecimal digits.")
        return found

    def to_representation(self, value: UUID) -> str:
        return to_public(self.prefix, value)


class Checked(Text):
    """A string in the canonical form that `clean` of `subscriptions/validation.py` gives it."""

    def __init__(self, clean: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clean = clean

    def to_internal_value(self, data: Any) -> str:
        try:
            return str(self.clean(super().to_internal_value(data)))
        except DjangoValidationError as error:
            raise ValidationError(error.messages) from error


class Items(serializers.ListField):
    """A JSON list: a string or an object is none. Its items are counted before the first is looked at."""

    def to_internal_value(self, data: Any) -> list[Any]:
        if not isinstance(data, list):
            raise ValidationError("Write a list.")
        _check_length(self, data)
        return list(super().to_internal_value(data))

    def run_child_validation(self, data: Any) -> list[Any]:
        return [value for _, value in _each(self.child, enumerate(data))]


class List(Items):
    """A list in which what stands twice is taken once."""

    def run_validation(self, data: Any = empty) -> Any:
        # Behind the bounds of its length, which are those of what was sent.
        value = super().run_validation(data)
        return list(dict.fromkeys(value)) if isinstance(value, list) else value


class Named(serializers.DictField):
    """A JSON object of at most so many names of the client's own, each with a value that `child` takes."""

    def __init__(self, most: int, words: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.most, self.words = most, words

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > self.most:
            raise ValidationError(self.words)
        return super().to_internal_value(data)

    def run_child_validation(self, data: Any) -> dict[Any, Any]:
        return dict(_each(self.child, data.items()))


class Strict(serializers.Serializer):  # type: ignore[type-arg]
    """A JSON object with these fields and no other."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError({"non_field_errors": ["Write a JSON object."]})
        writable = {name for name, field in self.fields.items() if not field.read_only}
        advice = _unknown(writable)
        others = islice((name for name in data if name not in writable), MOST_ERRORS)
        unknown = {name: ["This is set by Jetrelay." if name in self.fields else advice] for name in others}
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            raise ValidationError({**error.detail, **unknown} if isinstance(error.detail, dict) else error.detail) from error
        if unknown:
            raise ValidationError(unknown)
        return value


class Nothing(Strict):
    """An empty body, or `{}`."""


def _check_length(field: Any, data: Any) -> None:
    """Raise ValidationError, in the field's own words, for what is longer than it takes."""
    if field.max_length is not None and len(data) > field.max_length:
        field.fail("max_length", max_length=field.max_length)


def _each(child: Any, items: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The items as the field takes them, with their places. After so many bad ones it looks no further."""
    found: list[tuple[Any, Any]] = []
    errors: dict[Any, Any] = {}
    for place, item in items:
        try:
            found.append((place, child.run_validation(item)))
        except ValidationError as error:
            errors[place] = error.detail
        except DjangoValidationError as error:
            errors[place] = get_error_detail(error)
        if len(errors) >= MOST_ERRORS:
            break
    if errors:
        raise ValidationError(errors)
    return found


def _unknown(known: set[str]) -> str:
    return f"Unknown field: use {', '.join(sorted(known))}." if known else "Unknown field: this takes none."


def id_of(prefix: str, text: str) -> UUID | None:
    """The id in `ep_…`, as it is shown and in no other spelling."""
    found = from_public(text) if len(text) <= _LONGEST_WORD else None
    return found if found and to_public(prefix, found) == text else None
