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

_NAMES = (
    r"pass(?:word|wd|phrase|code)|secret|token|authori[sz]ation|api[_-]?key|cookie|signature|credential|sessionid|session[_-]key|csrf"
    r"|encryption[_-]?keys?|private[_-]?key|bearer"
)
_NAME = re.compile(rf"{_NAMES}|(?:\A|[_-])(?:key|keys|dsn|auth|pwd)\Z", re.IGNORECASE)
# A name with its value: password=…, "token": "…", b'api_key': b'…', Authorization: Bearer …
_NAMED = re.compile(
    rf"""((?:{_NAMES})[\w-]*\\*["']?\s*(?:=>|[=:])\s*)"""
    # What it is given: in quotes of any kind, in brackets, or a word.
    r"""(?:(?:bearer|basic|digest|token)\s+)?b?(?:\\*"(?:[^"\\]|\\.)*"?|\\*'(?:[^'\\]|\\.)*'?|\[[^\]]*\]?|\{[^}]*\}?|\([^)]*\)?|[^\s,;&})\]]+)""",
    re.IGNORECASE,
)
_FORMS_OF_SECRETS = (
    # Signing secrets, and keys to the API (`subscriptions/keys.py`).
    r"whsec_[\w+/=-]*",
    r"\bjr_[\w-]{8,}",
    # Signatures of every scheme; the base64 of 32 bytes, such as a Fernet key; what Fernet has encrypted.
    r"\bv1,[\w+/=-]{20,}",
    r"\b(?:v1|sha256)=[0-9a-fA-F]{32,}",
    r"(?<![\w+/-])[\w+/-]{43}=",
    r"gAAAA[\w-]{20,}={0,2}",
    # JSON Web Tokens.
    r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*",
)
_FORMS = re.compile("|".join(_FORMS_OF_SECRETS))
# What comes before these stays.
_AFTER = (
    r"(?P<scheme>\b(?:bearer|basic)\s+)[^\s\"',;]+",
    # The rest of a header's line.
    r"(?P<header>\b(?:proxy-)?(?:authorization|cookie|set-cookie)\\*[\"']?\s*[:=]\s*(?:b?\\*[\"'])?)[^\n\"'\\]+",
    # A user and a password in a URL.
    r"(?P<url>\b[a-z][a-z0-9+.-]*://)[^/\s\"'<>]*@",
    # An inbox's path is its secret, and so is a link to a first password.
    r"(?P<path>/(?:inbox|welcome)/)[^\s\"'<>?]+",
    r"(?P<word>\b(?:password|secret|token)\s+(?:is\s+)?)[\w+/=-]{12,}",
)
_KEPT_FRONT = re.compile("|".join(_AFTER), re.IGNORECASE)

_known: set[str] = set()
_values: re.Pattern[str] | None = None


def know(secrets: Iterable[str]) -> None:
    """Hide these values wherever they stand, also as they look in a URL, in JSON and in a `repr`."""
    global _values
    for secret in secrets:
        if len(secret) >= SHORTEST:
            _known.update({secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]})
    _values = re.compile("|".join(re.escape(each) for each in sorted(_known, key=len, reverse=True))) if _known else None


def secrets_in_url(url: str) -> list[str]:
    """The password in a URL, as it is written there and as it is meant."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return [url]
    return [password, unquote(password)]


def text(words: str) -> str:
    """The text without what looks like a secret in it."""
    if _values is not None:
        words = _values.sub(HIDDEN, words)
    words = _FORMS.sub(HIDDEN, words)
    words = _KEPT_FRONT.sub(_front_alone, words)
    return _NAMED.sub(rf"\1{HIDDEN}", words)


def _front_alone(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup or 0]}{HIDDEN}{'@' if match.lastgroup == 'url' else ''}"


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
    if depth < DEEPEST and isinstance(found, list | tuple | set | frozenset):
        return [value("", inner, depth + 1) for inner in list(found)[:MOST_ITEMS]]
    return text(shown(found)[: 5 * LONGEST])[:LONGEST]


def shown(found: object) -> str:
    """The object in words; one that cannot be put into words must not cost the line."""
    try:
        return str(found) if isinstance(found, BaseException) else repr(found)
    except Exception as error:  # noqa: BLE001 - anything may happen in a stranger's __repr__
        return f"<{type(found).__name__} that cannot be shown: {type(error).__name__}>"
