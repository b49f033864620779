"""Sessions whose rows let nobody in.

Whoever shows the word that a cookie holds is signed in, so the row is kept under that word's digest: who reads the table,
or a dump of it, has nothing to show. What a session remembers is encrypted with a key that is made from SECRET_KEY: Django
puts the token of a first password there, and messages that found no room in a cookie.

Django's own rows, of 0.1.0, were under the words themselves. They open nothing here.
"""

import base64
from functools import lru_cache
from hashlib import sha256
from typing import Any

from asgiref.sync import sync_to_async
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.utils import timezone
from django.utils.crypto import salted_hmac


def digest_of(word: str) -> str:
    """What is kept of the word in a cookie. 240 bits: the column has room for 40 characters."""
    return base64.urlsafe_b64encode(sha256(b"jetrelay session " + word.encode()).digest()).decode()[:40]


class SessionStore(db.SessionStore):
    """Django's, in the database, with digests for its rows' keys. `session_key` stays the word: it goes into the cookie."""

    def _get_session_from_db(self) -> Session | None:
        word = self.session_key
        found = self._live(word) if word else None
        if found is None:
            # Nobody chooses the word of a session: one that is unknown is not taken over.
            self._session_key = None
        return found

    def _live(self, word: str) -> Session | None:
        row: Session | None = Session.objects.filter(session_key=digest_of(word), expire_date__gt=timezone.now()).first()
        return row

    def exists(self, session_key: str | None = None) -> bool:
        return session_key is not None and super().exists(digest_of(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        word: str = self._get_or_create_session_key()  # type: ignore[attr-defined] # which its types leave out
        return Session(session_key=digest_of(word), session_data=self.encode(data), expire_date=self.get_expiry_date())

    def delete(self, session_key: str | None = None) -> None:
        word = session_key or self.session_key
        if word:
            Session.objects.filter(session_key=digest_of(word)).delete()

    def encode(self, session_dict: dict[str, Any]) -> str:
        return _cipher(settings.SECRET_KEY).encrypt(super().encode(session_dict).encode()).decode()

    def decode(self, session_data: bytes | str) -> dict[str, Any]:
        try:
            signed = _cipher(settings.SECRET_KEY).decrypt(session_data).decode()
        except InvalidToken:
            # Of another SECRET_KEY: as Django does with a signature that does not fit.
            return {}
        found: dict[str, Any] = super().decode(signed)
        return found

    # The same for views that are asynchronous, so that none of them falls back to Django's.

    async def _aget_session_from_db(self) -> Session | None:
        return await sync_to_async(self._get_session_from_db)()

    async def aexists(self, session_key: str) -> bool:
        return await sync_to_async(self.exists)(session_key)

    async def acreate_model_instance(self, data: dict[str, Any]) -> Session:
        return await sync_to_async(self.create_model_instance)(data)

    async def adelete(self, session_key: str | None = None) -> None:
        await sync_to_async(self.delete)(session_key)


@lru_cache(maxsize=2)
def _cipher(secret_key: str) -> Fernet:
    key = salted_hmac("jetrelay.sessions", "", secret_key, algorithm="sha256").digest()
    return Fernet(base64.urlsafe_b64encode(key))
