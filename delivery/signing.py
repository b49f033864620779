"""Signatures, as Standard Webhooks defines them (github.com/standard-webhooks/standard-webhooks, spec 1.0). Pure.

The signed content is `id.timestamp.body`, the MAC is HMAC-SHA256, the header is `v1,` and its base64; while two
secrets are live the header holds one signature for each, separated by a space.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence

# How far a timestamp may be off, in seconds: what the reference libraries allow.
TOLERANCE_S = 300


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
    return " ".join("v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise InvalidSignature unless one of the secrets signed this. Header names are case-insensitive."""
    lowered = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not lowered.get(name)]
    if missing:
        raise InvalidSignature(f"missing header: {', '.join(missing)}")
    timestamp = lowered["webhook-timestamp"]
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        raise InvalidSignature("webhook-timestamp is not a number of seconds")
    if abs(now - int(timestamp)) > TOLERANCE_S:
        raise InvalidSignature(f"webhook-timestamp is more than {TOLERANCE_S} s away from now: an old request, or a wrong clock")
    expected = sign([key(secret) for secret in secrets], lowered["webhook-id"], int(timestamp), body).split(" ")
    given = lowered["webhook-signature"].split(" ")
    if not any(hmac.compare_digest(good.encode(), candidate.encode()) for good in expected for candidate in given):
        raise InvalidSignature("the signature matches none of the secrets: another secret, or the body was changed on the way")
