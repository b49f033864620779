"""The express lane: `POST /api/v1/events`, answered before Django and DRF have unpacked the request.

An event costs its key, its JSON and its part of a transaction; the layers around a view cost several times that. What is
done here is what the view does, by the same functions, and nothing that needs a connection of its own; whatever is not plain
(a key that was not seen for a second, a bad body, a limit reached) is left to the view, which has words for it.
"""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from django.utils import timezone

from delivery.ingest import NotStored
from delivery.sources import api, strict_json
from jetrelay import posting
from jetrelay.api import limits, problems
from jetrelay.api.events import MAX_KEY, SCOPE, accepted_as, another, posted, remembered_source
from jetrelay.logs import requests
from jetrelay.safety import HEADER_LINES
from subscriptions import keys
from subscriptions.keys import Bearer

PATH = "/api/v1/events"

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class Express:
    """In front of the site's WSGI application."""

    def __init__(self, site: Wsgi) -> None:
        self.site = site

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] != "POST" or environ.get("QUERY_STRING"):
            return self.site(environ, start_response)
        bearer = _bearer(environ.get("HTTP_AUTHORIZATION", ""))
        length = environ.get("CONTENT_LENGTH") or ""
        if bearer is None or not _is_json(environ.get("CONTENT_TYPE", "")) or not length.isdecimal() or int(length) > api.MAX_EVENT:
            return self.site(environ, start_response)
        body = environ["wsgi.input"].read(int(length))
        answer = _answer(environ, bearer, body) if len(body) == int(length) else None
        if answer is None:
            # As if nobody had read it.
            return self.site(environ | {"wsgi.input": io.BytesIO(body)}, start_response)
        status, headers, text = answer
        start_response(status, headers)
        return [text]


def _bearer(header: str) -> Bearer | None:
    """Whoever may post, if that is known; else the view looks, and has words for those who may not."""
    scheme, _, text = header.partition(" ")
    bearer = keys.remembered(text.strip()) if scheme.lower() == "bearer" else None
    return bearer if bearer and SCOPE in bearer.scopes else None


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _answer(environ: Environ, bearer: Bearer, body: bytes) -> tuple[str, list[tuple[str, str]], bytes] | None:
    """Status, headers and body; None where the view has to answer."""
    given = environ.get("HTTP_IDEMPOTENCY_KEY")
    source = remembered_source(bearer.tenant_id)
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
    request_id = requests.request_id(environ.get("HTTP_X_REQUEST_ID"))
    headers = [*_HEADERS, ("X-Request-Id", request_id), *limits.headers(quota)]
    try:
        accepted = posting.publish(bearer.tenant_id, source, [event])[0]
        if accepted.same:
            return "202 Accepted", [("Content-Type", "application/json"), *headers], json.dumps(accepted_as(accepted), separators=(",", ":")).encode()
        problem = another(given or value["id"])
    except NotStored as error:
        # It may have been stored: the view must not do it again under another id.
        problem = problems.of(error)
    except problems.Problem as busy:
        problem = busy
    document = json.dumps(problems.document(problem, request_id), separators=(",", ":")).encode()
    return problems.status_line(problem), [("Content-Type", problems.MEDIA_TYPE), *headers, *problem.headers.items()], document


_HEADERS = [("Cache-Control", "no-store"), *HEADER_LINES]
