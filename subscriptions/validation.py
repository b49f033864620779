"""What a URL, a pattern, a DID or a secret must look like. Pure: no model, no database, no settings.

Each `clean_…` returns the value in its one canonical form or raises ValidationError with a message that
says what to change. Strangers write these values: each looks at lengths and counts first, and what it does then
takes a time that grows with the length and no faster.
"""

import base64
import ipaddress
import re
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import idna
from django.core.exceptions import ValidationError

# Bounds from the atproto specifications: NSIDs are at most 317 characters, DIDs at most 2,048.
MAX_NSID = 317
MAX_DID = 2048
# The limits of one Jetstream connection; past them a listener asks for everything and filters here.
MAX_WANTED_COLLECTIONS = 100
MAX_WANTED_DIDS = 10_000
MAX_URL = 2048
MAX_STREAM_URL = 255
# The most retries of one delivery, and the longest wait before one: 30 days, in seconds.
MAX_RETRIES = 50
MAX_WAIT_S = 30 * 86_400
MAX_RETRY_FACTOR = 100
# Requests per second; the slowest is one in ten minutes.
MIN_RATE, MAX_RATE = 1 / 600, 100_000
# Events in one request. Their ids go along in a header, which has to fit into what servers take.
MAX_BATCH_SIZE = 100
# The two wires of a Jetstream, told apart by the path of its URL (jetstream.md).
V1_PATH = "/subscribe"
V2_PATH = "/xrpc/network.bsky.jetstream.subscribeEvents"

KINDS = ("commit", "identity", "account", "sync", "api")
STREAM_KINDS = ("commit", "identity", "account", "sync")
OPERATIONS = ("create", "update", "delete")

_SEGMENT = r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,62})"
_NAME = re.compile(rf"{_SEGMENT}(\.{_SEGMENT})*\Z")
_PREFIX = re.compile(rf"({_SEGMENT}\.)+\*\Z")
# What a Jetstream takes as a wanted collection; types of other sources are freer.
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_NSID = re.compile(rf"(?=[a-zA-Z]){_LABEL}(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}\Z")
_NSID_PREFIX = re.compile(rf"(?=[a-zA-Z]){_LABEL}(?:\.{_LABEL})*\.\*\Z")
_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]\Z")
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
# A header's name and value as RFC 9110, 5.1 and 5.5, has them, without bytes beyond ASCII and without tabs.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}\Z")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
# Underscores are not in the standard (RFC 952) and yet in many names of containers.
_HOST_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
# A last label like this makes an IPv4 address of the host (WHATWG URL, 3.5).
_NUMBER = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z")
MAX_HEADERS = 20
# Servers take 8 KiB of request headers as a rule (Apache, nginx, Node.js 16): this leaves room for ours and the URL.
MAX_HEADERS_SIZE = 4096
# As people write them, with empty lines and spaces that are dropped.
MAX_HEADERS_TEXT = 4 * MAX_HEADERS_SIZE
# `whsec_` and the base64 of 64 bytes have 94.
MAX_SECRET = 200
MAX_BEARER_TOKEN = 4096
# What the sender, the connection or a proxy on the way writes (RFC 9110, 7.6.1), and what has a setting of its own.
_RESERVED_HEADERS = frozenset({
    "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "te", "trailer", "connection", "keep-alive", "upgrade",
    "http2-settings", "expect", "user-agent", "authorization", "proxy-authorization", "proxy-authenticate", "proxy-connection",
    "x-webhook-timestamp", "x-webhook-signature", "x-hookstream-signature",
})  # fmt: skip
TOO_MANY_HEADERS = f"At most {MAX_HEADERS} headers of {MAX_HEADERS_SIZE:,} characters in all can be sent along."
# Of Standard Webhooks and of Svix, whose libraries prefer the latter to the former.
_RESERVED_PREFIXES = ("webhook-", "svix-")


def clean_pattern(value: str) -> str:
    """A collection or event type: `app.bsky.feed.post`, `app.bsky.feed.*`, or `*` for everything."""
    value = value.strip()
    if len(value) <= MAX_NSID and (value == "*" or _NAME.match(value) or _PREFIX.match(value)):
        return value
    raise ValidationError(
        f"{value[:80]!r} is not a collection: write a full name (app.bsky.feed.post), a prefix that ends in .* (app.bsky.feed.*), or * for everything."
    )


def is_collection(pattern: str) -> bool:
    """Whether a Jetstream can be asked for it: an NSID, or a prefix of NSIDs (atproto's syntax)."""
    return bool(_NSID.match(pattern) or _NSID_PREFIX.match(pattern))


def clean_did(value: str) -> str:
    value = value.strip()
    if len(value) <= MAX_DID and _DID.match(value):
        return value
    raise ValidationError(f"{value[:80]!r} is not a DID: write it as did:plc:… or did:web:…")


def clean_kind(value: str) -> str:
    value = value.strip().lower()
    if value in KINDS:
        return value
    raise ValidationError(f"{value[:80]!r} is not a kind of event: use {', '.join(KINDS)}.")


def clean_stream_kind(value: str) -> str:
    """A kind of event that a Jetstream sends; `sync` comes on the v2 wire alone."""
    value = value.strip().lower()
    if value in STREAM_KINDS:
        return value
    raise ValidationError(f"{value[:80]!r} is not a kind of event: use {', '.join(STREAM_KINDS)}.")


def clean_operation(value: str) -> str:
    value = value.strip().lower()
    if value in OPERATIONS:
        return value
    raise ValidationError(f"{value[:80]!r} is not an operation: use {', '.join(OPERATIONS)}.")


def clean_webhook_url(value: str) -> str:
    """An http or https URL to POST to, its host in ASCII (IDNA), without credentials or fragment."""
    parts = _split(value, ("http", "https"), "https://example.com/hook")
    if parts.username is not None or parts.password is not None:
        raise ValidationError("The URL holds a user name or password: use a bearer token or a header instead.")
    return _bounded(urlunsplit((parts.scheme, _ascii_netloc(parts), _ascii(parts.path) or "/", _ascii(parts.query), "")), MAX_URL)


def clean_stream_url(value: str) -> str:
    """A Jetstream's WebSocket URL; its path says which wire it speaks, and without one it is v1."""
    parts = _split(value, ("ws", "wss"), "wss://jetstream.us-east.bsky.network/subscribe")
    if parts.username is not None or parts.password is not None:
        raise ValidationError("The URL holds a user name or password: Jetstreams take none.")
    path = parts.path.rstrip("/") or V1_PATH
    if not path.endswith((V1_PATH, V2_PATH)):
        raise ValidationError(f"{_shown(value)} has the path {_shown(path)}: use {V1_PATH} for the v1 wire or {V2_PATH} for v2.")
    if parts.query:
        raise ValidationError(f"{_shown(value)} has a query: leave it out, Jetrelay asks for what the subscriptions want.")
    return _bounded(urlunsplit((parts.scheme, _ascii_netloc(parts), _ascii(path), "", "")), MAX_STREAM_URL)


def clean_secret(value: str) -> str:
    """A Standard Webhooks secret: `whsec_` and the base64 of 24 to 64 bytes."""
    value = value.strip()
    try:
        # What is too long is not decoded.
        value = value if len(value) <= MAX_SECRET else ""
        size = len(base64.b64decode(value.removeprefix("whsec_"), validate=True)) if value.startswith("whsec_") else 0
    except ValueError:
        size = 0
    if 24 <= size <= 64:
        return value
    # The value itself stays out of the message: messages end up in logs.
    raise ValidationError(
        "A signing secret is whsec_ followed by the base64 of 24 to 64 random bytes."
        " Make one with: python3 -c \"import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
    )


def validate_secret(value: str) -> None:
    """`clean_secret` as a field's validator."""
    clean_secret(value)


def clean_bearer_token(value: str) -> str:
    value = value.strip()
    if len(value) <= MAX_BEARER_TOKEN and _TOKEN.match(value):
        return value
    raise ValidationError("A bearer token is at most 4,096 printable ASCII characters without spaces.")


def clean_retry_schedule(waits: Any) -> list[float]:
    """An explicit list of waits in seconds, one for each retry."""
    if isinstance(waits, list) and len(waits) <= MAX_RETRIES and all(type(wait) in (int, float) and 0 <= wait <= MAX_WAIT_S for wait in waits):
        return waits
    raise ValidationError(f"Write a JSON list of at most {MAX_RETRIES} numbers of seconds, each up to 30 days, such as [30, 300, 1800].")


# Written so that NaN, which is neither more nor less than anything, is refused too.


def validate_wait(value: float) -> None:
    if not 0 <= value <= MAX_WAIT_S:
        raise ValidationError(f"A wait is 0 to {MAX_WAIT_S:,} seconds (30 days).")


def validate_retry_factor(value: float) -> None:
    if not 1 <= value <= MAX_RETRY_FACTOR:
        raise ValidationError(f"The factor is 1 to {MAX_RETRY_FACTOR}: waits do not become shorter.")


def validate_retry_count(value: int) -> None:
    if not 0 <= value <= MAX_RETRIES:
        raise ValidationError(f"There are 0 to {MAX_RETRIES} retries.")


def validate_rate(value: float) -> None:
    if not MIN_RATE <= value <= MAX_RATE:
        raise ValidationError(f"A rate limit is {MIN_RATE:.4f} (one request in ten minutes) to {MAX_RATE:,} requests a second.")


def clean_headers(value: str) -> str:
    """Headers to send along, one `Name: value` in a line; empty lines are dropped. The message never holds a value."""
    headers = [_clean_header(number, line) for number, line in header_lines(value)]
    seen: set[str] = set()
    for name, _ in headers:
        if name.lower() in seen:
            raise ValidationError(f"The header {name.lower()!r} is there twice: write each once.")
        seen.add(name.lower())
    cleaned = "\n".join(f"{name}: {text}" for name, text in headers)
    if len(cleaned) > MAX_HEADERS_SIZE:
        raise ValidationError(TOO_MANY_HEADERS)
    return cleaned


def header_lines(value: str) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers. Raises ValidationError where there are too many to look at."""
    if len(value) <= MAX_HEADERS_TEXT:
        lines = re.split(r"\r\n|\r|\n", value)
        found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if len(found) <= MAX_HEADERS:
            return found
    raise ValidationError(TOO_MANY_HEADERS)


def _clean_header(number: int, line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name, value = name.strip(" \t"), value.strip(" \t")
    # A line without a colon may be the value alone: it stays out of the message, and so does what is no name.
    if not colon or not _HEADER_NAME.match(name):
        raise ValidationError(f"Line {number} is not a header: write Name: value, the name of at most 100 letters, digits and hyphens.")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIXES):
        hint = " Use the bearer token instead." if name.lower() == "authorization" else ""
        raise ValidationError(f"The header {name!r} is set by Jetrelay or belongs to the connection: it cannot be sent along.{hint}")
    if not _HEADER_VALUE.match(value):
        raise ValidationError(f"The value of the header {name!r} is empty or holds something other than printable ASCII characters.")
    return name, value


def _split(value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    value = value.strip()
    # Before anybody reads it: Unicode's normal form, which `urlsplit` makes of hosts, takes a time that grows with the square.
    _bounded(value, MAX_URL)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        detail = "" if "@" in value else f" ({error})"
        raise ValidationError(f"{_shown(value)} is not a URL{detail}: write it like {example}") from error
    if re.search(r"[\x00-\x20\x7f]", value):
        raise ValidationError(f"{_shown(value)} is not a URL: it has a space or a control character in it. Write %20 for a space, and it like {example}")
    if parts.scheme not in schemes or not parts.hostname or port == 0 or re.search(r"[\x00-\x20\x7f\\]", value):
        raise ValidationError(f"{_shown(value)} is not a URL of the kind wanted here ({' or '.join(schemes)}): write it like {example}")
    return parts


def _shown(value: str) -> str:
    """For messages, which end up in logs: without what may be a password."""
    before, at, behind = value.rpartition("@")
    return repr(f"{'//' if before.startswith('//') else ''}…@{behind}"[:200] if at else value[:200])


def _bounded(url: str, most: int) -> str:
    """Measured as it was given, and in its final form, which is the one that is kept."""
    if len(url) > most:
        raise ValidationError(f"The URL has {len(url):,} characters: at most {most:,} are allowed.")
    return url


def _ascii_netloc(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if parts.netloc.startswith("["):
        host = _clean_ipv6(host, parts.netloc)
    else:
        host = _clean_host(host)
    return f"{host}:{parts.port}" if parts.port else host


def _clean_ipv6(host: str, netloc: str) -> str:
    """What stands in brackets is an IPv6 address and nothing else, and only a port follows."""
    try:
        ipaddress.IPv6Address(host.replace("%25", "%", 1))
    except ValueError as error:
        raise ValidationError(f"The host [{host[:100]}] is not an IPv6 address: write it like [2001:db8::1].") from error
    if not re.fullmatch(r"\[[^\]]*\](:[0-9]*)?", netloc):
        raise ValidationError(f"After the host [{host}] comes something other than a port: remove it.")
    return f"[{host}]"


def _clean_host(host: str) -> str:
    """A name, or an IPv4 address as four decimal numbers; other spellings of one are not for people."""
    shown = repr(host[:100])
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValidationError(f"The host {shown} is not a valid name: {error}") from error
    labels = host.removesuffix(".").split(".")
    if not all(_HOST_LABEL.match(label) for label in labels) or len(host) > 254:
        raise ValidationError(f"The host {shown} is not a valid name: use letters, digits, hyphens and single dots, each part of 1 to 63 characters.")
    if _NUMBER.match(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise ValidationError(f"The host {shown} is a number and not an IPv4 address: write it like 192.0.2.1.") from error
    return host


def _ascii(text: str) -> str:
    """Percent-encode what is not ASCII, and leave what was encoded already alone."""
    return "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in text)
