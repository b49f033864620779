"""The health of endpoints in the database: what has to outlive a turn of a lane."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

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


def store(endpoint: UUID, version: int, health: Health) -> None:
    """Keep the health of an endpoint, unless people have changed it since this version was read."""
    _write(endpoint, version, {name: getattr(health, name) for name in _FIELDS} | {"reason": health.reason[:300]})


def store_pace(endpoint: UUID, version: int, next_request_at: datetime) -> None:
    """Keep when an endpoint with a rate limit may have its next request, for the next owner of its lane."""
    _write(endpoint, version, {"paced_until": next_request_at})


def held(now: datetime) -> Q:
    """Endpoints to which nothing may be sent at the moment, by their breaker or by their own wish."""
    return _ahead("open_until", now, breaker.LONGEST_COOLING_S) | _ahead("paused_until", now, breaker.LONGEST_PAUSE_S)


def _ahead(name: str, now: datetime, longest_s: float) -> Q:
    """As `breaker` has it: what is further off was written by a wrong clock."""
    return Q(**{f"health__{name}__gt": now, f"health__{name}__lte": now + timedelta(seconds=longest_s + breaker.LEEWAY_S)})


def rows(endpoints: Iterable[UUID]) -> dict[UUID, EndpointHealth]:
    return EndpointHealth.objects.in_bulk(list(endpoints))


def _write(endpoint: UUID, version: int, values: dict[str, object]) -> None:
    if not EndpointHealth.objects.filter(pk=endpoint, version=version).update(**values) and version == 0:
        EndpointHealth.objects.bulk_create([EndpointHealth(endpoint_id=endpoint, **values)], ignore_conflicts=True)
