"""`/metrics` says what the tables say, in a format that its readers accept, at a cost that does not grow with the endpoints."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from delivery import totals
from delivery.leases import Holding, lane_lease, listener_lease
from delivery.models import Attempt, AttemptTally, Delivery, EventTally, Lease, StreamHost
from delivery.outbox import Outbox
from jetrelay.metrics import collector, owed
from jetrelay.metrics.collector import shared
from jetrelay.metrics.families import gauge
from tests.builders import (
    make_delivery,
    make_endpoint,
    make_gap,
    make_health,
    make_host,
    make_incoming,
    make_replay,
    make_source,
    make_subscription,
    make_tenant,
)
from tests.draining import LANE, drain_all
from tests.receiver import Receiver

# Most need no transactions of their own: inside of the test's, everything is read in one snapshot anyway.
pytestmark = pytest.mark.django_db
with_threads = pytest.mark.django_db(transaction=True)

Labels = dict[str, str]
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _no_old_news() -> Iterator[None]:
    shared.forget()
    yield
    shared.forget()


def scrape(client: Client | None = None) -> str:
    shared.forget()
    response = (client or Client()).get("/metrics")
    assert response.status_code == 200, response.content
    return response.content.decode()


class Scrape:
    """One scrape, read by Prometheus' own parser."""

    def __init__(self) -> None:
        self.samples = [sample for family in plain_text(scrape()) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The only sample of that name with these labels, others left out."""
        (value,) = [each.value for each in self.samples if each.name == f"jetrelay_{name}" and labels.items() <= each.labels.items()]
        return value

    def sum(self, name: str, **labels: str) -> float:
        return sum(each.value for each in self.samples if each.name == f"jetrelay_{name}" and labels.items() <= each.labels.items())

    def labels(self, name: str, label: str) -> set[str]:
        return {each.labels[label] for each in self.samples if each.name == f"jetrelay_{name}"}

    def unaccounted(self) -> dict[str, float]:
        return {each.labels["what"]: each.value for each in self.samples if each.name == "jetrelay_unaccounted"}


NOTHING = {"events": 0, "attempts": 0, "deliveries": 0}


def make_everything() -> None:
    """A row of each kind, so that every family has a sample."""
    now, source = timezone.now(), make_source()
    endpoint = make_health(endpoint=make_endpoint()).endpoint
    make_delivery(endpoint=endpoint)
    make_host(source=source, lag_s=0.25)
    make_gap(source=source)
    make_replay()
    EventTally.objects.create(source=source, minute=now.replace(second=0), kind="commit", type="a.b.c", received=1, stored=1)
    AttemptTally.objects.create(endpoint=endpoint, minute=now.replace(second=0), outcome="delivered", attempts=1, total_ms=1, ms_5=1)
    for name in (lane_lease(0), listener_lease(source.pk)):
        Lease.objects.create(name=name, expires_at=now + HOUR)


# --- The tables ------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(receiver: Receiver, quick: None) -> Receiver:
    """Two endpoints, one of which refuses every third event, have been sent 30 events; some were duplicates, unwanted or unreadable."""
    source = make_source()
    good, picky = make_endpoint(url=receiver.url, shard=LANE), make_endpoint(url=f"{receiver.url}picky", shard=LANE, retry_schedule_s=[3600])
    for endpoint in (good, picky):
        make_subscription(endpoint=endpoint, source=source, collections=["app.bsky.feed.*"])
    receiver.answer = lambda handler, received: handler.reply(503 if received.path.endswith("picky") and len(receiver.requests) % 3 == 0 else 200)
    wanted = [make_incoming() for _ in range(30)]
    outbox = Outbox(source)
    outbox.publish([*wanted, *wanted[:5], *(make_incoming(type="app.bsky.graph.follow") for _ in range(7))], rejected=2)
    drain_all()
    return receiver


@with_threads
def test_it_agrees_with_the_tables(busy: Receiver) -> None:
    found = Scrape()
    assert [found("events_received_total"), *(found("events_total", result=name) for name in ("stored", "duplicate", "unmatched", "invalid"))] == [
        44,
        30,
        5,
        7,
        2,
    ]
    assert found("source_events_received_total") == 44
    made = Attempt.objects.count()
    assert found.sum("attempts_total") == found.sum("endpoint_attempts_total") == found.sum("attempt_duration_seconds_count") == made >= 60
    assert found.sum("attempt_duration_seconds_bucket", le="+Inf") == made
    assert found("attempts_total", outcome="delivered") == Delivery.objects.filter(state=Delivery.State.DELIVERED).count()
    took_s = (AttemptTally.objects.aggregate(total=Sum("total_ms"))["total"]) / 1000
    assert found.sum("attempt_duration_seconds_sum") == pytest.approx(took_s, abs=1e-4) == found.sum("endpoint_attempt_seconds_total")
    owing = Delivery.objects.pending().count()
    assert owing > 0
    assert found("retries_scheduled", lane=str(LANE)) == owing == found.sum("endpoint_deliveries", state="pending")
    assert found.unaccounted() == NOTHING


@with_threads
def test_its_counters_do_not_fall_when_the_schedule_adds_up(busy: Receiver) -> None:
    def counters(found: Scrape) -> dict[tuple[str, ...], float]:
        counted = ("_total", "_bucket", "_sum", "_count")
        return {(each.name, *each.labels.values()): each.value for each in found.samples if each.name.endswith(counted)}

    EventTally.objects.update(minute=timezone.now() - 3 * HOUR)
    AttemptTally.objects.update(minute=timezone.now() - timedelta(days=3))
    before = Scrape()
    totals.add_up()
    assert counters(Scrape()) == counters(before)
    AttemptTally.objects.all().delete()
    assert counters(Scrape()) == counters(before)
    assert Scrape().unaccounted() == NOTHING


@with_threads
@pytest.mark.parametrize("summed", [False, True], ids=["of-today", "long-past"])
def test_it_sees_what_does_not_add_up(busy: Receiver, summed: bool) -> None:
    EventTally.objects.filter(stored__gt=0).update(stored=29)
    AttemptTally.objects.filter(outcome="delivered").update(ms_over=7)
    if summed:
        EventTally.objects.update(minute=timezone.now() - timedelta(days=80))
        AttemptTally.objects.update(minute=timezone.now() - timedelta(days=80))
        totals.add_up()
    Delivery.objects.filter(pk__in=[each.pk for each in Delivery.objects.all()[:2]]).update(state=9)
    endpoints = AttemptTally.objects.filter(outcome="delivered").values("endpoint").distinct().count()
    assert Scrape().unaccounted() == {"events": 1, "attempts": 7 * endpoints, "deliveries": 2}


def test_one_error_does_not_hide_another() -> None:
    now = timezone.now().replace(second=0)
    one, other = make_source(), make_endpoint()
    EventTally.objects.create(source=one, minute=now, kind="commit", received=5, stored=4)
    AttemptTally.objects.create(endpoint=other, minute=now, outcome="delivered", attempts=5, ms_5=6)
    AttemptTally.objects.create(endpoint=other, minute=now, outcome="dead", attempts=6, ms_5=5)
    assert Scrape().unaccounted() == {"events": 1, "attempts": 2, "deliveries": 0}


def test_cancelled_deliveries_are_no_attempts() -> None:
    AttemptTally.objects.create(endpoint=make_endpoint(), minute=timezone.now().replace(second=0), outcome="cancelled", attempts=5)
    found = Scrape()
    assert (found("deliveries_cancelled_total"), found("endpoint_deliveries_cancelled_total"), found.sum("attempts_total")) == (5, 5, 0)
    assert found.unaccounted() == NOTHING


@with_threads
def test_it_reads_one_moment(busy: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever commits while it reads is in none of its figures."""
    read = owed.read

    def then_others_write(now: Any) -> owed.Debts:
        found = read(now)
        writer = threading.Thread(target=publish_more)
        writer.start()
        writer.join()
        return found

    def publish_more() -> None:
        Outbox(make_source()).publish([make_incoming() for _ in range(5)])
        connection.close()

    monkeypatch.setattr(owed, "read", then_others_write)
    assert Scrape()("events_received_total") == 44
    monkeypatch.undo()
    assert Scrape()("events_received_total") == 49


# --- What is owed ----------------------------------------------------------------------------------------------------


def test_it_tells_what_waits_for_us_from_what_waits_for_its_endpoint() -> None:
    now = timezone.now()
    acme = make_tenant(slug="acme", name="Acme")
    ours = make_endpoint(tenant=acme, shard=1)
    held = [
        make_endpoint(tenant=acme, shard=1, state="paused"),
        make_health(endpoint=make_endpoint(tenant=acme, shard=1)).endpoint,
        make_health(endpoint=make_endpoint(tenant=acme, shard=1), open_until=None, paused_until=now + HOUR).endpoint,
    ]
    slow = [make_endpoint(tenant=acme, shard=1, rate_limit_per_s=0.1), make_endpoint(tenant=acme, shard=1, ordered=True)]
    for endpoint in (*held, *slow):
        make_delivery(endpoint=endpoint, due_at=now - 5 * HOUR)
    make_delivery(endpoint=ours, due_at=now - HOUR)
    make_delivery(endpoint=ours, due_at=now + HOUR)
    make_delivery(endpoint=make_endpoint(state="deleted"), due_at=now - 9 * HOUR)
    found = Scrape()
    assert found("backlog_deliveries", tenant="acme", lane="1", state="due") == 3
    assert found("backlog_deliveries", tenant="acme", lane="1", state="held") == 3
    assert found("retries_scheduled", tenant="acme", lane="1") == 1
    assert found("oldest_due_seconds", tenant="acme", lane="1") == found("lane_lag_seconds", lane="1") == pytest.approx(3600, abs=60)
    assert found("endpoint_oldest_due_seconds", endpoint=held[0].public_id) == pytest.approx(5 * 3600, abs=60)
    assert [found("endpoint_breaker", endpoint=each.public_id) for each in (ours, *held)] == [0, 0, 4, 2]
    assert [found("breakers", state=state) for state in owed.BREAKER_STATES] == [3, 0, 1, 0, 1]
    assert [found("endpoints", state=state) for state in ("active", "paused")] == [5, 1]


def test_it_counts_many_no_further_than_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "FEW", 2)
    monkeypatch.setattr(owed, "BUDGET", 5)
    many, few = make_endpoint(), make_endpoint()
    for endpoint, number in ((many, 4), (few, 2)):
        for _ in range(number):
            make_delivery(endpoint=endpoint)
    found = Scrape()
    assert [found("endpoint_deliveries", endpoint=each.public_id, state="pending") for each in (many, few)] == [4, 2]
    assert found("counts_limited") == 0
    for _ in range(3):
        make_delivery(endpoint=many)
    found = Scrape()
    assert found("endpoint_deliveries", endpoint=many.public_id, state="pending") == 5
    assert found("counts_limited") == 1


def test_it_names_no_more_endpoints_sources_and_tenants_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "MOST_NAMED", 2)
    endpoints = [make_endpoint(tenant=make_tenant(slug=f"t{number}", name="x")) for number in range(5)]
    for number, endpoint in enumerate(endpoints):
        AttemptTally.objects.create(endpoint=endpoint, minute=timezone.now().replace(second=0), outcome="retry", attempts=number, ms_5=number)
        make_delivery(endpoint=endpoint)
        make_delivery(endpoint=endpoint, state=Delivery.State.DEAD)
    make_delivery(endpoint=endpoints[0])
    found = Scrape()
    busiest = {endpoints[3].public_id, endpoints[4].public_id}
    assert found.labels("endpoint_attempts_total", "endpoint") == found.labels("endpoint_info", "endpoint") == busiest
    assert found.labels("endpoint_deliveries", "endpoint") == busiest | {"other"}
    assert (found("endpoint_deliveries", endpoint="other", state="pending"), found.sum("endpoint_deliveries", state="dead")) == (4, 5)
    assert found("endpoints_unnamed") == 3
    # A counter under a name that several share would fall when one of them gets its own: those of all are counted whole instead.
    assert (found.sum("endpoint_attempts_total"), found.sum("attempts_total")) == (7, 10)
    assert found.labels("backlog_deliveries", "tenant") == {"t0", "t1", "other"}
    assert found.sum("backlog_deliveries") == 6


def test_names_that_people_write_do_no_harm() -> None:
    name = 'a "quoted"\n name\\'
    endpoint = make_endpoint(name=name)
    assert Scrape().labels("endpoint_info", "name") == {name}
    assert endpoint.secret not in scrape()
    assert endpoint.url not in scrape()


# --- What runs -------------------------------------------------------------------------------------------------------


def test_it_tells_who_holds_which_lease() -> None:
    source = make_source()
    listening, sending = Holding(listener_lease(source.pk), 60), Holding(lane_lease(2), 30)
    assert listening.take()
    assert sending.take()
    found = Scrape()
    assert found("listener_wanted") == 0
    subscription = make_subscription(source=source)
    found = Scrape()
    assert found("listener_wanted") == 1
    subscription.endpoint.delete()
    assert Scrape()("listener_wanted") == 0
    assert [found("lane_lease_held", lane=str(lane)) for lane in (1, 2)] == [0, 1]
    assert 0 < found("lane_lease_left_seconds", lane="2") <= 30
    assert found("listener_lease_held") == 1
    assert 0 < found("listener_lease_left_seconds") <= 60
    Lease.objects.filter(name=listener_lease(source.pk)).update(expires_at=timezone.now() - HOUR)
    found = Scrape()
    assert found("listener_lease_held") == 0
    assert found("listener_lease_left_seconds") == pytest.approx(-3600, abs=60)


def test_it_tells_how_the_hosts_are_doing() -> None:
    now = timezone.now()
    near = make_host(host="wss://near.example/subscribe", lag_s=0.5, events=7, bytes=70, reconnects=2, rejected=3)
    make_host(host="wss://away.example/subscribe", connected_since=None, problem="cannot connect", last_event_at=now - HOUR, events=5)
    make_host(host="wss://past.example/subscribe", seen_at=now - 90 * HOUR, events=11)
    make_gap()
    make_gap(acknowledged_at=now)
    make_gap(filled_by=near.host)
    found = Scrape()
    assert {host: found("host_events_total", host=f"wss://{host}.example/subscribe") for host in ("near", "away", "past")} == {"near": 7, "away": 5, "past": 11}
    assert [found(name, host=near.host) for name in ("host_received_bytes_total", "host_reconnects_total", "host_rejected_frames_total")] == [70, 2, 3]
    assert {host: found("host_connected", host=f"wss://{host}.example/subscribe") for host in ("near", "away")} == {"near": 1, "away": 0}
    assert found.labels("stream_lag_seconds", "host") == {near.host}
    assert found("stream_lag_seconds") == 0.5
    assert found("stream_silent_seconds", host="wss://away.example/subscribe") == pytest.approx(3600, abs=60)
    assert [found("stream_gaps", state=state) for state in ("open", "acknowledged")] == [1, 1]


def test_it_counts_replays() -> None:
    for state, done in (("running", 3), ("running", 4), ("finished", 100)):
        make_replay(state=state, expected=10, done=done)
    found = Scrape()
    assert [found("replays", state=state) for state in ("running", "finished", "cancelled")] == [2, 1, 0]
    assert [found("replay_deliveries", progress=progress) for progress in ("expected", "done")] == [20, 7]


# --- The format ------------------------------------------------------------------------------------------------------


@with_threads
def test_it_is_well_formed_for_both_parsers() -> None:
    make_everything()
    shared.forget()
    plain = scrape()
    answer = Client(headers={"Accept": "application/openmetrics-text; version=1.0.0"}).get("/metrics")
    assert answer["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    newer = answer.content.decode()
    assert newer.endswith("# EOF\n")
    for families in (list(plain_text(plain)), list(open_metrics(newer))):
        assert len(families) > 35
        for family in families:
            assert family.name.startswith("jetrelay_")
            assert family.documentation.endswith("."), family.name
            assert family.type in ("counter", "gauge", "histogram", "info"), family.name
            assert family.samples, family.name
            if family.type == "counter":
                assert {sample.name for sample in family.samples} == {f"{family.name.removesuffix('_total')}_total"}
            else:
                assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name
            # Base units, at the end of a name.
            assert not any(unit in family.name.split("_") for unit in ("ms", "us", "milliseconds", "minutes", "hours", "kilobytes", "percent")), family.name
            series = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
            assert len(series) == len(set(series)), family.name


def test_its_histogram_is_cumulative() -> None:
    AttemptTally.objects.create(
        endpoint=make_endpoint(), minute=timezone.now().replace(second=0), outcome="dead", attempts=6, total_ms=61_000, ms_5=1, ms_1000=2, ms_over=3
    )
    found = Scrape()
    buckets = [each for each in found.samples if each.name == "jetrelay_attempt_duration_seconds_bucket" and each.labels["outcome"] == "dead"]
    assert [(each.labels["le"], each.value) for each in buckets] == [
        *((le, 1) for le in ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5")),
        *((le, 3) for le in ("1.0", "2.5", "5.0", "10.0", "30.0")),
        ("+Inf", 6),
    ]
    assert (found("attempt_duration_seconds_sum", outcome="dead"), found("attempt_duration_seconds_count", outcome="dead")) == (61, 6)


# --- Its cost --------------------------------------------------------------------------------------------------------


@with_threads
def test_it_asks_as_much_for_sixty_endpoints_as_for_three() -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            scrape()
        return len(captured)

    def add(number: int) -> None:
        for _ in range(number):
            endpoint = make_health(endpoint=make_endpoint(), open_until=None).endpoint
            make_delivery(endpoint=endpoint)
            AttemptTally.objects.create(endpoint=endpoint, minute=timezone.now().replace(second=0), outcome="dead", attempts=1, ms_5=1)

    make_everything()
    add(2)
    few = queries()
    add(57)
    assert queries() == few <= 25


def test_scrapes_within_a_second_share_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[int] = []

    def read() -> list[Any]:
        readings.append(1)
        return []

    monkeypatch.setattr(collector, "read", read)
    for _ in range(3):
        assert Client().get("/metrics").status_code == 200
    assert len(readings) == 1


def test_others_do_not_wait_while_somebody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would wait on the few threads that serve the site."""
    begun, end = threading.Event(), threading.Event()
    found = gauge("first", "The first reading.", "", [((), 1.0)])
    mine = collector.Shared()
    monkeypatch.setattr(collector, "read", lambda: [found])
    assert list(mine.collect()) == [found]

    def slowly() -> list[Any]:
        begun.set()
        assert end.wait(30)
        return []

    monkeypatch.setattr(collector, "read", slowly)
    monkeypatch.setattr(collector, "SHARED_S", 0.0)
    reader = threading.Thread(target=mine.collect)
    reader.start()
    assert begun.wait(30)
    assert list(mine.collect()) == [found]
    # What was read too long ago is no answer.
    monkeypatch.setattr(collector, "STALE_S", 0.0)
    with pytest.raises(collector.Busy):
        mine.collect()
    end.set()
    reader.join()


@with_threads
def test_it_says_that_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE delivery_totalmark RENAME TO elsewhere")
    try:
        response = Client().get("/metrics")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO delivery_totalmark")
    assert (response.status_code, response["Content-Type"]) == (503, "text/plain; charset=utf-8")
    assert "/health/ready" in response.content.decode()


@with_threads
def test_reading_keeps_nobody_from_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite, where there is one writer at a time, as on PostgreSQL."""
    read = owed.read
    host = make_host()

    def write() -> None:
        StreamHost.objects.filter(pk=host.pk).update(events=8)
        connection.close()

    def while_somebody_writes(now: Any) -> owed.Debts:
        found = read(now)
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        return found

    monkeypatch.setattr(owed, "read", while_somebody_writes)
    scrape()
    assert StreamHost.objects.get(pk=host.pk).events == 8
    assert not connection.in_atomic_block
