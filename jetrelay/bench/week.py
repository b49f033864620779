"""A week in the life of an installation, made at once: for benchmarks of what people look at. Both engines, by statements of the server's own.

Runs in a process that has the benchmark's own database as Django's: `processes.django(…)`. Nothing is random, so that two runs compare.
What makes pages slow is there: an endpoint with a third of all deliveries and hundreds with next to none; dead and cancelled ones that lie
thinly among millions that were delivered; what is pending, half of it new and half of it scattered over the week.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from delivery.models import EndpointHealth, RejectedFrame, Replay, StreamGap, StreamHost
from subscriptions import keys
from subscriptions.ids import first_id, new_id, to_public
from subscriptions.models import ApiKey, AuditEntry, ConfigVersion, Endpoint, EndpointPastState, Membership, Source, Subscription, Tenant

DAYS = 7
TENANTS = 5
TABLES = ("delivery_event", "delivery_delivery", "delivery_attempt", "delivery_eventtally", "delivery_attempttally")
# The five that the network brings most, by their share of a hundred events; the rest are rare ones.
_TYPES = """CASE WHEN n % 100 < 45 THEN 'app.bsky.feed.like' WHEN n % 100 < 65 THEN 'app.bsky.feed.post' WHEN n % 100 < 80 THEN 'app.bsky.graph.follow'
    WHEN n % 100 < 92 THEN 'app.bsky.feed.repost' WHEN n % 100 < 97 THEN 'app.bsky.graph.block' ELSE 'com.maker' || (n / 100 % 300) || '.record' END"""

# The functions that both engines are given, so that a statement is written once. A time is milliseconds since 1970.
_FUNCTIONS = """
    CREATE FUNCTION bench_id(ms bigint, part bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(part >> 12 & 4095), 3, '0') || '8' || lpad(to_hex(part & 4095), 3, '0')
            || substr(md5(ms::text || '.' || part), 1, 12))::uuid
    $$;
    CREATE FUNCTION bench_at(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT to_timestamp(ms / 1000.0) $$;
    CREATE FUNCTION bench_digest(value bigint) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT decode(md5(value::text), 'hex') $$;
    CREATE FUNCTION bench_body(value text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT convert_to(value, 'UTF8') $$;
"""
_SERIES = {
    "postgresql": "generate_series(0::bigint, %(count)s - 1) AS numbers (n)",
    "sqlite": "(WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < %(count)s) SELECT n FROM numbers) AS numbers",
}
# Row n of the week: when, whose, and in which state. A cube makes few endpoints busy and most of them quiet.
_ROWS = """
    (SELECT n, {from_ms} + n * {span_ms} / {count} AS ms, n % 65536 AS part,
        ({u} * {u} / 100003) * {u} / 100003 * {endpoints} / 100003 AS place,
        CASE WHEN n >= {count} - {pending} / 2 OR n % {pending_every} = 3 THEN 0 WHEN n % {dead_every} = 7 THEN 2
            WHEN n % {cancelled_every} = 11 THEN 3 ELSE 1 END AS state
    FROM {series}) AS happened
"""
_EVENTS = """
    INSERT INTO delivery_event (id, source_id, dedup_key, kind, type, operation, subject, origin, origin_cursor, occurred_at, received_at, body)
    SELECT bench_id(ms, part), %(source)s, bench_digest(n), 'commit', {types},
        CASE WHEN n % 10 = 9 THEN 'delete' ELSE 'create' END, {subject}, 'wss://jetstream.example/subscribe', ms * 1000, bench_at(ms - 120), bench_at(ms),
        bench_body('{{"did":"' || {subject} || '","time_us":' || (ms * 1000)
            || ',"kind":"commit","commit":{{"operation":"create","record":{{"text":"{text}"}}}}}}')
    FROM {rows}
"""
_SUBJECT = "('did:plc:aaaaaaaaaaaaaaaaaa' || (100000 + n * 31 % 100003))"
_DELIVERIES = """
    INSERT INTO delivery_delivery
        (id, event_id, endpoint_id, state, due_at, attempt_count, tries, last_status, last_error, settled_at, created_at)
    SELECT bench_id(ms + 1, part), bench_id(ms, part), owner.id, state, bench_at(ms + 1 + CASE state WHEN 0 THEN (n % 3600) * 1000 ELSE 0 END),
        CASE state WHEN 1 THEN 1 WHEN 2 THEN 5 ELSE 0 END, CASE state WHEN 1 THEN 1 WHEN 2 THEN 5 ELSE 0 END,
        CASE state WHEN 1 THEN 200 WHEN 2 THEN 503 END, '', CASE WHEN state > 0 THEN bench_at(ms + 90) END, bench_at(ms + 1)
    FROM {rows} JOIN bench_endpoint AS owner ON owner.place = happened.place
"""
# Of a dead delivery five, of one that was delivered one.
_ATTEMPTS = """
    INSERT INTO delivery_attempt (id, delivery_id, number, started_at, dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, status, error, error_detail,
        response_headers, response_body)
    SELECT bench_id(ms + 2 + (number - 1) * 30000, part), bench_id(ms + 1, part), number, bench_at(ms + 2 + (number - 1) * 30000), 0.1, 5.2, 12.5, 48.1,
        50.3 + n % 400, CASE state WHEN 1 THEN 200 ELSE 503 END, '', '', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n', bench_body('ok')
    FROM {rows} JOIN (SELECT 1 AS number UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5) AS made
        ON made.number = 1 AND state = 1 OR state = 2
"""
_EVENT_TALLIES = """
    INSERT INTO delivery_eventtally (minute, source_id, kind, type, received, stored, duplicate, unmatched, invalid)
    SELECT bench_at(ms - ms % 60000), %(source)s, 'commit', {types}, 2 * count(*), count(*), count(*), 0, 0 FROM {rows} GROUP BY 1, 4
"""
_ATTEMPT_TALLIES = """
    INSERT INTO delivery_attempttally (minute, endpoint_id, outcome, attempts, total_ms, {buckets})
    SELECT bench_at(ms - ms % 60000), owner.id, CASE state WHEN 1 THEN 'delivered' ELSE 'dead' END, count(*), 50.0 * count(*), {counts}
    FROM {rows} JOIN bench_endpoint AS owner ON owner.place = happened.place WHERE state IN (1, 2) GROUP BY 1, 2, 3
"""
_BUCKETS = ("ms_5", "ms_10", "ms_25", "ms_50", "ms_100", "ms_250", "ms_500", "ms_1000", "ms_2500", "ms_5000", "ms_10000", "ms_30000", "ms_over")


@dataclass(frozen=True)
class Week:
    """How much there is of what. The rest follows from it."""

    deliveries: int
    endpoints: int = 1000
    dead: int = 300
    cancelled: int = 1000
    pending: int = 10_000

    def build(self) -> None:
        """Fill the database, which has been migrated and is empty."""
        tenants, source = self._people_and_endpoints()
        self._surroundings(tenants, source)
        self._flow(source)
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                for table in TABLES:
                    cursor.execute(f"VACUUM (ANALYZE) {table}")
            cursor.execute("ANALYZE")

    @transaction.atomic
    def _people_and_endpoints(self) -> tuple[list[Tenant], Source]:
        tenants = [Tenant.objects.create(slug=f"tenant-{number}", name=f"Tenant {number}") for number in range(TENANTS)]
        source = Source.objects.create(kind=Source.Kind.JETSTREAM, name="Jetstream")
        ada = User.objects.create_superuser("ada")
        grace = User.objects.create_user("grace")
        Membership.objects.create(tenant=tenants[0], user=grace, role=Membership.Role.OWNER)
        Membership.objects.bulk_create(Membership(tenant=tenant, user=ada) for tenant in tenants)
        states = [Endpoint.State.ACTIVE] * 18 + [Endpoint.State.PAUSED, Endpoint.State.DISABLED]
        endpoints = [
            Endpoint(
                tenant=tenants[place % TENANTS], name=f"Endpoint {place}", url=f"https://receiver-{place}.example/hook", shard=place, state=states[place % 20]
            )
            for place in range(self.endpoints)
        ]
        Endpoint.objects.bulk_create(endpoints)
        Subscription.objects.bulk_create(Subscription(endpoint=endpoint, source=source, collections=["app.bsky.*"]) for endpoint in endpoints)
        now = timezone.now()
        EndpointHealth.objects.bulk_create(
            EndpointHealth(endpoint=endpoint, failures=7, trips=2, failing_since=now - timedelta(hours=1), reason="503 Service Unavailable")
            for endpoint in endpoints[::15]
        )
        EndpointPastState.objects.bulk_create(
            EndpointPastState(endpoint=endpoint, state="paused", from_at=now - timedelta(days=day), to_at=now - timedelta(days=day, hours=-1))
            for endpoint in endpoints
            for day in range(1, 4)
        )
        ConfigVersion.bump()
        return tenants, source

    @transaction.atomic
    def _surroundings(self, tenants: list[Tenant], source: Source) -> None:
        """What stands beside the flow, as much as a week leaves of it."""
        now = timezone.now()
        ids = list(Endpoint.objects.order_by("id").values_list("id", flat=True))
        for tenant in tenants:
            for number in range(10):
                keys.issue(tenant, f"key {number}", ["events:read"])
        actor = f"key {ApiKey.objects.all()[0]}"
        count = min(50_000, self.deliveries)
        moments = [now - timedelta(days=DAYS) * (1 - number / count) for number in range(count)]
        AuditEntry.objects.bulk_create(
            (
                AuditEntry(
                    id=_id_at(at),
                    at=at,
                    tenant=tenants[number % TENANTS],
                    actor=actor,
                    action=f"endpoint.{('pause', 'resume')[number % 2]}",
                    target=to_public("ep", ids[number % len(ids)]),
                )
                for number, at in enumerate(moments)
            ),
            batch_size=5000,
        )
        hosts = [f"wss://jetstream{number}.example/subscribe" for number in (1, 2)]
        StreamHost.objects.bulk_create(
            StreamHost(source=source, host=host, connected_since=now, seen_at=now, last_event_at=now, reached_at=now, lag_s=0.2, events=self.deliveries)
            for host in hosts
        )
        StreamGap.objects.bulk_create(
            StreamGap(
                source=source,
                host=hosts[number % 2],
                from_at=now - timedelta(minutes=10 * number + 10),
                to_at=now - timedelta(minutes=10 * number),
                reason="the host no longer had what was asked for",
                filled_by=hosts[0] if number % 2 else "",
            )
            for number in range(200)
        )
        RejectedFrame.objects.bulk_create(
            RejectedFrame(source=source, host=hosts[0], received_at=now, reason="not JSON", size=2000, head=b"x" * 2000) for _ in range(1000)
        )
        Replay.objects.bulk_create(
            Replay(tenant=tenants[number % TENANTS], endpoint_id=ids[number % len(ids)], created_by="ada", state=Replay.State.FINISHED, expected=9, done=9)
            for number in range(300)
        )

    def _flow(self, source: Source) -> None:
        """Events, deliveries, attempts and tallies."""
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        span_ms = DAYS * 86_400_000
        values: dict[str, Any] = {"count": self.deliveries, "from_ms": now_ms - span_ms - 1000, "span_ms": span_ms}
        values |= {"endpoints": self.endpoints, "pending": min(self.pending, self.deliveries // 10)}
        series = _SERIES[connection.vendor] % values
        every = {"dead_every": self.dead, "cancelled_every": self.cancelled, "pending_every": max(1, values["pending"] // 2)}
        rows = _ROWS.format(series=series, u="(n * 7919 % 100003)", **values, **{name: max(20, self.deliveries // many) for name, many in every.items()})
        parts: dict[str, Any] = {"rows": rows, "types": _TYPES, "subject": _SUBJECT, "text": "x" * 350, "buckets": ", ".join(_BUCKETS)}
        parts["counts"] = ", ".join("count(*)" if name == "ms_100" else "0" for name in _BUCKETS)
        source_id = str(source.pk) if connection.vendor == "postgresql" else source.pk.hex
        with transaction.atomic(), connection.cursor() as cursor:
            self._prepare(cursor)
            for statement in (_EVENTS, _DELIVERIES, _ATTEMPTS, _EVENT_TALLIES, _ATTEMPT_TALLIES):
                cursor.execute(statement.format(**parts).replace("%(source)s", f"'{source_id}'"))

    def _prepare(self, cursor: Any) -> None:
        """The functions, and the endpoints by number. Autovacuum has nothing to do while pages are measured."""
        if connection.vendor == "postgresql":
            cursor.execute(_FUNCTIONS)
            for table in TABLES:
                cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        else:
            made = connection.connection
            made.create_function("bench_id", 2, lambda ms, part: _id_text(ms, part), deterministic=True)
            made.create_function("bench_at", 1, lambda ms: f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}", deterministic=True)
            made.create_function("bench_digest", 1, lambda value: hashlib.md5(str(value).encode(), usedforsecurity=False).digest(), deterministic=True)
            made.create_function("bench_body", 1, str.encode, deterministic=True)
        cursor.execute("CREATE TEMPORARY TABLE bench_endpoint AS SELECT row_number() OVER (ORDER BY id) - 1 AS place, id FROM subscriptions_endpoint")
        cursor.execute("CREATE UNIQUE INDEX bench_endpoint_place ON bench_endpoint (place)")


def _id_at(at: datetime) -> Any:
    """An id that would have been made then."""
    return type(first_id(at))(int=first_id(at).int | new_id().int & (1 << 80) - 1)


def _id_text(ms: int, part: int) -> str:
    tail = hashlib.md5(f"{ms}.{part}".encode(), usedforsecurity=False).hexdigest()[:12]
    return f"{ms:012x}7{part >> 12 & 4095:03x}8{part & 4095:03x}{tail}"
