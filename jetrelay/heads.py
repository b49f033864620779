"""What stands above a request's body, bounded before anybody reads it.

A web server takes some 400 KB of it from everybody, and what reads it was not made for so much: Python's cookies cost the
square of their backslashes, the admin's search the square of its quotes, some of its routes that of their slashes.
All that is ever needed fits into a fraction.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from jetrelay.api import problems

Answer = Callable[[HttpRequest], HttpResponseBase]

# Of an address without its query: an inbox, or a row in the admin. Some routes cost the square of it, such as the admin's own.
MOST_PATH = 1024
# The live tail's address is the longest of ours: a filter, and 500 events that have been shown. In bytes.
MOST_TARGET = 16 * 1024
# Servers take 8 to 16 KiB as a rule; a batch that Jetrelay itself delivers to its inbox has 4 KB of ids.
MOST_HEADER = 16 * 1024
MOST_HEADERS = 64 * 1024


def bounded(get_response: Answer) -> Answer:
    """Middleware: a head that is too large is refused, and cookies that are none of ours are left out."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        environ = request.META
        path, query = len(environ.get("PATH_INFO", "")), len(environ.get("QUERY_STRING", ""))
        if path > MOST_PATH or path + query > MOST_TARGET:
            words = f"The address is too long: at most {MOST_PATH:,} bytes without its query are taken, and {MOST_TARGET:,} with it."
            return _refused(request, HTTPStatus.REQUEST_URI_TOO_LONG, words)
        if is_long(environ):
            words = f"The request's headers are too large: at most {MOST_HEADER:,} bytes each and {MOST_HEADERS:,} in all are taken."
            return _refused(request, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
        if "\\" in environ.get("HTTP_COOKIE", ""):
            # In a cookie, it stands for a character that could not be written: none of ours has any.
            environ["HTTP_COOKIE"] = ";".join(each for each in environ["HTTP_COOKIE"].split(";") if "\\" not in each)
        return get_response(request)

    return middleware


def is_long(environ: Mapping[str, Any]) -> bool:
    """Whether one of the headers is too long, or all of them are together."""
    sizes = [len(value) for name, value in environ.items() if name.startswith("HTTP_")]
    sizes.append(len(environ.get("CONTENT_TYPE", "")))
    return max(sizes) > MOST_HEADER or sum(sizes) > MOST_HEADERS


def _refused(request: HttpRequest, status: HTTPStatus, words: str) -> HttpResponse:
    if request.path.startswith("/api/"):
        return problems.answer(request, problems.Problem(status, "too_large", words))
    return HttpResponse(f"{words}\n", status=status, content_type="text/plain; charset=utf-8")
