"""Filters and badges of the pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from delivery.explain import Explanation, explain
from delivery.models import Attempt, Delivery
from delivery.standing import Kind, Standing
from jetrelay.dashboard import bodies, words
from jetrelay.dashboard.access import Access

register = template.Library()

_BADGES = {
    Delivery.State.PENDING: ("wait", "clock"),
    Delivery.State.DELIVERED: ("good", "check"),
    Delivery.State.DEAD: ("bad", "cross"),
    Delivery.State.CANCELLED: ("still", "minus"),
    "active": ("good", "check"),
    "paused": ("wait", "pause"),
    "disabled": ("bad", "cross"),
    "unverified": ("wait", "alert"),
    "running": ("wait", "repeat"),
    "finished": ("good", "check"),
    "live": ("good", "check"),
    "expired": ("still", "clock"),
    "revoked": ("still", "minus"),
}
_STANDINGS = {
    Kind.WELL: ("good", "check"),
    Kind.FAILING: ("wait", "alert"),
    Kind.OPEN: ("bad", "cross"),
    Kind.PROBING: ("wait", "clock"),
    Kind.ASKED_TO_WAIT: ("wait", "pause"),
    Kind.RECOVERING: ("wait", "repeat"),
}


@dataclass(frozen=True)
class Phase:
    """One part of an attempt, placed on a bar of 100 units."""

    name: str
    ms: float
    start: float
    width: float


@register.filter
def may_act_in(access: Access, tenant: UUID) -> bool:
    return access.may_act_in(tenant)


@register.filter
def may_own(access: Access, tenant: UUID) -> bool:
    return access.may_own(tenant)


@register.filter
def get(mapping: Mapping[Any, Any], key: Any) -> Any:
    return mapping.get(key)


@register.filter
def thousands(number: int) -> str:
    return f"{number:,}"


@register.filter
def percent(share: float | None) -> str:
    """`98.4 %`; a share short of all is never rounded up to all, nor one above nothing down to nothing."""
    if share is None:
        return "–"
    rounded = round(share * 100, 1)
    if rounded == 100 and share < 1:
        return "> 99.9 %"
    return "< 0.1 %" if rounded == 0 and share > 0 else f"{rounded:g} %"


@register.filter
def ago(at: datetime | None) -> str:
    return words.ago(at, timezone.now())


@register.filter
def ms(value: float | None) -> str:
    return words.milliseconds(value)


@register.filter
def until(start: datetime, end: datetime) -> str:
    return words.duration(end - start)


@register.filter
def lag(seconds: float | None) -> str:
    return words.lag(seconds)


@register.filter
def size(count: float) -> str:
    return words.size(count)


@register.filter
def rate(count: float) -> str:
    return words.rate(count)


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """A point in time, to the second, in UTC."""
    if at is None:
        return "–"
    at = at.astimezone(UTC)
    return format_html('<time datetime="{}">{} <abbr title="Coordinated Universal Time">UTC</abbr></time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}")


@register.filter
def next_step(delivery: Delivery) -> str:
    return words.next_step(delivery, timezone.now())


@register.filter
def pretty(text: str) -> str:
    return bodies.pretty(text)


@register.filter
def shown(text: str) -> str:
    return bodies.shown(text)


@register.filter
def is_cut(text: str) -> bool:
    return bodies.is_cut(text)


@register.filter
def outcome(row: Attempt) -> Explanation:
    return explain(row.status, row.error)


@register.filter
def last_outcome(delivery: Delivery) -> str:
    """What came of the newest attempt, in a few words."""
    return explain(delivery.last_status, delivery.last_error).words if delivery.last_status or delivery.last_error else ""


@register.filter
def phases(attempt: Attempt) -> list[Phase]:
    """How long each part took. libcurl's times include the parts before; a part that did not happen stays out."""
    ends = [
        ("DNS", attempt.dns_ms),
        ("Connect", attempt.connect_ms),
        ("TLS", attempt.tls_ms),
        ("First byte", attempt.first_byte_ms),
        ("Rest" if attempt.first_byte_ms else "Waiting", attempt.total_ms),
    ]
    longest = max([attempt.total_ms, *(end for _, end in ends)]) or 1
    found, start = [], 0.0
    for name, end in ends:
        if end > start:
            found.append(Phase(name, end - start, 100 * start / longest, 100 * (end - start) / longest))
            start = end
    return found


@register.inclusion_tag("_badge.html")
def state_badge(row: Any) -> dict[str, str]:
    """The state of a delivery or an endpoint: a colour, an icon and a word."""
    tone, icon = _BADGES.get(row.state, ("still", "minus"))
    return {"tone": tone, "icon": icon, "label": row.get_state_display()}


@register.inclusion_tag("_badge.html")
def delivery_badge(delivery: Delivery) -> dict[str, str]:
    """As `state_badge`, of a delivery that is read together with its endpoint: a dismissed one is called so."""
    badge: dict[str, str] = state_badge(delivery)
    return badge | {"label": "dismissed"} if words.is_dismissed(delivery) else badge


@register.inclusion_tag("_badge.html")
def standing_badge(standing: Standing) -> dict[str, str]:
    """What an endpoint's breaker does: a colour, an icon and words."""
    tone, icon = _STANDINGS.get(standing.kind, ("still", "minus"))
    return {"tone": tone, "icon": icon, "label": f"breaker {standing.words}"}


@register.inclusion_tag("_badge.html")
def owed_badge(owed: Any) -> dict[str, str]:
    """How many deliveries of an event are in a state: a colour, an icon and words, `3 delivered`."""
    tone, icon = _BADGES[owed.state]
    return {"tone": tone, "icon": icon, "label": f"{owed.number:,} {owed.state.label}"}
