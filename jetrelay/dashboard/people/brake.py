"""A brake on guessing passwords: so many tries in five minutes, for one name from one address, and for one address.

Nobody is locked out by others: a right password goes through from any other address. All web processes count together where
there is a Redis; without it, and while it is away or takes nothing, each counts for itself (`jetrelay/counting.py`).
"""

import unicodedata
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from time import time
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render

from jetrelay import counting
from jetrelay.dashboard.access import confined
from jetrelay.forwarded import network_of

WINDOW_S = 300
# Somebody who has three passwords in mind, and a keyboard of another language.
PER_NAME = 10
# An office, or everybody who comes through the same proxy.
PER_ADDRESS = 100

_LONGEST_NAME = 200

View = Callable[..., HttpResponseBase]
# Whatever else a view may take a form by is a try.
_SAFE = ("GET", "HEAD", "OPTIONS")


def take(request: HttpRequest, name: str) -> int:
    """Count one try, before it is known whether it is right: guesses that come together are braked too. Returns for how long to wait, in seconds."""
    by_name, by_address = _counters(request, name)
    # An address that may not try any more names adds none to what is counted: many names would push out the counts of others.
    spent = counting.peek(by_address) >= PER_ADDRESS
    if not spent and counting.add(by_name, 2 * WINDOW_S) <= PER_NAME and counting.add(by_address, 2 * WINDOW_S) <= PER_ADDRESS:
        return 0
    return WINDOW_S - int(time()) % WINDOW_S


def give_back(request: HttpRequest, name: str) -> None:
    """It was right: that was no guess, nor were the ones before."""
    by_name, by_address = _counters(request, name)
    counting.forget(by_name)
    counting.take_back(by_address)


def braked(view: View) -> View:
    """A page that takes a name and a password, and leads away from itself once they are right."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in _SAFE:
            return view(request, *args, **kwargs)
        name = request.POST.get("username", "")
        if wait_s := take(request, name):
            return too_many(request, wait_s)
        response = view(request, *args, **kwargs)
        if response.status_code == 302:
            give_back(request, name)
        return response

    return wrapped


def braked_change(view: View) -> View:
    """The admin's page where one's own password is changed, which asks for the present one: whoever finds a session open may guess that."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in _SAFE or not request.user.is_authenticated:
            return view(request, *args, **kwargs)
        name = request.user.get_username()
        if wait_s := take(request, name):
            return too_many(request, wait_s)
        response = view(request, *args, **kwargs)
        form = (getattr(response, "context_data", None) or {}).get("form")
        if response.status_code == 302 or (form is not None and "old_password" not in form.errors):
            give_back(request, name)
        return response

    return wrapped


def too_many(request: HttpRequest, wait_s: int, what: str = "passwords") -> HttpResponseBase:
    """The same words whether there is such an account or not. `what`: what there were too many of."""
    response = confined(render(request, "too_many.html", {"wait_min": -(-wait_s // 60), "what": what}, status=429))
    response["Retry-After"] = str(wait_s)
    return response


def _counters(request: HttpRequest, name: str) -> tuple[str, str]:
    window = int(time()) // WINDOW_S
    of = network_of(request.META.get("REMOTE_ADDR", ""))
    # As the forms read it, which take several spellings for one name, and none that is longer: making the normal form of a
    # stranger's text takes a time that grows with the square of its length.
    spelled = sha256(unicodedata.normalize("NFKC", name[:_LONGEST_NAME]).strip().encode()).hexdigest()[:32]
    return f"jetrelay:tries:{window}:{of}:{spelled}", f"jetrelay:tries:{window}:{of}"
