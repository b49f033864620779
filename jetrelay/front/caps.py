"""How long a body may be.

A few kilobytes from a stranger, more from whoever shows something that opens the place it is sent
to.

What is too long for anybody is refused by its Content-Length, unread. What is too long for a
stranger waits unread until a thread has looked at the key, the session or the inbox.
"""

from typing import NamedTuple

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.http import parse_cookie

from jetrelay.api.events import MAX_BATCH_BYTES
from jetrelay.front.heads import Environ
from jetrelay.inbox.models import Inbox
from jetrelay.inbox.views import MAX_BODY as MAX_INBOX
from subscriptions import keys

# Signing in takes 1 KB at most, a new endpoint or an event 2 KB.
STRANGERS = 16 * 1024
# An event with what is around it, and whatever else the API takes.
API = 1024 * 1024
BATCH_PATHS = ("/api/v1/events/batch",)
# A form of a member: the signature debugger takes a body of 256 KiB, and each of its bytes may
# become three.
PAGES = 2 * 1024 * 1024

_API, _INBOX = "/api/", "/inbox/"


class Shown(NamedTuple):
    """What somebody has shown: who it is, to count what they hold."""

    owner: str


def most(path: str) -> int:
    """The longest body that anybody may send there, in bytes."""
    if path.startswith(_API):
        return MAX_BATCH_BYTES if path in BATCH_PATHS else API
    return MAX_INBOX if path.startswith(_INBOX) else PAGES


def known(environ: Environ) -> Shown | None:
    """What is shown, if that is known without a look into the database."""
    bearer = keys.remembered(text) if (text := _key(environ)) else None
    return Shown(f"key {bearer.key_id}") if bearer else None


def looked_up(environ: Environ) -> Shown | None:
    """What is shown, by the database."""
    path = environ["PATH_INFO"]
    if path.startswith(_API):
        bearer = keys.find(text) if (text := _key(environ)) else None
        return Shown(f"key {bearer.key_id}") if bearer else None
    if path.startswith(_INBOX):
        token = path.removeprefix(_INBOX).strip("/")
        is_one = "\0" not in token and Inbox.objects.filter(token=token).exists()
        return Shown(f"inbox {token}") if is_one else None
    name = parse_cookie(environ.get("HTTP_COOKIE", "")).get(settings.SESSION_COOKIE_NAME, "")
    user = SessionStore(name).get(SESSION_KEY) if name and "\0" not in name else None
    return Shown(f"user {user}") if user else None


def of_api(path: str) -> bool:
    return path.startswith(_API)


def _key(environ: Environ) -> str:
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    is_key = scheme.lower() == "bearer" and of_api(environ["PATH_INFO"])
    return text.strip() if is_key else ""
