"""Lists, newest first, by key: `{"data": […], "next_cursor": …, "has_more": …}`.

A page costs what it holds, however deep in the list it lies: the cursor is an id, not a number of rows. Where a filter
has no index, a page looks at so many rows at most; it may then hold few of them, or none, and still have a next one.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.replay.moves import among
from jetrelay.api.problems import bad_query
from jetrelay.newest import Look

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
# Rows that a filter without an index looks at for one page.
MAX_LOOKED_AT = 20_000
PARAMETERS = ("limit", "cursor")

M = TypeVar("M", bound=Model)


def page(request: Request, rows: "QuerySet[M]", show: Callable[[Sequence[M]], list[Any]], narrow: Q | None = None) -> Response:
    """One page of these rows. `narrow` is a filter that no index serves."""

    def look(after: UUID | None, most: int) -> Look:
        ids = list((rows.filter(pk__lt=after) if after else rows).order_by("-pk").values_list("pk", flat=True)[: most + 1])
        return Look(ids[:most], len(ids) > most)

    return page_of(request, look, rows, show, narrow)


def page_of(
    request: Request, look: Callable[[UUID | None, int], Look], rows: "QuerySet[M]", show: Callable[[Sequence[M]], list[Any]], narrow: Q | None = None
) -> Response:
    """One page of the rows that `look` finds after an id: so many, or fewer where it has more to look through."""
    limit, after = _limit(request), _cursor(request)
    ids, more = look(after, limit if narrow is None else MAX_LOOKED_AT)
    # Of those that were looked at, and no others: the filter reads no more than these, whatever the planner thinks of it.
    chosen = among(rows if narrow is None else rows.filter(narrow), ids).order_by("-pk")
    found = list(chosen[: limit + 1])
    if len(found) > limit:
        return _answer(show(found[:limit]), found[limit - 1].pk)
    return _answer(show(found), ids[-1] if more else None)


def _answer(data: list[Any], last: UUID | None) -> Response:
    return Response({"data": data, "next_cursor": _text(last) if last else None, "has_more": last is not None})


def _text(id: UUID) -> str:
    return urlsafe_b64encode(id.bytes).decode().rstrip("=")


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and 1 <= len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT):
        raise bad_query("limit", f"write a whole number from 1 to {MAX_LIMIT}.")
    return int(text)


def _cursor(request: Request) -> UUID | None:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        found = UUID(bytes=urlsafe_b64decode(text.encode("ascii") + b"=="))
    except (ValueError, UnicodeEncodeError):
        found = None
    # Base64 has several spellings of one value: only our own is taken.
    if found is None or _text(found) != text:
        raise bad_query("cursor", "this is no cursor: take next_cursor of the page before, or leave it out for the newest.")
    return found
