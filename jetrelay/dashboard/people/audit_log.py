"""The audit log: who did what to what, when and from where. Everything that says which entries a page shows is in its URL."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple, Self
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.dateparse import parse_date, parse_datetime
from django.views.decorators.http import require_safe

from delivery.models import Delivery, Event, Replay
from jetrelay.dashboard.access import HtmxRequest, members_page
from subscriptions.ids import first_id, from_public, to_public
from subscriptions.models import ApiKey, AuditEntry, Endpoint, Tenant, Tenants

PAGE = 50
# Entries that a filter looks at for one page: none of them has an index.
LOOKED_AT = 20_000
# The pages of what an entry is about, by the prefix of its id.
_PAGES = {Endpoint.prefix: "endpoint", Delivery.prefix: "delivery", Event.prefix: "event", ApiKey.prefix: "key", Replay.prefix: "replay"}
# An id counts milliseconds since 1970 in 48 bits.
_FIRST_YEAR, _LAST_YEAR = 1971, 9998


@dataclass(frozen=True)
class Filters:
    """`problem` says in words what of the URL was not understood; the rest still counts."""

    actor: str = ""
    action: str = ""
    target: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before: uuid.UUID | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        actor, action, target = (query.get(name, "").replace("\0", "").strip()[:200] for name in ("actor", "action", "target"))
        filters = cls(actor, action, target, _moment(query.get("since", "")), _moment(query.get("until", "")), from_public(query.get("before", "")))
        for name, found, what in (
            ("since", filters.since, "a time: write it like 2026-11-22 10:00"),
            ("until", filters.until, "a time: write it like 2026-11-22 10:00"),
            ("before", filters.before, "an entry's id: the newest are shown"),
        ):
            if query.get(name) and found is None:
                return replace(filters, problem=f"“{query[name][:40]}” is not {what}.")
        return filters

    @property
    def any(self) -> bool:
        return bool(self.since or self.until) or self.narrows

    @property
    def narrows(self) -> bool:
        return bool(self.actor or self.action or self.target)

    def query(self) -> str:
        parts = {
            "actor": self.actor,
            "action": self.action,
            "target": self.target,
            "since": _text(self.since),
            "until": _text(self.until),
            "before": to_public(AuditEntry.prefix, self.before) if self.before else "",
        }
        return urlencode({name: value for name, value in parts.items() if value})

    @property
    def newest(self) -> Self:
        return replace(self, before=None)

    def by(self, actor: str) -> Self:
        return replace(self, actor=actor, before=None)

    @property
    def since_text(self) -> str:
        return _text(self.since)

    @property
    def until_text(self) -> str:
        return _text(self.until)


class Row(NamedTuple):
    """An entry, what it is about in short, the page of that, and the query for all that its actor did."""

    entry: AuditEntry
    short: str
    url: str
    by: str


class Page(NamedTuple):
    """`older`: where the next one begins, if there is more. `looked_to`: from when on a filter looked, where it stopped before the end."""

    entries: list[AuditEntry]
    older: Filters | None
    looked_to: datetime | None


@require_safe
@members_page
def audit(request: HtmxRequest) -> HttpResponse:
    filters, sees = Filters.read(request.GET.dict()), request.access.sees
    page = _page(filters, sees)
    rows = [Row(entry, _short(entry.target), _url(entry.target), filters.by(entry.actor).query()) for entry in page.entries]
    context = {"rows": rows, "filters": filters, "page": page, "several": sees is None or len(sees) > 1, "kept_days": settings.JETRELAY_AUDIT_DAYS}
    return render(request, "dashboard/people/audit.html", context)


def _page(filters: Filters, tenants: Tenants) -> Page:
    rows = AuditEntry.objects.for_tenants(tenants).order_by("-pk")
    if filters.since:
        rows = rows.filter(pk__gte=first_id(filters.since))
    if filters.until:
        rows = rows.filter(pk__lt=first_id(filters.until))
    if filters.before:
        rows = rows.filter(pk__lt=filters.before)
    end: uuid.UUID | None = None
    if filters.narrows:
        # The last one to look at, if another one follows.
        edge = list(rows.values_list("pk", flat=True)[LOOKED_AT - 1 : LOOKED_AT + 1])
        end = edge[0] if len(edge) > 1 else None
        rows = rows.filter(_narrow(filters), **({"pk__gte": end} if end else {}))
    found = list(rows.select_related("tenant")[: PAGE + 1])
    if len(found) > PAGE:
        return Page(found[:PAGE], replace(filters, before=found[PAGE - 1].pk), None)
    return Page(found, replace(filters, before=end), _made_at(end)) if end else Page(found, None, None)


def _narrow(filters: Filters) -> Q:
    wanted = Q(actor__icontains=filters.actor) if filters.actor else Q()
    if filters.action:
        wanted &= Q(action__startswith=filters.action)
    return wanted & Q(target=filters.target) if filters.target else wanted


def _short(target: str) -> str:
    return f"{target.partition('_')[0]}_…{target[-10:]}" if from_public(target) else target


def _url(target: str) -> str:
    """What is not there any more says so itself."""
    prefix, id = target.partition("_")[0], from_public(target)
    if id is None or prefix not in _PAGES:
        return reverse("members") if prefix == Tenant.prefix else ""
    try:
        return reverse(_PAGES[prefix], args=[id])
    except NoReverseMatch:
        return f"{reverse('replays')}#{target}"


def _made_at(id: uuid.UUID) -> datetime:
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)


def _moment(text: str) -> datetime | None:
    """In UTC, unless it says otherwise. A day stands for its beginning."""
    try:
        found = parse_datetime(text.strip())
        if found is None and (day := parse_date(text.strip())):
            found = datetime(day.year, day.month, day.day, tzinfo=UTC)
    except ValueError:
        return None
    if found is None or not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _text(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if at else ""
