"""How long a body may be.

A few kilobytes from a stranger, more from whoever shows something that opens the place it is sent
to.

What is too long for anybody is refused by its Content-Length, unread. What is too long for a
stranger waits unread until a thread has looked at the key, the session or the inbox. What comes in
chunks has no Content-Length: it is read until it is too long, and then refused or made to wait.
"""

from importlib import import_module

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model

from jetrelay import askers
from jetrelay.api.events import MAX_BATCH_BYTES
from jetrelay.dashboard.access import Access
from jetrelay.front.heads import Environ
from jetrelay.inbox.models import Inbox, digest_of
from jetrelay.inbox.views import MAX_BODY as MAX_INBOX
from jetrelay.shares import Asker
from subscriptions import keys
from subscriptions.ids import from_public

# Signing in takes 1 KB at most, a new endpoint or an event 2 KB.
STRANGERS = 16 * 1024
# An event with what is around it, and whatever else the API takes.
API = 1024 * 1024
BATCH_PATHS = ("/api/v1/events/batch",)
# A form of a member: the signature debugger takes a body of 256 KiB, and each of its bytes may
# become three.
PAGES = 2 * 1024 * 1024

_API, _INBOX = "/api/", "/inbox/"


def most(path: str) -> int:
    """The longest body that anybody may send there, in bytes."""
    if path.startswith(_API):
        return MAX_BATCH_BYTES if path in BATCH_PATHS else API
    return MAX_INBOX if path.startswith(_INBOX) else PAGES


def known(environ: Environ) -> Asker | None:
    """Who has shown what opens the place, if that is known without a look into the database."""
    bearer = keys.remembered(text) if (text := _key(environ)) else None
    return askers.tenant(bearer.tenant_id) if bearer else None


def looked_up(environ: Environ) -> Asker | None:
    """Who has shown what opens the place, by the database."""
    path = environ["PATH_INFO"]
    if path.startswith(_API):
        bearer = keys.find(text) if (text := _key(environ)) else None
        return askers.tenant(bearer.tenant_id) if bearer else None
    if path.startswith(_INBOX):
        found = _inbox(path.removeprefix(_INBOX).strip("/"))
        return Asker("inbox", str(found)) if found else None
    name = askers.session_of(environ)
    store = import_module(settings.SESSION_ENGINE).SessionStore
    id = store(name).get(SESSION_KEY) if name and "\0" not in name else None
    user = get_user_model()._default_manager.filter(pk=id, is_active=True).first() if id else None
    return askers.people(user, Access.of(user)) if user else None


def _inbox(shown: str) -> int | None:
    """The inbox of a token, or of an endpoint."""
    if shown.startswith("of/"):
        endpoint = from_public(shown.removeprefix("of/"))
        inboxes = Inbox.objects.present().filter(endpoint=endpoint) if endpoint else Inbox.objects.none()
    else:
        inboxes = Inbox.objects.present().filter(token_digest=digest_of(shown))
    found: int | None = inboxes.values_list("pk", flat=True).first()
    return found


def of_api(path: str) -> bool:
    return path.startswith(_API)


def _key(environ: Environ) -> str:
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    is_key = scheme.lower() == "bearer" and of_api(environ["PATH_INFO"])
    return text.strip() if is_key else ""
