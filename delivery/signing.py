"""Signatures: what an endpoint's scheme puts into a request's headers, and whether a request carries the right ones. Pure.

| scheme | header | signed content | key |
|---|---|---|---|
| standard | `webhook-signature: v1,<base64>` with `webhook-timestamp` | `id.timestamp.body` | the bytes in the secret |
| timestamped | `X-Webhook-Signature: v1=<hex>` with `X-Webhook-Timestamp` | `timestamp.body` | the secret's text |
| hookstream | `X-Hookstream-Signature: sha256=<hex>` | `body` | the secret's text |

The first is Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec 1.0), the last is documented at
docs.hookstream.io/guides/outbound-signing. The MAC is HMAC-SHA256 in all of them, and `webhook-id` goes with all of
them: receivers need it to drop repeats. The hex schemes take the whole secret as it is written, `whsec_` included,
because their receivers pass it to HMAC as they were given it.

While two secrets are live, `standard` sends both signatures separated by a space, as its specification says, and
`timestamped` sends both separated by a comma, as receivers of `v1=` lists know it. `hookstream` has room for one: it
stays the old secret's until the overlap ends, because a receiver that runs today must not fail at the moment its secret
is replaced; with no overlap it is the new one's at once.
"""

import base64
import binascii
import enum
import hmac
import math
from collections.abc import Mapping, Sequence

# How far a timestamp may be off, in seconds: what the reference libraries allow.
TOLERANCE_S = 300


class Scheme(enum.Enum):
    """How an endpoint's requests are signed. The values are those of `Endpoint.SignatureScheme`."""

    STANDARD = "standard"
    TIMESTAMPED = "timestamped"
    HOOKSTREAM = "hookstream"


class InvalidSignature(Exception):
    """The request was not signed by any of the secrets; the message says what is wrong with it."""


def key(secret: str) -> bytes:
    """The raw key in a `whsec_…` secret. Raises ValueError when it is not base64."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("the secret is not base64") from error


def sign(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header for raw keys (see `key`), one signature each. Timestamp in Unix seconds."""
    content = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    return " ".join(["v1," + binascii.b2a_base64(hmac.digest(key, content, "sha256"), newline=False).decode() for key in keys])


class Signer:
    """Signs the requests of one endpoint. The keys are read once, so that a request costs its MAC and little else.

    `secrets` are the current one and, during a rotation, the one before, which is live until `overlap_ends`, in Unix
    seconds. Raises ValueError when the scheme is `standard` and a secret is not base64.
    """

    def __init__(self, scheme: Scheme, secrets: Sequence[str], overlap_ends: float = math.inf) -> None:
        self._lines = _LINES[scheme]
        self._live = [key(secret) if scheme is Scheme.STANDARD else secret.encode() for secret in secrets]
        self._current = self._live[:1]
        self._overlap_ends = overlap_ends

    def headers(self, webhook_id: str, timestamp: int, body: bytes) -> list[str]:
        """The header lines of one request. Timestamp in Unix seconds, and the time at which the request is made."""
        keys = self._live if timestamp < self._overlap_ends else self._current
        return [f"webhook-id: {webhook_id}", *self._lines(keys, webhook_id, timestamp, body)]


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float, scheme: Scheme = Scheme.STANDARD) -> None:
    """Raise InvalidSignature unless one of the secrets signed this. Header names are case-insensitive, `now` is in Unix seconds.

    Under `hookstream`, which signs no time, an old request passes like a new one. Raises ValueError where `Signer` does.
    """
    id_header, timestamp_header, signature_header, separator = NAMES[scheme]
    lowered = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (id_header, timestamp_header, signature_header) if name and not lowered.get(name.lower())]
    if missing:
        raise InvalidSignature(f"missing header: {', '.join(missing)}")
    timestamp = _timestamp(timestamp_header, lowered[timestamp_header.lower()], now) if timestamp_header else 0
    expected = [Signer(scheme, [secret]).headers(lowered[id_header], timestamp, body)[-1].partition(": ")[2] for secret in secrets]
    given = lowered[signature_header.lower()].split(separator)
    if not any(hmac.compare_digest(good.encode(), candidate.strip().encode()) for good in expected for candidate in given):
        raise InvalidSignature("the signature matches none of the secrets: another secret, or the body was changed on the way")


def _timestamp(name: str, value: str, now: float) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise InvalidSignature(f"{name} is not a number of seconds")
    if abs(now - int(value)) > TOLERANCE_S:
        raise InvalidSignature(f"{name} is more than {TOLERANCE_S} s away from now: an old request, or a wrong clock")
    return int(value)


def _standard(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> tuple[str, ...]:
    return f"webhook-timestamp: {timestamp}", f"webhook-signature: {sign(keys, webhook_id, timestamp, body)}"


def _timestamped(keys: Sequence[bytes], _: str, timestamp: int, body: bytes) -> tuple[str, ...]:
    content = b"%d.%b" % (timestamp, body)
    signatures = ",".join("v1=" + hmac.digest(key, content, "sha256").hex() for key in keys)
    return f"X-Webhook-Timestamp: {timestamp}", f"X-Webhook-Signature: {signatures}"


def _hookstream(keys: Sequence[bytes], _id: str, _timestamp: int, body: bytes) -> tuple[str, ...]:
    # The last of the keys is the oldest that is live.
    return (f"X-Hookstream-Signature: sha256={hmac.digest(keys[-1], body, 'sha256').hex()}",)


# Each ends with the signature's line.
_LINES = {Scheme.STANDARD: _standard, Scheme.TIMESTAMPED: _timestamped, Scheme.HOOKSTREAM: _hookstream}
# Headers of id, time and signature, and what separates several signatures.
NAMES = {
    Scheme.STANDARD: ("webhook-id", "webhook-timestamp", "webhook-signature", " "),
    Scheme.TIMESTAMPED: ("webhook-id", "X-Webhook-Timestamp", "X-Webhook-Signature", ","),
    Scheme.HOOKSTREAM: ("webhook-id", "", "X-Hookstream-Signature", ","),
}
