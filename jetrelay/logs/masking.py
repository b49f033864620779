"""What must never be read in a log, hidden in whatever is about to be written.

Three ways to know a secret: by the name it stands under, by its form, and by its value, where this process knows that. A
mask that hides too much costs a word of a log line; one that hides too little costs a secret.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "(hidden)"
# Values shorter than this would blank out words that have nothing to do with them.
SHORTEST = 8
# What is nested deeper or is longer than this is cut.
DEEPEST = 6
MOST_ITEMS = 50
LONGEST = 4_000

# What a secret's name has in it, in small letters.
_NAMES = (
    *("password", "passwd", "passphrase", "passcode", "secret", "token", "authorization", "authorisation", "api_key", "api-key", "apikey", "cookie"),
    *("signature", "credential", "sessionid", "session_key", "csrf", "encryption_key", "encryption-key", "private_key", "private-key", "bearer"),
    *("access_key", "access-key", "auth_key", "auth-key", "x-key"),
)
_ANY_NAME = "|".join(_NAMES)
# What nobody can keep secret, though a database may have it for a password: it stands in half of all messages.
_WORDS = frozenset({*_NAMES, "jetrelay", "postgres"})
_NAME = re.compile(rf"{_ANY_NAME}|(?:\A|[_-])(?:key|keys|dsn|auth|pwd)\Z", re.IGNORECASE)

_NAMED = (
    # A name, what separates them, and what it is given: in quotes of any kind, in brackets, or a word.
    rf"""((?:{_ANY_NAME})[\w-]{{0,40}}+\\*["']?\s*(?:=>|[=:]|(?<=["']),)\s*)"""
    r"""(?:(?:bearer|basic|digest|token)\s+)?b?"""
    r"""(?:\\*"(?:[^"\\]|\\.)*"?|\\*'(?:[^'\\]|\\.)*'?|\[[^\]]*\]?|\{[^}]*\}?|\([^)]*\)?|[^\s,;&})\]]+)"""
)

# Up to the line that ends it. Backslashes are taken together, once: looking at each of them for the end behind all would cost their square.
_FIELD = (
    rf"""(name=\\*"[^"]{{0,40}}?(?:{_ANY_NAME})[^"]{{0,40}}"(?:\s|\\++[rn])+)"""
    r"""(?:[^\\\r\n]|\\++(?![rn]--)|\r\n(?!--)|\r(?!\n)|\n(?!--))+"""
)

# What a text has to have in it, in small letters, so that it is worth looking for what follows; and what that becomes. Most lines
# have none of it, and cost a few microseconds. None looks at the same part of a text many times: strangers write much of what is
# logged, and could make it slow.
_RULES = tuple(
    (hints, re.compile(pattern, re.IGNORECASE), becomes)
    for hints, pattern, becomes in (
        # Signing secrets, and keys to the API (`subscriptions/keys.py`).
        (("whsec_",), r"whsec_[\w+/=-]*", HIDDEN),
        (("jr_",), r"jr_[\w-]{8,}", HIDDEN),
        # Signatures of every scheme; the base64 of 32 bytes, such as a Fernet key; what Fernet has encrypted.
        (("v1,",), r"v1,[\w+/=-]{20,}", HIDDEN),
        (("v1=", "sha256="), r"(?:v1|sha256)=[0-9a-f]{32,}", HIDDEN),
        (("=",), r"(?:(?<![\w+/-])|(?<=\\[abfnrtv]))[\w+/-]{43}=", HIDDEN),
        (("gaaaa",), r"gAAAA[\w-]{20,}={0,2}", HIDDEN),
        # JSON Web Tokens.
        (("eyj",), r"(?:(?<![\w-])|(?<=\\[abfnrtv]))eyJ[\w-]{8,}\.[\w-]+\.[\w-]*", HIDDEN),
        # The rest of a header's line.
        (("authorization", "cookie"), r"""((?:authorization|cookie)\\*["']?\s*[:=]\s*(?:b?\\*["'])?)[^\n"'\\]+""", rf"\1{HIDDEN}"),
        (("bearer", "basic"), r"""((?:bearer|basic)\s+)[^\s"',;]+""", rf"\1{HIDDEN}"),
        # A user and a password in a URL; a slash in a password should not be there, and may be.
        (("://",), r"""(://)(?:[^/\s"'<>]{0,300}|[^/\s"'<>@:]{0,60}:[^\s"'<>]{0,200})@""", rf"\1{HIDDEN}@"),
        # An inbox's path is its secret, and so is a link to a first password.
        (("/inbox/", "/welcome/"), r"""(/(?:inbox|welcome)/)[^\s"'<>?]+""", rf"\1{HIDDEN}"),
        (("hooks.slack.com/", "/api/webhooks/"), r"""(hooks\.slack\.com/|/api/webhooks/)[^\s"'<>?]+""", rf"\1{HIDDEN}"),
        # In the query of a URL; and what is called so anywhere.
        (("key=", "sig=", "auth=", "code=", "pwd="), r"""((?:[?&](?:key|sig|auth|code)|\bpwd)=)[^\s&"'<>]+""", rf"\1{HIDDEN}"),
        (("password", "secret", "token"), r"((?:password|secret|token)\s+(?:is\s+)?)[\w+/=-]{12,}", rf"\1{HIDDEN}"),
        # A field of a form, with its name in front.
        (('name="', 'name=\\"'), _FIELD, rf"\1{HIDDEN}"),
        # password=…, "token": "…", b'api_key': b'…'
        (_NAMES, _NAMED, rf"\1{HIDDEN}"),
    )
)

_known: set[str] = set()
# The longest first: one may be a part of another. Those that have a name in them wait until names have done their part, and others go
# before what would cut them.
_values: tuple[str, ...] = ()
_late_values: tuple[str, ...] = ()


def know(secrets: Iterable[str]) -> None:
    """Hide these values wherever they stand, also as they look in a URL, in JSON and in a `repr`."""
    global _values, _late_values
    for secret in secrets:
        if len(secret) >= SHORTEST and secret.lower() not in _WORDS:
            _known.update({secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]})
    longest_first = sorted(_known, key=len, reverse=True)
    _values = tuple(each for each in longest_first if not _NAME.search(each))
    _late_values = tuple(each for each in longest_first if _NAME.search(each))


def secrets_in_url(url: str) -> list[str]:
    """The password in a URL, as it is written there and as it is meant."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return [url]
    return [password, unquote(password)]


def text(words: str) -> str:
    """The text without what looks like a secret in it."""
    words = _without(_values, words)
    low = words.lower()
    for hints, pattern, becomes in _RULES:
        if any(hint in low for hint in hints):
            words = pattern.sub(becomes, words)
    return _without(_late_values, words)


def _without(values: Iterable[str], words: str) -> str:
    for each in values:
        if each in words:
            words = words.replace(each, HIDDEN)
    return words


def value(name: str, found: Any, depth: int = 0) -> Any:
    """What stands under this name, as plain values that JSON has, without secrets."""
    if found is None or isinstance(found, bool):
        return found
    if _NAME.search(name):
        return HIDDEN
    if isinstance(found, int | float):
        return found
    if isinstance(found, str):
        return text(found[: 5 * LONGEST])[:LONGEST]
    if depth < DEEPEST and isinstance(found, Mapping):
        return {text(str(key)[:200]): value(str(key), inner, depth + 1) for key, inner in list(found.items())[:MOST_ITEMS]}
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str) and _NAME.search(found[0]):
        # A header, as WSGI has it.
        return [text(found[0]), HIDDEN]
    if depth < DEEPEST and isinstance(found, list | tuple | set | frozenset):
        return [value("", inner, depth + 1) for inner in list(found)[:MOST_ITEMS]]
    return text(shown(found)[: 5 * LONGEST])[:LONGEST]


def shown(found: object) -> str:
    """The object in words; one that cannot be put into words must not cost the line."""
    try:
        return str(found) if isinstance(found, BaseException) else repr(found)
    except Exception as error:  # noqa: BLE001 - anything may happen in a stranger's __repr__
        return f"<{type(found).__name__} that cannot be shown: {type(error).__name__}>"
