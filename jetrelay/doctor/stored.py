"""What is stored: secrets that no key opens, stretches of the stream that are missing, and sums that do not come out."""

from collections.abc import Iterator
from time import monotonic

from django.core.exceptions import ImproperlyConfigured

from delivery.models import Delivery, Event, StreamGap
from jetrelay.doctor.finding import Finding, ok, problem, warning
from jetrelay.doctor.registry import Check
from jetrelay.metrics import counted as counts
from jetrelay.usage import usage
from subscriptions.allowance import QUOTAS, most
from subscriptions.management.commands import rotate_encryption_keys
from subscriptions.models import Tenant

# Reading and opening ten thousand secrets takes about a second.
SURVEY_S = 8.0
# Pending deliveries whose events are looked for.
SAMPLE = 2000
# Tenants that are looked at, and findings about them.
MOST_TENANTS = 1_000
MOST_TOLD = 20
_REPORT = "This must not be: please report it, with the log of the processes that store and deliver."


def encryption() -> Iterator[Finding]:
    try:
        found = rotate_encryption_keys.survey(until=monotonic() + SURVEY_S)
    except ImproperlyConfigured as error:
        yield problem(str(error), "Set it to the key that the stored secrets were written with.")
        return
    part = "" if found.complete else f" (of the first {found.total:,}; there are more)"
    for kind, (row, count) in found.shut.items():
        advice = "Put the key that they were written with back into JETRELAY_ENCRYPTION_KEYS: nothing is sent to these endpoints without it."
        yield problem(f"no key opens what is stored as {kind}: {count:,} of them, such as that of {row}{part}", advice)
    if found.older:
        advice = "`manage.py rotate_encryption_keys` puts everything under the first key; until then keep the older ones."
        yield warning(f"{found.older:,} of {found.total:,} stored secrets are under an older key{part}", advice)
    if not found.shut and not found.older:
        yield ok(f"{found.total:,} stored secrets are under the first key{part}")


def gaps() -> Iterator[Finding]:
    alarming, opened = StreamGap.objects.alarming(), StreamGap.objects.open().count()
    count, last = alarming.count(), alarming.first()
    if last is None:
        yield ok(f"none is open{f', but for {opened} that somebody has acknowledged' if opened else ''}")
        return
    advice = "The stream page says more: rewind the host to that time if it still has it, or acknowledge the gap."
    yield warning(f"{count} open, the last one from {last.from_at:%F %T} to {last.to_at:%F %T} UTC at {last.host}: {last.reason}", advice)


def accounting() -> Iterator[Finding]:
    """Promise 6, as `/metrics` has it; and no delivery without its event."""
    counted = counts.read()
    missing = {what: count for what, count in counted.unaccounted().items() if count}
    for what, count in missing.items():
        yield problem(f"{count:,} {what} are unaccounted for", _REPORT)
    # No order: that of the index of what is pending will do.
    pending = set(Delivery.objects.pending().order_by().values_list("event_id", flat=True)[:SAMPLE])
    here = Event.objects.filter(pk__in=pending)
    lost = len(pending) - here.count()
    # Pruned between the two questions, it is no longer pending either.
    if lost and Delivery.objects.pending().filter(event_id__in=pending).exclude(event_id__in=here.values("pk")).exists():
        yield problem(f"{lost:,} pending deliveries have no event", _REPORT)
    elif not missing:
        received = sum(received for received, *_ in counted.events.values())
        yield ok(f"{received:,} events received and {counted.by_endpoint().total():,} attempts made, all accounted for")


def used_up() -> Iterator[Finding]:
    """Tenants that are refused something now."""
    tenants = list(Tenant.objects.order_by("pk")[:MOST_TENANTS])
    so_far = max((most("pending_deliveries", tenant.quotas) for tenant in tenants), default=1)
    found = usage(tenants, so_far)
    full = [(tenant, each) for tenant in tenants for each in found[tenant.pk] if each.full and each.most]
    for tenant, each in full[:MOST_TOLD]:
        advice = f"{QUOTAS[each.name].advice}, raise {QUOTAS[each.name].setting}, or give the tenant quotas of its own in the admin."
        yield warning(f"{tenant.slug} may have {each.most:,} {each.of}, and has used them up", advice)
    if not full:
        yield ok(f"no tenant has used one up, of {len(tenants):,}")


CHECKS = (
    Check("quotas", used_up, needs=("database",)),
    Check("encryption", encryption, needs=("database",), limit_s=SURVEY_S + 7),
    Check("gaps", gaps, needs=("database",)),
    Check("accounting", accounting, needs=("database",), limit_s=20),
)
