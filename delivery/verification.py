"""Trying an endpoint: a challenge that it has to answer, and a test event. Both go as deliveries do, and are not stored.

The challenge is a signed `{"type": "endpoint.verification", "challenge": "<random>"}`. A receiver that means to take our
requests answers 2xx with the challenge, as the whole body or as `{"challenge": "<random>"}`.

A URL that is to change is tried before the change is made (`challenge`, with the new URL on an instance that is not
saved): an endpoint that receives never falls back to unverified, where it would be owed nothing.
"""

import json
import secrets
import threading
from http import HTTPStatus
from ipaddress import ip_address
from time import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from delivery import endpoints
from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Error, Inbox, Request, Result, Timings
from delivery.destinations.http import sender
from delivery.envelope import Envelope
from delivery.explain import explain
from delivery.shares import Shares
from subscriptions.ids import new_id, to_public
from subscriptions.models import Endpoint

# Whoever asks waits for the answer: the endpoint's own timeout counts up to this, in seconds.
MAX_WAIT_S = 10.0
# The sender keeps its own time; it is waited for a little longer.
_GRACE_S = 5.0
# Characters of an answer that are shown.
SHOWN = 200
# Tests at once in one process: each keeps one of the web server's few threads waiting. One tenant may have two of them, and
# there is one for the next, because nobody takes one more who has as many as are free.
AT_ONCE = 4
# When to try again where there is none, in seconds: a receiver that answers at all does so in less.
RETRY_AFTER_S = 5
_under_way = Shares(AT_ONCE)
_lock = threading.Lock()

_EXPECTED = 'Expected a 2xx answer with the challenge as its body, or as {"challenge": "…"} in JSON.'


class Outcome(NamedTuple):
    """What came of a try. `words` say it in whole sentences; `answer` is the beginning of the body, without our keys."""

    passed: bool
    words: str
    status: int | None = None
    error: str = ""
    timings: Timings | None = None
    answer: str = ""
    # Nothing was sent, because others wait for their answers: it may be tried again in `RETRY_AFTER_S`.
    busy: bool = False


def needs_verification() -> bool:
    """Whether endpoints that are not the operator's own have to answer a challenge before they receive."""
    return bool(settings.JETRELAY_VERIFY_ENDPOINTS)


def first_state() -> Endpoint.State:
    """Of an endpoint that a member or a program makes."""
    return Endpoint.State.UNVERIFIED if needs_verification() else Endpoint.State.ACTIVE


class NotMovable(Exception):
    """The endpoint's URL has to stay; the message says why and what to do."""


class OperatorsUrl(NotMovable):
    """It is the environment's."""


class NotAnswered(NotMovable):
    """Nobody at the new URL answered the challenge."""


class NotAsked(NotMovable):
    """Too many challenges wait for their answers: it may be tried again in `RETRY_AFTER_S`."""


def check_move(before: Endpoint, after: Endpoint) -> None:
    """Raise NotMovable unless the endpoint may take the URL of `after`, which is the endpoint as it is wished for, not saved.

    One that receives must not be sent to a stranger's address by mistake, nor fall back to unverified.
    """
    if after.url == before.url:
        return
    if before.origin != Endpoint.Origin.PERSON:
        raise OperatorsUrl("This URL comes from the operator's environment: change WEBHOOK_URL, or make another endpoint.")
    if before.state == Endpoint.State.UNVERIFIED or not needs_verification():
        return
    outcome = challenge(after)
    if outcome.busy:
        raise NotAsked(f"The old URL stays. {outcome.words}")
    if not outcome.passed:
        raise NotAnswered(f"The new URL did not answer the challenge, so the old one stays. {outcome.words}")


def refused_address(endpoint: Endpoint) -> str:
    """Why the address in the endpoint's URL may not be connected to. Of a name that shows only when it is looked up."""
    host = urlsplit(endpoint.url).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return ""
    return Door(everything=endpoint.url_is_operators, allowed=tuple(settings.JETRELAY_ALLOWED_NETWORKS)).refusal(host) or ""


def verify(endpoint: Endpoint) -> Outcome:
    """Challenge the endpoint, and activate it if it was unverified and passes. One that fails stays as it is."""
    outcome = challenge(endpoint)
    if not outcome.passed or endpoint.state != Endpoint.State.UNVERIFIED:
        return outcome
    if not endpoints.activate_verified(endpoint):
        return outcome._replace(passed=False, words="The challenge was answered, but the endpoint was changed meanwhile: try again.")
    return outcome._replace(words=f"{outcome.words} The endpoint is active now.")


def challenge(endpoint: Endpoint) -> Outcome:
    """Whether the endpoint, saved or not, answers a challenge at its URL. Changes nothing."""
    word = secrets.token_urlsafe(32)
    sent = _send(endpoint, "challenge", {"type": "endpoint.verification", "challenge": word})
    if isinstance(sent, Outcome):
        return sent
    if _succeeded(sent) and _echoes(sent.response_body, word):
        return _outcome(sent, True, "The challenge was answered.")
    return _outcome(sent, False, f"{_EXPECTED} {_came(sent)}")


def send_test(endpoint: Endpoint) -> Outcome:
    """Send a signed test event, whatever the endpoint's state. It is no delivery: nothing is stored, counted or retried."""
    data = {"endpoint": endpoint.public_id, "message": "A test event from Jetrelay. Nothing has happened."}
    sent = _send(endpoint, "test", {"type": "jetrelay.test", "timestamp": timezone.now().isoformat(), "data": data})
    return sent if isinstance(sent, Outcome) else _outcome(sent, _succeeded(sent), f"{_came(sent)} {_phases(sent.timings)}".strip())


def _send(endpoint: Endpoint, prefix: str, payload: dict[str, Any]) -> Result | Outcome:
    """The result without our keys in it, or why nothing was sent."""
    if endpoint.state == Endpoint.State.DELETED:
        return Outcome(False, "Nothing was sent: the endpoint is deleted.")
    try:
        envelope = Envelope(endpoint)
    except ValueError as error:
        return Outcome(False, f"Nothing was sent: {error}.")
    if not _take(endpoint.tenant_id):
        return Outcome(False, "Nothing was sent: other tests are waiting for their answers. Try again in some seconds.", busy=True)
    try:
        return _exchange(endpoint, envelope, prefix, payload)
    finally:
        _give_back(endpoint.tenant_id)


def _take(tenant: UUID) -> bool:
    with _lock:
        if not _under_way.may_take(tenant):
            return False
        _under_way.take(tenant)
        return True


def _give_back(tenant: UUID) -> None:
    with _lock:
        _under_way.give_back(tenant)


def _exchange(endpoint: Endpoint, envelope: Envelope, prefix: str, payload: dict[str, Any]) -> Result:
    timeout_s = min(endpoint.timeout_s, MAX_WAIT_S)
    body, inbox = json.dumps(payload).encode(), Inbox()
    headers = envelope.headers(to_public(prefix, new_id()), int(time()), body)
    sender(operators=endpoint.url_is_operators).submit([Request(None, endpoint.url, headers, body, max(1, int(timeout_s * 1000)), inbox)])
    results = inbox.take(timeout_s + _GRACE_S)
    return envelope.redacted(results[0]) if results else _no_result()


def _no_result() -> Result:
    return Result(None, time(), None, Error.OTHER, "the sender gave no result", Timings(0, 0, 0, 0, 0), "", b"", 0)


def _outcome(result: Result, passed: bool, words: str) -> Outcome:
    return Outcome(passed, words, result.status, result.error.value if result.error else "", result.timings, _beginning(result.response_body))


def _succeeded(result: Result) -> bool:
    return result.status is not None and HTTPStatus.OK <= result.status < HTTPStatus.MULTIPLE_CHOICES


def _echoes(body: bytes, word: str) -> bool:
    text = body.decode(errors="replace").strip()
    if text == word:
        return True
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and answer.get("challenge") == word


def _came(result: Result) -> str:
    """What came, and what to do about it."""
    words, advice = explain(result.status, result.error.value if result.error else "")
    if result.error:
        detail = f" ({result.error_detail})" if result.error_detail else ""
        return f"No answer came: {words}{detail}. {advice}".strip()
    answer = _beginning(result.response_body)
    return f"The answer was {words}{f', “{answer}”' if answer else ' with an empty body'}. {advice}".strip()


def _phases(timings: Timings) -> str:
    """`DNS after 2 ms, connected after 12 ms, …`; a phase that was not needed stays out."""
    names = zip(("DNS", "connected", "TLS", "first byte", "done"), timings, strict=True)
    found = ", ".join(f"{name} after {ms:,.0f} ms" for name, ms in names if ms)
    return f"{found[0].upper()}{found[1:]}." if found else ""


def _beginning(body: bytes) -> str:
    """The first characters of an answer, on one line. Anyone may have written it."""
    text = "".join(char if char.isprintable() else " " for char in body.decode(errors="replace"))
    text = " ".join(text.split())
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text
