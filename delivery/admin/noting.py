"""The audit log's entries of many deliveries that were moved at once, by the pages and by the admin."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from delivery.models import Delivery
from delivery.replay.moves import among
from subscriptions.ids import to_public
from subscriptions.models import AuditEntry


def note_moved(user: Any, action: str, ids: Sequence[UUID], place: str) -> None:
    """One entry for each tenant whose deliveries these are, however many. Call it where some were moved, in the same transaction."""
    of_tenants: dict[Any, list[UUID]] = defaultdict(list)
    for id, tenant in among(Delivery.objects.order_by("id"), list(ids)).values_list("pk", "endpoint__tenant"):
        of_tenants[tenant].append(id)
    for tenant, chosen in of_tenants.items():
        target = to_public(Delivery.prefix, chosen[0]) if len(chosen) == 1 else ""
        AuditEntry.note_by(user, tenant, action, target, f"{len(chosen):,} selected {place}")
