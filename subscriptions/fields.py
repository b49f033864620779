"""Fields that Django does not have."""

from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models

from subscriptions.form_fields import JsonBox
from subscriptions.validation import MAX_DID, MAX_WANTED_DIDS

# Characters of a list as it is typed: each DID with its quotes, a comma and a space.
_LONGEST_LIST = MAX_WANTED_DIDS * (MAX_DID + 4)


@lru_cache(maxsize=8)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("JETRELAY_ENCRYPTION_KEYS is not set: `manage.py up` makes a key in the data directory; elsewhere set it yourself.")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError as error:
        raise ImproperlyConfigured("JETRELAY_ENCRYPTION_KEYS: each key is the URL-safe base64 of 32 bytes.") from error


def cipher() -> MultiFernet:
    """Encrypts with the first of JETRELAY_ENCRYPTION_KEYS, decrypts with any of them."""
    return _cipher(tuple(settings.JETRELAY_ENCRYPTION_KEYS))


def is_current(stored: str) -> bool:
    """Whether the first key opens this value, as the database holds it."""
    try:
        _cipher(tuple(settings.JETRELAY_ENCRYPTION_KEYS[:1])).decrypt(stored.encode())
    except InvalidToken:
        return False
    return True


def reencrypt(stored: str) -> str:
    """The value, as the database holds it, under the first key. Raises InvalidToken if no key opens it."""
    return cipher().rotate(stored.encode()).decode()


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """Text that is encrypted in the database and plain in Python. It cannot be searched or ordered by."""

    def get_prep_value(self, value: Any) -> Any:
        return cipher().encrypt(str(value).encode()).decode() if value else value

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        if not value:
            return value
        try:
            return cipher().decrypt(value.encode()).decode()
        except InvalidToken as error:
            raise ImproperlyConfigured(
                "JETRELAY_ENCRYPTION_KEYS: none of the keys opens a stored secret. Put the key it was written with back into the list."
            ) from error


class PatternListField(models.JSONField):
    """A JSON list of strings, each put into its canonical form by `clean` when the model is validated.

    There may be as many of them as of the longest list that a Jetstream takes.
    """

    def __init__(self, *args: Any, each: Any = None, **kwargs: Any) -> None:
        self.each = each
        super().__init__(*args, **kwargs)

    def clean(self, value: Any, model_instance: models.Model | None) -> list[str]:
        value = super().clean(value, model_instance)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValidationError('Write a JSON list of strings, such as ["app.bsky.feed.post"].')
        if len(value) > MAX_WANTED_DIDS:
            raise ValidationError(f"At most {MAX_WANTED_DIDS:,} can be named here.")
        cleaned = [self.each(item) for item in value] if self.each else value
        return list(dict.fromkeys(cleaned))

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": JsonBox, "longest": _LONGEST_LIST, **kwargs})
