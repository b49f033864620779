"""The request of an attempt, made again. Requests are not stored: what they were made from is.

| certain | as the endpoint is now |
|---|---|
| the body, the ids and which events went along, and the second at which it began | the URL, the headers, how it is signed and with which secrets |

Tokens and the values of extra headers are shown to nobody. A signature is shown to those who may replay: with it a request can be made again,
under the scheme that signs no time at any time later, which is more than looking.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Prefetch

from delivery.engines.base import Due
from delivery.envelope import Envelope
from delivery.models import Attempt, Delivery, Event
from delivery.outcomes import MISSING_EVENT
from delivery.parcels import Job, Parcel
from jetrelay.dashboard.deliveries.finding import event_of
from subscriptions.models import Endpoint
from subscriptions.validation import MAX_BATCH_SIZE

# What went wrong before a word of the request could leave.
NEVER_LEFT = frozenset({"dns", "refused_address", "connect", "tls", "bad_url"})
_SIGNATURES = frozenset({"webhook-signature", "x-webhook-signature", "x-hookstream-signature"})


@dataclass(frozen=True)
class Header:
    """One line. Of a masked one `value` is what may be seen of it, and `variable` stands for the rest in a command."""

    name: str
    value: str
    variable: str = ""

    @property
    def shown(self) -> str:
        return f"{self.value}***" if self.variable else self.value


@dataclass(frozen=True)
class Sent:
    """`body` is None where an event of it is gone, `headers` are empty where the endpoint cannot make them any more: `problem` says why."""

    url: str
    headers: Sequence[Header] = ()
    body: bytes | None = None
    problem: str = ""
    # Deliveries that went along, in their order, the one in question among them. With their events, unless these are gone.
    together: Sequence[Delivery] = field(default_factory=list)

    @property
    def line(self) -> str:
        parts = urlsplit(self.url)
        return f"POST {parts.path or '/'}{'?' if parts.query else ''}{parts.query} HTTP/1.1"

    @property
    def text(self) -> str:
        return (self.body or b"").decode(errors="replace")

    @property
    def is_text(self) -> bool:
        try:
            return self.body is not None and self.body.decode() is not None
        except UnicodeDecodeError:
            return False


def timestamp_of(attempt: Attempt) -> int:
    """The second that its headers name. A request begins once its host's address is known."""
    return int(attempt.started_at.timestamp() + attempt.dns_ms / 1000)


def sent(attempt: Attempt, delivery: Delivery, *, signed: bool) -> Sent | None:
    """What went out, or was to go out; None where there was no request, because its event was gone. `signed`: with its signature.

    Three queries, of a batch four.
    """
    if attempt.error == MISSING_EVENT:
        return None
    together = _together(attempt, delivery)
    jobs = [_job(each, event) for each in together if (event := event_of(each))]
    parcel = Parcel(tuple(jobs), attempt.batch is not None)
    url = Endpoint.objects.values_list("url", flat=True).get(pk=delivery.endpoint_id)
    if len(jobs) < len(together) or not jobs or parcel.batch != attempt.batch:
        which = "Its event has" if attempt.batch is None else "An event that went along, or its delivery, has"
        return Sent(url, problem=f"{which} been pruned: the request cannot be made again.", together=together)
    body = parcel.body
    try:
        headers = _headers(Endpoint.objects.get(pk=delivery.endpoint_id), parcel, timestamp_of(attempt), body, signed=signed)
    except (ImproperlyConfigured, ValueError) as error:
        return Sent(url, (), body, f"The headers cannot be made again: {error}", together)
    if not headers:
        return Sent(url, (), body, "The endpoint is deleted, and its secrets and headers with it: what went around the body cannot be told.", together)
    return Sent(url, headers, body, "", together)


def _together(attempt: Attempt, delivery: Delivery) -> list[Delivery]:
    if attempt.batch is None:
        ids = [delivery.pk]
    else:
        # The same events may go to another endpoint, or once more to this one: only what began at that very moment was this request.
        went = Attempt.objects.filter(batch=attempt.batch, started_at=attempt.started_at, delivery__endpoint=delivery.endpoint_id)
        # Attempts are made in the order of their parcel, and so are their ids.
        ids = list(went.order_by("id").values_list("delivery_id", flat=True)[:MAX_BATCH_SIZE])
    # Read apart: a settled delivery may outlive its event, which is then None.
    rows = Delivery.objects.prefetch_related(Prefetch("event", Event.objects.defer("dedup_key"))).in_bulk(ids)
    return [rows[id] for id in ids if id in rows]


def _job(delivery: Delivery, event: Event) -> Job:
    due = Due(delivery.pk, delivery.event_id, delivery.endpoint_id, delivery.due_at, delivery.attempt_count, delivery.tries)
    return Job(due, bytes(event.body))


def _headers(endpoint: Endpoint, parcel: Parcel, timestamp: int, body: bytes, *, signed: bool) -> list[Header]:
    """As the receiver got them. None of a deleted endpoint: without its secret every signature would be wrong."""
    if endpoint.state == Endpoint.State.DELETED:
        return []
    lines = Envelope(endpoint).headers(parcel.id, timestamp, body) + parcel.headers
    ours = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines) if value.strip()]
    keys = {name.lower() for name in endpoint.extra_header_names}
    # libcurl's own go around them.
    return [
        Header("Host", _host(endpoint.url)),
        Header("Accept", "*/*"),
        *(_shown(name, value, keys, signed=signed) for name, value in ours),
        Header("Content-Length", str(len(body))),
    ]


def _host(url: str) -> str:
    """As libcurl writes it: without a port that goes without saying."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.netloc.removesuffix(f":{usual}") if parts.port == usual else parts.netloc


def _shown(name: str, value: str, keys: set[str], *, signed: bool) -> Header:
    lowered = name.lower()
    if lowered == "authorization":
        return Header(name, "Bearer ", "JETRELAY_TOKEN")
    if lowered in keys:
        return Header(name, "", f"JETRELAY_{re.sub('[^A-Z0-9]', '_', name.upper())}")
    if lowered in _SIGNATURES and not signed:
        return Header(name, "", "JETRELAY_SIGNATURE")
    return Header(name, value)
