"""Sums of tallies since the beginning, at the cost of what was added since somebody last looked."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import QuerySet, Sum
from django.utils import timezone

from delivery.models import AttemptTally, EventTally
from subscriptions.models import Tenants

Totals = dict[tuple[str, ...], list[float]]
Tally = type[EventTally | AttemptTally]

# Writers commit what they count within seconds: what is older than this does not grow any more.
_SETTLES = timedelta(minutes=2)
# What was remembered longer ago is summed afresh: its minutes may have been folded into hours meanwhile (`delivery/folding.py`).
_REMEMBERED = timedelta(hours=12)


def totals(tally: Tally, tenants: Tenants, by: tuple[str, ...], counts: tuple[str, ...]) -> Totals:
    """`counts` summed for each of `by`, over all of the tallies that these tenants see."""
    rows: QuerySet[Any] = tally._default_manager.for_tenants(tenants)
    until = (timezone.now() - _SETTLES).replace(second=0, microsecond=0)
    name = f"totals.{tally.__name__}.{digest(tenants)}"
    then: tuple[datetime, Totals] | None = cache.get(name)
    if then is None:
        then = until, _sums(rows.filter(minute__lt=until), by, counts)
        cache.set(name, then, _REMEMBERED.total_seconds())
    elif then[0] < until:
        then = until, _added(then[1], _sums(rows.filter(minute__gte=then[0], minute__lt=until), by, counts))
        cache.set(name, then, _REMEMBERED.total_seconds())
    return _added(then[1], _sums(rows.filter(minute__gte=then[0]), by, counts))


def digest(tenants: Tenants) -> str:
    """The same for the same tenants, and for no others."""
    return "all" if tenants is None else hashlib.sha256(b"".join(sorted(each.pk.bytes for each in tenants))).hexdigest()


def _sums(rows: "QuerySet[Any]", by: tuple[str, ...], counts: tuple[str, ...]) -> Totals:
    found = rows.order_by().values_list(*by).annotate(*(Sum(count) for count in counts))
    return {tuple(row[: len(by)]): list(row[len(by) :]) for row in found}


def _added(some: Totals, more: Totals) -> Totals:
    added = {key: list(values) for key, values in some.items()}
    for key, values in more.items():
        added[key] = [old + new for old, new in zip(added.get(key, [0] * len(values)), values, strict=True)]
    return added
