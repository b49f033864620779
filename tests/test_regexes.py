"""No regex that sees a stranger's text costs more than in proportion to its length: ours, and those of libraries that are on the way."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.urls import get_resolver

import delivery
import jetrelay
import subscriptions
from tests.regexes import is_linear, literals_in, modules_of, patterns_in, searched_in, worst

PACKAGES = ("jetrelay", "delivery", "subscriptions")
# What reads requests, forms, JSON, cookies, host names and frames before we do, or for us.
LIBRARIES = (
    *("django.core.validators", "django.utils.dateparse", "django.utils.http", "django.utils.text", "django.utils.ipv6"),
    *("django.http.request", "django.http.response", "django.http.multipartparser", "django.http.cookie", "django.middleware.csrf"),
    *("django.forms.fields", "django.forms.models", "django.contrib.auth.validators", "django.core.signing", "django.core.handlers.wsgi"),
    *("http.cookies", "urllib.parse", "json.scanner", "json.decoder", "json.encoder", "email.message", "email._policybase", "email.utils"),
    *("rest_framework.fields", "rest_framework.request", "rest_framework.utils.mediatypes", "whitenoise.base", "whitenoise.responders"),
    *("idna.core", "ipaddress", "django_htmx.middleware", "websocket._handshake", "websocket._http", "_strptime"),
)
# These are not linear, and see nothing long.
BOUNDED = {
    # Of the admin's own link to a row's page: an address is short (`jetrelay/heads.py`, and its tests).
    "the route r/<path:content_type_id>/<path:object_id>/",
}
# These are not linear, and nobody here uses them so: Django reads cookies in its own way, and the other one, which is there once it was
# asked for, is tried from the beginning alone.
UNUSED = {"http.cookies._CookiePattern", "urllib.parse._typeprog"}


@cache
def _ours() -> list[tuple[str, bool, re.Pattern[Any]]]:
    """(where, whether it is only tried from the beginning on, the regex)."""
    routes = [(name, False, pattern) for name, pattern in _routes(get_resolver())]
    found = []
    for module in modules_of(*PACKAGES):
        searched = searched_in(module)
        for where, pattern in patterns_in(module):
            # One in a table is used from there, as anybody may.
            name = where.rpartition(".")[2]
            alone = isinstance(getattr(module, name), re.Pattern)
            found.append((where, alone and name not in searched, pattern))
    for package in (jetrelay, delivery, subscriptions):
        root = Path(package.__path__[0])
        for file in root.rglob("*.py"):
            for line, anchored, text in literals_in(file):
                # What is compiled has a name of its own.
                if text is not None and "re.compile(" not in file.read_text().splitlines()[line - 1]:
                    found.append((f"{file.relative_to(root.parent)}:{line}", anchored, re.compile(text)))
    return [*routes, *found]


def _routes(resolver: Any) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Of the site's addresses."""
    for each in resolver.url_patterns:
        yield f"the route {each.pattern}", each.pattern.regex
        if hasattr(each, "url_patterns"):
            yield from _routes(each)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?s)(//|^).*@",
        r"(a+)+$",
        r"\s+$",
        r"(?:a|a)*b",
        r"(.*),(.*),(.*)x",
        r"name=(?:(?!\\+[rn]--)(?:.|\n))+",
        rb"x*y",
    ],
)
def test_it_knows_a_regex_that_is_not_linear(pattern: Any) -> None:
    assert worst(re.compile(pattern)) is not None


@pytest.mark.parametrize("pattern", [r"a*b\Z", r"(?:[a-z]{1,63}\.)*[a-z]+\Z", r"[^x]*x", r"(?:ab|cd)+", rb"[0-9]{3}", r"\Aa+b"])
def test_it_knows_one_that_is(pattern: Any) -> None:
    compiled = re.compile(pattern if isinstance(pattern, bytes) or pattern.startswith("(?:ab") else rf"\A(?:{pattern})")
    assert is_linear(compiled)


def test_it_finds_regexes_wherever_they_stand() -> None:
    names = {name for name, *_ in _ours()}
    assert "subscriptions.validation._DID" in names
    assert "jetrelay.logs.masking._RULES" in names
    assert any(name.startswith("subscriptions/validation.py:") for name in names)
    assert any(name.startswith("the route ") for name in names)


def test_it_has_no_regex_of_its_own_that_is_not_linear() -> None:
    # Many routes are alike.
    distinct = {(pattern, anchored): name for name, anchored, pattern in _ours()}
    bad = {name: found for (pattern, anchored), name in distinct.items() if name not in BOUNDED and (found := worst(pattern, anchored=anchored))}
    assert not bad


@pytest.mark.parametrize("name", LIBRARIES)
def test_it_relies_on_no_librarys_regex_that_is_not_linear(name: str) -> None:
    for module in modules_of(name):
        bad = {where: found for where, pattern in patterns_in(module) if where not in UNUSED and (found := worst(pattern))}
        assert not bad


def test_it_puts_no_regex_together_from_a_strangers_text() -> None:
    """What is no literal is compiled of our own constants when its module is read, and found there."""
    made = []
    for package in (jetrelay, delivery, subscriptions):
        for file in Path(package.__path__[0]).rglob("*.py"):
            lines = file.read_text().splitlines()
            made += [f"{file.name}:{line}" for line, _, text in literals_in(file) if text is None and "re.compile(" not in lines[line - 1]]
    assert made == []
