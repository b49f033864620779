"""How much a tenant owes: its pending deliveries, counted no further than its quota, for those who ask at every post.

    known(tenant, most)   without a look into the database; None for the one who is to look again
    owed(tenant, most)    what is known, or else a look
    added(tenant, 12)     so many came since

A count of a million takes a while: it is good for fifty times as long as it took, but for two seconds at least and
half a minute at most. Past that one who asks counts again, while the others go on with what there is. So what a tenant
owes may exceed its quota by what other processes add within that time. What the stream brings is never refused: it is
stored, and owed beyond the quota.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from django.db import connection, transaction

from delivery.engines import engine
from subscriptions.allowance import Exceeded

GOOD_S = 2.0
# Of the time, this part may be spent on counting for one tenant.
_SHARE = 50
# Whoever owes less by now is not to wait for longer.
_LONGEST_S = 30.0
_MOST_TENANTS = 10_000
# When to ask again: what is owed goes down by deliveries, which take their time.
WAIT_S = 10


@dataclass
class _Count:
    owed: int
    # Until then nobody looks again; then one does, and the others wait for that until `good_until`.
    fresh_until: float
    good_until: float
    looked_for: bool = False

    def serves(self, now: float) -> bool:
        return now <= (self.good_until if self.looked_for else self.fresh_until)


_counts: dict[UUID, _Count] = {}


def known(tenant: UUID, most: int) -> int | None:
    count = _counts.get(tenant)
    # One that is refused is refused by somebody who may look.
    if count is None or count.owed >= most or not count.serves(monotonic()):
        return None
    return count.owed


def owed(tenant: UUID, most: int) -> int:
    count = _counts.get(tenant)
    if count is None or not count.serves(monotonic()):
        if count:
            count.looked_for = True
        return look(tenant, most)
    return count.owed


def check(tenant: UUID, most: int) -> None:
    """Raise Exceeded where the tenant owes as much as it may."""
    if (number := owed(tenant, most)) >= most:
        raise Exceeded("pending_deliveries", most, number, wait_s=WAIT_S)


def added(tenant: UUID, number: int) -> None:
    """Without a lock: a sum that misses some is corrected by the next look."""
    if number and (count := _counts.get(tenant)):
        count.owed += number


def look(tenant: UUID, most: int) -> int:
    """Count, and remember it."""
    began = monotonic()
    number = count(tenant, most)
    now = monotonic()
    good_s = min(_LONGEST_S, max(GOOD_S, _SHARE * (now - began)))
    if len(_counts) >= _MOST_TENANTS:
        _counts.clear()
    _counts[tenant] = _Count(number, now + good_s, now + 2 * good_s)
    return number


def forget() -> None:
    _counts.clear()


def count(tenant: UUID, most: int) -> int:
    """Pending deliveries to the tenant's endpoints, or one more than `most`."""
    return counts([tenant], most)[tenant]


def counts(tenants: Sequence[UUID], most: int) -> dict[UUID, int]:
    """The same for each of these. One statement: endpoint by endpoint, by the index that holds only what is pending.

    Whatever the statistics say, the whole table is never read.
    """
    if connection.vendor == "postgresql":
        with transaction.atomic(), engine().walking():
            found = _counted(_POSTGRESQL, tenants, most)
    else:
        # A transaction would be the only writer's.
        found = _counted(_SQLITE, tenants, most)
    return {tenant: found.get(tenant, 0) for tenant in tenants}


def _counted(mine: str, tenants: Sequence[UUID], most: int) -> dict[UUID, int]:
    among, values = engine().among("tenant.id", tenants)
    sql = f"SELECT tenant.id, ({mine}) FROM subscriptions_tenant tenant WHERE {among}"  # noqa: S608 - constants
    with connection.cursor() as cursor:
        cursor.execute(sql, [most + 1, *values])
        rows = cursor.fetchall()
    return {id if isinstance(id, UUID) else UUID(hex=id): int(number) for id, number in rows}


# OFFSET 0 and CROSS JOIN keep the planners from another order.
_POSTGRESQL = """SELECT COUNT(*) FROM (SELECT 1 FROM subscriptions_endpoint mine CROSS JOIN LATERAL (
    SELECT 1 FROM delivery_delivery owed WHERE owed.endpoint_id = mine.id AND owed.state = 0 OFFSET 0
) owed WHERE mine.tenant_id = tenant.id AND mine.state <> 'deleted' LIMIT %s) few"""
_SQLITE = """SELECT COUNT(*) FROM (SELECT 1 FROM subscriptions_endpoint mine
    CROSS JOIN delivery_delivery owed INDEXED BY delivery_due
    WHERE mine.tenant_id = tenant.id AND mine.state <> 'deleted' AND owed.endpoint_id = mine.id AND owed.state = 0 LIMIT %s) few"""
