"""Fields of forms for what people type by the page: bounded before anybody reads it."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

_NOT_JSON = "This is no JSON list that can be read here: write it like the example."


class JsonBox(forms.JSONField):
    """JSON in a box. Django's own field takes any length, and fails on depth and on numbers of thousands of digits."""

    def __init__(self, *, longest: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.longest = longest

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and len(value) > self.longest:
            raise ValidationError(f"This has {len(value):,} characters: at most {self.longest:,} are read here.")
        try:
            return super().to_python(value)
        except (RecursionError, ValueError) as error:
            # ValidationError is none of these.
            raise ValidationError(_NOT_JSON) from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        """As it was typed, where it cannot be read: it is shown again, with the error."""
        if isinstance(data, str) and len(data) > self.longest:
            return forms.fields.InvalidJSONInput(data)
        try:
            return super().bound_data(data, initial)
        except (RecursionError, ValueError):
            return forms.fields.InvalidJSONInput(data)
