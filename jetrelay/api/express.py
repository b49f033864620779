"""The express lane: `POST /api/v1/events`, answered before Django and DRF have unpacked the request.

An event costs its key, its JSON and its part of a transaction; the layers around a view cost several times that. What is
done here is what the view does, by the same functions, and nothing that needs a connection of its own; whatever is not plain
(a key or a debt that was not looked at for a second, a bad body, a limit reached) is left to the view, which has words for it.
"""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.utils import timezone

from delivery import ingest, owing
from delivery.ingest import Accepted, NotStored, Posted
from delivery.sources import api, strict_json
from jetrelay.api import limits, problems
from jetrelay.api.events import (
    MAX_KEY,
    SCOPE,
    accepted_as,
    another,
    most_pending,
    posted,
    remembered_source,
    too_wide,
)
from jetrelay.logs import requests
from jetrelay.safety import HEADER_LINES
from subscriptions import keys
from subscriptions.keys import Bearer
from subscriptions.models import Source

PATH = "/api/v1/events"

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class Express:
    """In front of the site's WSGI application."""

    def __init__(self, site: Wsgi) -> None:
        self.site = site

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        bearer = bearer_of(environ)
        length = environ.get("CONTENT_LENGTH") or ""
        if bearer is None or not _is_short(length):
            return self.site(environ, start_response)
        body = environ["wsgi.input"].read(int(length))
        answer = _answer(environ, bearer, body) if len(body) == int(length) else None
        if answer is None:
            # As if nobody had read it.
            return self.site(environ | {"wsgi.input": io.BytesIO(body)}, start_response)
        status, headers, text = answer
        start_response(status, headers)
        return [text]


class Plain(NamedTuple):
    """A post that is as plain as can be: the event, and what the answer takes."""

    bearer: Bearer
    source: Source
    event: Posted
    id: str | None
    request_id: str
    headers: list[tuple[str, str]]

    def answer(self, found: Accepted | NotStored) -> "Answer":
        """What became of it, as status, headers and body."""
        headers = [*_HEADERS, ("X-Request-Id", self.request_id), *self.headers]
        if isinstance(found, NotStored):
            # It may have been stored: the view must not do it again under another id.
            problem = problems.of(found)
        elif found.refused:
            problem = problems.over_quota(too_wide(found, self.bearer))
        elif found.same:
            owing.added(self.bearer.tenant_id, found.deliveries)
            return "202 Accepted", [("Content-Type", "application/json"), *headers], json.dumps(accepted_as(found), separators=(",", ":")).encode()
        else:
            problem = another(self.id or "")
        document = json.dumps(problems.document(problem, self.request_id), separators=(",", ":")).encode()
        return problems.status_line(problem), [("Content-Type", problems.MEDIA_TYPE), *headers, *problem.headers.items()], document


Answer = tuple[str, list[tuple[str, str]], bytes]


def bearer_of(environ: Environ) -> Bearer | None:
    """Whoever posts an event here, where that is known and they may; else the view looks, and has words for those who may not."""
    if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] != "POST" or environ.get("QUERY_STRING") or not _is_json(environ.get("CONTENT_TYPE", "")):
        return None
    if "HTTP_CONTENT_ENCODING" in environ:
        return None
    return _bearer(environ.get("HTTP_AUTHORIZATION", ""))


def _bearer(header: str) -> Bearer | None:
    """Whoever may post, if that is known; else the view looks, and has words for those who may not."""
    scheme, _, text = header.partition(" ")
    bearer = keys.remembered(text.strip()) if scheme.lower() == "bearer" else None
    return bearer if bearer and SCOPE in bearer.scopes else None


def _is_short(length: str) -> bool:
    """Whether a body of this length may be an event. Python reads no number of thousands of digits."""
    return length.isdecimal() and len(length) < 19 and int(length) <= api.MAX_EVENT


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _answer(environ: Environ, bearer: Bearer, body: bytes) -> Answer | None:
    """Status, headers and body; None where the view has to answer."""
    plain = plainly(environ, bearer, body)
    if plain is None:
        return None
    try:
        return plain.answer(ingest.publisher.publish(plain.source, [plain.event])[0])
    except NotStored as error:
        return plain.answer(error)


def plainly(environ: Environ, bearer: Bearer, body: bytes) -> Plain | None:
    """The event that this posts, counted among the key's requests; None where the view has to answer."""
    given = environ.get("HTTP_IDEMPOTENCY_KEY")
    source = remembered_source(bearer.tenant_id)
    if owing.known(bearer.tenant_id, most_pending(bearer)) is None:
        return None
    if source is None or (given is not None and not (api.is_id(given) and len(given) <= MAX_KEY)):
        return None
    try:
        value = strict_json.loads(body)
        event = posted(body, value, timezone.now(), bearer.key_id, given)
    except (strict_json.InvalidJson, problems.Problem):
        return None
    quota = limits.take(bearer)
    if quota.remaining < 0:
        return None
    return Plain(bearer, source, event, given or value.get("id"), requests.request_id(environ.get("HTTP_X_REQUEST_ID")), limits.headers(quota))


_HEADERS = [("Cache-Control", "no-store"), *HEADER_LINES]
