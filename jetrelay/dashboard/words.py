"""Durations, waits and amounts in words. Pure."""

from datetime import datetime, timedelta

from delivery.models import Delivery
from delivery.retry import Policy
from delivery.standing import Kind, standing
from subscriptions.models import Endpoint

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(span: timedelta) -> str:
    """`4 min`, in the largest unit that fits; a day or an hour carries the next unit as well."""
    seconds = max(0, int(span.total_seconds()))
    for index, (size, unit) in enumerate(_UNITS):
        if seconds >= size:
            rest_size, rest_unit = _UNITS[min(index + 1, len(_UNITS) - 1)]
            rest = seconds % size // rest_size
            return f"{seconds // size} {unit}" + (f" {rest} {rest_unit}" if rest and size >= 3600 else "")
    return "0 s"


def ago(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    return "just now" if now - at < timedelta(seconds=1) else f"{duration(now - at)} ago"


def milliseconds(ms: float | None) -> str:
    """`0.4 ms`, `38 ms`, `1.20 s`."""
    if ms is None:
        return "–"
    if ms >= 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def lag(seconds: float | None) -> str:
    """How far a host's events are behind this machine's clock. From the future comes none: then the clocks differ."""
    if seconds is None:
        return "not known yet"
    if abs(seconds) < 1:
        return "less than 1 s"
    span = duration(timedelta(seconds=abs(seconds)))
    return f"{span} behind real time" if seconds > 0 else f"none: the host's clock is {span} ahead of this machine's"


def size(count: float) -> str:
    """`581 bytes`, `1.2 kB`, `12 MB`; in thousands, not in 1,024s."""
    if count < 1000:
        return f"{count:.0f} {'byte' if round(count) == 1 else 'bytes'}"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:,.0f} {unit}"


def rate(count: float) -> str:
    """`0`, `0.4`, `450`."""
    return f"{count:,.0f}" if count >= 9.95 or round(count, 1) == 0 else f"{count:.1f}"


def after_that(delivery: Delivery, policy: Policy, most: int = 6) -> str:
    """What follows if the next attempt fails: `5 min later, then after 30 min and 2 h; then it is dead`. Empty once it is settled."""
    if delivery.state != Delivery.State.PENDING or delivery.endpoint.state == Endpoint.State.DELETED:
        return ""
    waits = policy.schedule_s[delivery.tries :]
    if not waits:
        return "If that fails, it is dead: its retries are used up."
    shown = [duration(timedelta(seconds=wait)) if wait >= 1 else f"{wait:g} s" for wait in waits[:most]]
    more = f" and {len(waits) - most:,} more" if len(waits) > most else ""
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if not more else ", ".join(shown)
    refusal = " A plain refusal (such as 400) ends it at once." if policy.transient_only else ""
    return f"If that fails, again after {listed}{more}; then it is dead.{refusal}"


def is_dismissed(delivery: Delivery) -> bool:
    """Whether somebody dismissed it. What is cancelled besides was pending when its endpoint was deleted."""
    endpoint = delivery.endpoint
    if delivery.state != Delivery.State.CANCELLED:
        return False
    return endpoint.state != Endpoint.State.DELETED or bool(delivery.settled_at and delivery.settled_at < endpoint.state_changed_at)


def next_step(delivery: Delivery, now: datetime) -> str:
    """What happens to a delivery next: `retries in 4 min`. Empty once it is settled."""
    if delivery.state != Delivery.State.PENDING:
        return ""
    if delivery.endpoint.state == Endpoint.State.DELETED:
        return "is cancelled soon: its endpoint is deleted"
    if delivery.endpoint.state != Endpoint.State.ACTIVE:
        return f"held: its endpoint is {delivery.endpoint.get_state_display().lower()}"
    verb = "retries" if delivery.tries else "is sent"
    found = standing(delivery.endpoint, now)
    if found.kind in (Kind.OPEN, Kind.PROBING):
        return f"waits: its endpoint's breaker is {found.words}"
    if found.kind is Kind.ASKED_TO_WAIT:
        return f"waits: its endpoint is {found.words}"
    return f"{verb} in {duration(delivery.due_at - now)}" if delivery.due_at > now else f"{verb} next"
