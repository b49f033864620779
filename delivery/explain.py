"""What came of an attempt, and what to do about it. Pure."""

from http import HTTPStatus
from typing import NamedTuple


class Explanation(NamedTuple):
    words: str
    advice: str = ""


_SERVER = "The receiver failed: its own log knows why."
_STATUS = {
    400: "The receiver did not accept the body or the headers: compare them with what it expects.",
    401: "Check that the receiver has this endpoint's signing secret and bearer token, and that its clock is right.",
    403: "Check the receiver's permissions, its firewall, and this endpoint's bearer token.",
    404: "Nothing answers at this path: check the endpoint's URL.",
    405: "The receiver does not take POST here: check the endpoint's URL.",
    408: "The receiver gave up waiting: it may be overloaded.",
    410: "The receiver says that this address is gone for good: change the endpoint's URL, or remove the endpoint.",
    413: "The receiver takes no bodies of this size: raise its limit.",
    415: "The receiver does not take application/json: check what it expects.",
    429: "The receiver asks for fewer requests: lower the endpoint's requests in flight.",
}
# By the values of delivery.destinations.exchange.Error.
_ERRORS = {
    "dns": Explanation("host name not found", "Check the host in the endpoint's URL, and this machine's DNS."),
    "refused_address": Explanation("address not allowed", "The host leads to an address that is not public. JETRELAY_ALLOWED_NETWORKS can open its network."),
    "connect": Explanation("could not connect", "Check that the receiver is running, and its port and firewall."),
    "tls": Explanation(
        "TLS failed", "Check the receiver's certificate: its name, its dates and its chain. A receiver that speaks plain HTTP wants http:// in the URL."
    ),
    "timeout": Explanation("timed out", "Let the receiver answer first and work later, or raise the endpoint's timeout."),
    "reset": Explanation("connection broken", "The receiver, or something in between, broke the connection: see its log."),
    "empty_response": Explanation("no answer", "The receiver closed the connection without a word: see its log."),
    "bad_response": Explanation("not a proper HTTP answer", "What answers at this address does not speak HTTP properly: check the URL and the port."),
    "bad_url": Explanation("URL not usable", "Correct the endpoint's URL."),
    # Of an attempt that was none: see delivery.outcomes.
    "missing_event": Explanation("event gone", "Its event was pruned before it could be sent. There is nothing left to send, so this cannot be replayed."),
    "other": Explanation("could not be sent", "The detail says what libcurl ran into."),
}


def explain(status: int | None, error: str = "") -> Explanation:
    """The outcome in words, with advice when it was not a success."""
    if error:
        return _ERRORS.get(error) or Explanation(error.replace("_", " "))
    if status is None:
        return Explanation("no answer")
    words = f"{status} {_phrase(status)}".strip()
    return Explanation(words, "" if 200 <= status < 300 else _advice(status))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _advice(status: int) -> str:
    if 300 <= status < 400:
        return "Redirects are never followed: give the endpoint the address that it leads to."
    return _STATUS.get(status) or (_SERVER if status >= 500 else "The receiver did not accept this: its own log knows why.")
