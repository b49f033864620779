"""The health of endpoints in the database: what has to outlive a turn of a lane."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from delivery import breaker
from delivery.breaker import Health
from delivery.models import EndpointHealth

# What a breaker's next owner has to know. The rest is kept along with it, for people to read.
_FIELDS = ("failures", "failing_since", "trips", "open_until", "ramp", "paused_until", "reason")
_TURNS = ("trips", "open_until", "ramp", "paused_until")


def of(row: EndpointHealth | None) -> Health:
    return Health(**{name: getattr(row, name) for name in _FIELDS}) if row else Health()


def has_turned(before: Health, after: Health) -> bool:
    """Whether the breaker has moved: then it is worth a write at once. Single failures are kept at the end of a turn."""
    return any(getattr(before, name) != getattr(after, name) for name in _TURNS)


def differs(before: Health, after: Health) -> bool:
    """Whether there is anything new for the next owner of the lane."""
    return any(getattr(before, name) != getattr(after, name) for name in _FIELDS if name != "reason")


def store(news: Iterable[tuple[UUID, int, Health]]) -> None:
    """Keep the health of endpoints, unless people have changed it since this version was read."""
    _write({id: (version, {name: getattr(health, name) for name in _FIELDS} | {"reason": health.reason[:300]}) for id, version, health in news})


def store_paces(paces: Iterable[tuple[UUID, int, datetime]]) -> None:
    """Keep when endpoints with a rate limit may have their next request, for the next owner of their lane."""
    _write({id: (version, {"paced_until": next_request_at}) for id, version, next_request_at in paces})


def held(now: datetime) -> Q:
    """Endpoints to which nothing may be sent at the moment, by their breaker or by their own wish."""
    return _ahead("open_until", now, breaker.LONGEST_COOLING_S) | _ahead("paused_until", now, breaker.LONGEST_PAUSE_S)


def _ahead(name: str, now: datetime, longest_s: float) -> Q:
    """As `breaker` has it: what is further off was written by a wrong clock."""
    return Q(**{f"health__{name}__gt": now, f"health__{name}__lte": now + timedelta(seconds=longest_s + breaker.LEEWAY_S)})


def rows(endpoints: Iterable[UUID]) -> dict[UUID, EndpointHealth]:
    return EndpointHealth.objects.in_bulk(list(endpoints))


def _write(values: Mapping[UUID, tuple[int, Mapping[str, object]]]) -> None:
    """For many endpoints at once: hundreds of them turn together, and a statement for each would keep all lanes of a process waiting."""
    if not values:
        return
    with transaction.atomic():
        there = EndpointHealth.objects.select_for_update(no_key=True).filter(pk__in=values).order_by("pk")
        rows = {row.pk: row for row in there}
        changed = [row for id, row in rows.items() if row.version == values[id][0]]
        for row in changed:
            for name, value in values[row.pk][1].items():
                setattr(row, name, value)
        if changed:
            EndpointHealth.objects.bulk_update(changed, list(values[changed[0].pk][1]))
        new = [EndpointHealth(endpoint_id=id, **fields) for id, (version, fields) in values.items() if version == 0 and id not in rows]
        EndpointHealth.objects.bulk_create(new, ignore_conflicts=True)
