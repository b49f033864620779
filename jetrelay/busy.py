"""What is answered, in words, where there is no place for a request now. Nothing was done: it may be sent again."""

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from django.template import loader

from jetrelay.api import problems
from jetrelay.dashboard.access import CONTENT_SECURITY_POLICY
from jetrelay.logs import requests
from jetrelay.safety import HEADER_LINES

# Most calls take milliseconds: by then others have been answered.
RETRY_AFTER_S = 2

CALLS = "Too many of your requests are under way, or too many of all: wait for some of their answers, then send this one again."
BODIES = "The bodies of your requests that are under way hold too much memory, or those of all: wait for some of their answers, then send this one again."


def problem(words: str, retry_after_s: int = RETRY_AFTER_S) -> problems.Problem:
    """For the API."""
    return problems.Problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", words, headers={"Retry-After": str(retry_after_s)})


def refuse(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer a request in front of Django: a problem to the API's clients, a page to browsers, a line to everybody else."""
    id = requests.request_id(environ.get("HTTP_X_REQUEST_ID"))
    found = problem(CALLS)
    headers = [("Cache-Control", "no-store"), (requests.HEADER, id), *HEADER_LINES, *found.headers.items()]
    if environ.get("CONTENT_LENGTH") not in (None, "", "0"):
        # Its body may not have been read.
        headers.append(("Connection", "close"))
    if environ.get("PATH_INFO", "").startswith("/api/v1"):
        body, content_type = json.dumps(problems.document(found, id), separators=(",", ":")).encode(), problems.MEDIA_TYPE
    elif "text/html" in environ.get("HTTP_ACCEPT", "") and "HTTP_HX_REQUEST" not in environ:
        body, content_type = loader.render_to_string("busy.html", {"words": CALLS}).encode(), "text/html; charset=utf-8"
        headers.append(("Content-Security-Policy", CONTENT_SECURITY_POLICY))
    else:
        body, content_type = f"{CALLS}\n".encode(), "text/plain; charset=utf-8"
    start_response(problems.status_line(found), [("Content-Type", content_type), *headers])
    return [body]
