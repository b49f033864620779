"""Fields that take what the schema says and nothing that resembles it, and serializers that know all their names."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.fields import empty

from subscriptions.ids import from_public, to_public

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


class Moment(serializers.DateTimeField):
    """A time with its zone; shown in UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        return moment(value)

    def to_representation(self, value: datetime | None) -> Any:
        return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(value: Any) -> datetime:
    """The time in this string. Raises ValidationError."""
    try:
        found = msgspec.convert(value, datetime, strict=True) if isinstance(value, str) else None
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


class List(serializers.ListField):
    """A JSON list: a string or an object is none. What stands in it twice is taken once."""

    def to_internal_value(self, data: Any) -> list[Any]:
        if not isinstance(data, list):
            raise ValidationError("Write a list.")
        return list(super().to_internal_value(data))

    def run_validation(self, data: Any = empty) -> Any:
        # Behind the bounds of its length, which are those of what was sent.
        value = super().run_validation(data)
        return list(dict.fromkeys(value)) if isinstance(value, list) else value


class Strict(serializers.Serializer):  # type: ignore[type-arg]
    """A JSON object with these fields and no other."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError({"non_field_errors": ["Write a JSON object."]})
        writable = {name for name, field in self.fields.items() if not field.read_only}
        unknown = {name: ["This is set by Jetrelay." if name in self.fields else _unknown(writable)] for name in data if name not in writable}
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            raise ValidationError({**error.detail, **unknown} if isinstance(error.detail, dict) else error.detail) from error
        if unknown:
            raise ValidationError(unknown)
        return value


class Nothing(Strict):
    """An empty body, or `{}`."""


def _unknown(known: set[str]) -> str:
    return f"Unknown field: use {', '.join(sorted(known))}." if known else "Unknown field: this takes none."


def id_of(prefix: str, text: str) -> UUID | None:
    """The id in `ep_…`, as it is shown and in no other spelling."""
    found = from_public(text)
    return found if found and to_public(prefix, found) == text else None
