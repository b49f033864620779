"""Taking one request in: verify it, keep it, forget the oldest."""

import hmac
from urllib.parse import unquote

from django.db import transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from delivery import signing
from jetrelay.inbox.models import Inbox, InboxMessage
from subscriptions.models import Endpoint

KEPT = 200
# Forgetting costs a query: it is done for one message in so many.
FORGET_EVERY = 20
_HIDDEN = ("authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token")


def receive(inbox: Inbox, request: HttpRequest, body: bytes, token: str = "") -> InboxMessage:
    """Store the request with the verdict on its signature. Without the inbox's token it is judged, and stored only if it verifies."""
    verified, verdict = _verdict(inbox.endpoint, request, body)
    message = InboxMessage(
        inbox=inbox,
        webhook_id=_storable(request.headers.get("webhook-id", ""))[:100],
        verified=verified,
        verdict=verdict[:200],
        headers=_shown_headers(inbox.endpoint, request, token),
        body=body,
    )
    if not verified and not token:
        return message
    with transaction.atomic():
        message.save()
        Inbox.objects.filter(pk=inbox.pk).update(received=F("received") + 1)
    if inbox.received % FORGET_EVERY == 0:
        forget_oldest(inbox)
    return message


def forget_oldest(inbox: Inbox) -> None:
    last = inbox.messages.order_by("-id").values_list("id", flat=True)[KEPT : KEPT + 1].first()
    if last is not None:
        inbox.messages.filter(id__lte=last).delete()


def _verdict(endpoint: Endpoint, request: HttpRequest, body: bytes) -> tuple[bool, str]:
    now = timezone.now()
    try:
        signing.verify(endpoint.secrets_at(now), request.headers, body, now.timestamp(), signing.Scheme(endpoint.signature_scheme))
    except signing.InvalidSignature as error:
        return False, _storable(str(error))
    return True, "signature verified"


def _shown_headers(endpoint: Endpoint, request: HttpRequest, token: str) -> dict[str, str]:
    """The headers as they came, but for those that hold a secret. Browsers and proxies send the address along, and the token in it."""
    hidden = {*_HIDDEN, *(name.lower() for name in endpoint.extra_header_names)}
    headers = {
        name: "(hidden)" if name.lower() in hidden or (token and token in unquote(value)) else _storable(value) for name, value in request.headers.items()
    }
    if "authorization" in request.headers:
        headers["Authorization"] = _bearer(endpoint.bearer_token, request.headers["authorization"])
    return headers


def _bearer(token: str, header: str) -> str:
    if not token:
        return "(hidden; this endpoint has no bearer token)"
    right = hmac.compare_digest(header.encode(), f"Bearer {token}".encode())
    return "Bearer (hidden; the right token)" if right else "(hidden; not this endpoint's bearer token)"


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL in text."""
    return text.replace("\0", "\ufffd")
