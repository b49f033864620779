"""The envelope: what goes around a body on its way to one endpoint, whoever sends it.

Deliveries, test events and challenges all go in one, so that what a test shows is what a delivery does.
"""

from collections.abc import Sequence

from django.conf import settings
from django.utils import timezone

from delivery import signing
from delivery.destinations.exchange import Result
from subscriptions.models import Endpoint

# Nothing shorter is a key, and `***` for every `1` helps nobody.
_SHORTEST_KEY = 8


class Envelope:
    """Makes the headers of an endpoint's requests, and takes its keys out of the answers.

    Everything is read once, from the settings and secrets of this moment. Raises ValueError for a secret or a scheme
    that cannot sign.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        overlap_ends = endpoint.previous_secret_expires_at.timestamp() if endpoint.previous_secret_expires_at else 0.0
        self._signer = signing.Signer(signing.Scheme(endpoint.signature_scheme), endpoint.secrets_at(timezone.now()), overlap_ends)
        # An empty Expect keeps libcurl from asking for leave before it sends a large body.
        self._lines = ["Content-Type: application/json", f"User-Agent: Jetrelay/{settings.VERSION}", "Expect:"]
        if endpoint.bearer_token:
            self._lines.append(f"Authorization: Bearer {endpoint.bearer_token}")
        self._lines += endpoint.extra_headers.splitlines()
        self._confidential = _confidential(endpoint)

    def headers(self, webhook_id: str, timestamp: int, body: bytes) -> list[str]:
        """The header lines of one request. Timestamp in Unix seconds, and the time at which the request is made."""
        return [*self._lines, *self._signer.headers(webhook_id, timestamp, body)]

    def redacted(self, result: Result) -> Result:
        """The result as it may be kept: a receiver that echoes the request must not put our tokens and keys on a page."""
        if not self._confidential:
            return result
        headers, body = result.response_headers, result.response_body
        for word in self._confidential:
            headers, body = headers.replace(word, "***"), body.replace(word.encode(), b"***")
        return result._replace(response_headers=headers, response_body=body)


def _confidential(endpoint: Endpoint) -> Sequence[str]:
    """What may be a key in the headers we add, the longest first, so that none hides a part of another."""
    values = (line.partition(":")[2] for line in endpoint.extra_headers.splitlines())
    words = {word for value in values for word in value.split() if len(word) >= _SHORTEST_KEY}
    return sorted(words | ({endpoint.bearer_token} - {""}), key=len, reverse=True)
