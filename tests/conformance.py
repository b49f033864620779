"""What Schemathesis is told before it makes up requests (`SCHEMATHESIS_HOOKS`): where it must not send, and which ids there are.

It makes up endpoints too, and Jetrelay would send to them if it were told to verify or test one. So every URL that would
be taken is replaced by one on loopback that nobody listens to; what would be refused stays as it is.
"""

import itertools
import json
import os
import re
from collections import Counter
from datetime import datetime
from typing import Any

import schemathesis
from django.core.exceptions import ValidationError
from hypothesis import strategies as st

from subscriptions.validation import clean_webhook_url

# The port of discard (RFC 863).
NOBODY = "http://127.0.0.1:9/"
# By prefix, the ids of rows that were made for this; a host of the stream; and the key that the requests are made with, which has to stay.
IDS: dict[str, list[str]] = json.loads(os.environ.get("CONFORMANCE_IDS", "{}"))
HOST = os.environ.get("CONFORMANCE_HOST", "")
OWN_KEY = os.environ.get("CONFORMANCE_KEY_ID", "")

_ID = re.compile(r"([a-z]+)_([0-9a-f]{32})\Z")
_numbers = itertools.count(1)

# No schema can say that a time has to lie in the years that ids and databases hold.
_MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)).map(lambda moment: f"{moment.isoformat()}Z")  # noqa: DTZ001 - the zone is written behind it
schemathesis.openapi.format("date-time", _MOMENTS)
schemathesis.openapi.format("uri", st.from_regex(r"\A[a-z0-9/._~-]{0,30}\Z").map(NOBODY.__add__))
# Of what the coverage phase enumerates for one operation: all up to so many, and every so manieth beyond. 0: all of it.
FEW, EVERY = 12, int(os.environ.get("CONFORMANCE_EVERY", "0"))
_seen: Counter[str] = Counter()


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    if not EVERY or case.meta is None or case.meta.phase.name.value != "coverage":
        return True
    _seen[case.operation.label] += 1
    return _seen[case.operation.label] <= FEW or _seen[case.operation.label] % EVERY == 0


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    for values in (case.path_parameters, case.query, case.body):
        if isinstance(values, dict):
            for name, value in values.items():
                values[name] = _known(value)
    number = next(_numbers)
    if isinstance(case.body, dict):
        _mend(case.body, number)
    if case.path.startswith("/api/v1/keys/{id}") and case.method != "GET" and case.path_parameters.get("id") == OWN_KEY:
        case.path_parameters["id"] = "key_" + "0" * 32
    if case.headers:
        _spare(case.headers, number)


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    # One DID more than are taken makes a body of megabytes, for each of many requests.
    for schema in raw_schema["components"]["schemas"].values():
        schema.get("properties", {}).get("dids", {}).pop("maxItems", None)


def _mend(body: dict[str, Any], number: int) -> None:
    if "url" in body:
        body["url"] = _harmless(body["url"])
    if number % 10 == 0:
        return
    # An id belongs to one event, and few hosts are there: most requests are to come further than that.
    if isinstance(body.get("id"), str) and re.fullmatch(r"[!-~]{1,200}", body["id"]):
        body["id"] = f"conformance-{number}"
    if isinstance(body.get("host"), str) and re.fullmatch(r"[!-~]{1,255}", body["host"]):
        body["host"] = HOST


def _spare(headers: Any, number: int) -> None:
    """Leave conditions that were made up to every tenth request: one that is not met hides all the rest of it."""
    for name in [name for name in headers if name.lower() == "host"]:
        # It says whom a request is for: another one's is refused before the API sees it.
        del headers[name]
    kept = number % 10 == 0
    if "If-Match" in headers and not kept:
        headers["If-Match"] = "*"
    key = headers.get("Idempotency-Key")
    # Those that break the rules are all tried. One that came with another request before is 422, and rightly so.
    if isinstance(key, str) and re.fullmatch(r"[!-~]([ -~]{0,198}[!-~])?", key):
        if kept:
            headers["Idempotency-Key"] = f"conformance-{number}"
        else:
            del headers["Idempotency-Key"]


def _known(value: Any) -> Any:
    """Mostly the id of something that is there, where an id was made up."""
    found = _ID.match(value) if isinstance(value, str) else None
    if found is None or found[1] not in IDS:
        return value
    number = int(found[2], 16)
    return value if number % 5 == 0 else IDS[found[1]][number % len(IDS[found[1]])]


def _harmless(url: Any) -> Any:
    try:
        taken = clean_webhook_url(url) if isinstance(url, str) else ""
    except ValidationError:
        return url
    return url if not taken or taken.startswith(NOBODY) else f"{NOBODY}{len(url)}"
