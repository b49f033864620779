"""One of everything, filled with what strangers may send: markup, scripts, marks that turn text round, bytes that are no UTF-8."""

from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from delivery.models import AttemptTally, Delivery, EventTally, Replay
from delivery.replay import start
from jetrelay.inbox.models import Inbox
from subscriptions.ids import PublicModel
from subscriptions.models import Endpoint, Membership, Source, Tenant
from tests.builders import (
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_gap,
    make_health,
    make_host,
    make_member,
    make_rejected,
    make_subscription,
    make_tenant,
)

SCRIPT = "<script>document.title='owned'</script>"
IMAGE = "<img src=x onerror=\"document.title='owned'\">"
# Turns what follows it round, were it not kept to itself.
OVERRIDE = "\u202etxt.exe\u2066"
JAVASCRIPT = "javascript:document.title='owned'"
NO_UTF8 = b'\xff\xfe{"text": "\xc3\x28"}'


@dataclass
class Rows:
    """By the prefix of their ids: what a URL may name."""

    tenant: Tenant
    by_prefix: dict[str, PublicModel]
    inbox: Inbox
    # It has a number and no prefix.
    membership: Membership

    def named_by(self, converter: Any) -> Any:
        """What a URL's converter stands for."""
        return (self.by_prefix[converter.prefix] if hasattr(converter, "prefix") else self.membership).pk


def make_hostile_rows() -> Rows:
    tenant = make_tenant(slug="hostile", name=f"{IMAGE}{OVERRIDE}")
    source = Source.objects.create(tenant=tenant, kind=Source.Kind.API, name=f"{SCRIPT}{OVERRIDE}")
    endpoint = make_endpoint(tenant=tenant, name=f"{IMAGE} {OVERRIDE}", url=f"{JAVASCRIPT}//{IMAGE}", state_reason=SCRIPT)
    subscription = make_subscription(endpoint=endpoint)
    make_health(endpoint=endpoint, failures=3, reason=f"{IMAGE}{OVERRIDE}")
    make_endpoint(tenant=tenant, name="&lt;b&gt; " + "x" * 80, url="https://" + "long." * 40 + "example/", state=Endpoint.State.PAUSED)
    EventTally.objects.create(source=source, minute=timezone.now(), kind="api", type=f"{IMAGE}{OVERRIDE}", received=5, stored=5)
    AttemptTally.objects.create(endpoint=endpoint, minute=timezone.now(), outcome="retry", attempts=3, ms_25=3)
    bodies: list[tuple[str, bytes]] = [(IMAGE, NO_UTF8), (JAVASCRIPT, f'{{"a": "{OVERRIDE}"}}'.encode()), (OVERRIDE, SCRIPT.encode())]
    deliveries = []
    for (subject, body), state in zip(bodies, (Delivery.State.DEAD, Delivery.State.PENDING, Delivery.State.DELIVERED), strict=True):
        event = make_event(source=source, kind="api", type=f"{SCRIPT}{OVERRIDE}"[:100], operation=IMAGE[:32], subject=subject, origin=JAVASCRIPT, body=body)
        delivery = make_delivery(endpoint=endpoint, event=event, state=state, attempt_count=1, last_status=500)
        make_attempt(delivery=delivery, status=500, error_detail=f"{IMAGE}{OVERRIDE}", response_headers=f"X: {SCRIPT}", response_body=NO_UTF8 + SCRIPT.encode())
        deliveries.append(delivery)
    replay = start(Replay(tenant=tenant, endpoint=endpoint), by=f"{IMAGE}{OVERRIDE}"[:100])
    make_host(host=f"wss://{IMAGE}", problem=f"{SCRIPT}{OVERRIDE}")
    make_gap(host=f"wss://{IMAGE}", reason=f"{SCRIPT}{OVERRIDE}")
    make_rejected(host=f"wss://{IMAGE}", reason=f"{IMAGE}{OVERRIDE}", head=NO_UTF8 + SCRIPT.encode())
    attempt = deliveries[0].attempts.get()
    rows: list[Any] = [tenant, source, endpoint, subscription, deliveries[0].event, deliveries[0], attempt, replay, *make_others(tenant)]
    # No page makes such a name; a program may have.
    person = make_member(tenant, username=f"{IMAGE}{OVERRIDE}", first_name=SCRIPT).memberships.get()
    return Rows(tenant, {row.prefix: row for row in rows}, Inbox.objects.create(endpoint=endpoint), person)


def make_others(tenant: Tenant) -> list[Any]:
    from subscriptions import keys
    from subscriptions.models import AuditEntry

    key, _ = keys.issue(tenant, f"{IMAGE}{OVERRIDE}", ["events:read"], by=SCRIPT)
    entry = AuditEntry.note(tenant, f"{IMAGE}{OVERRIDE}", "endpoint.pause", SCRIPT, f"{SCRIPT}{OVERRIDE}")
    return [key, entry]
