"""What a soak concludes: its account of the tables, of the sink's journal and of memory. `test_bench.py` runs a short one."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from delivery.engines import engine
from delivery.models import Attempt, Delivery, Event, EventTally
from delivery.outbox import Outbox
from jetrelay.bench import account
from jetrelay.bench.account import Account
from jetrelay.bench.proc import Process
from jetrelay.bench.soak import compare
from jetrelay.bench.tables import Table, Tables
from jetrelay.bench.trend import Sample, Span, trend
from subscriptions.models import Endpoint
from tests.builders import make_endpoint, make_incoming, make_source, make_subscription

SPAN = Span(total_s=100, warm_up_s=20, keep_s=20, window_s=20)
MB = 1024 * 1024
CLEAN = Account(0, 0, 0, 0, 0, 0)


def one(sql: str, *values: Any) -> Sequence[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        row: Sequence[Any] = cursor.fetchone()
        return row


def take() -> Account:
    return account.take(one, timezone.now(), 600, engine().key, connection.ops.adapt_datetimefield_value)


def drop(row: Event | Delivery) -> int:
    return type(row)._default_manager.filter(pk=row.pk)._raw_delete("default")


SABOTAGE: dict[str, Callable[[], object]] = {
    "uncounted": lambda: EventTally.objects.update(received=4),
    "untallied": lambda: EventTally.objects.update(received=4, stored=4),
    "not_owed": lambda: drop(Delivery.objects.earliest("pk")),
    "of_nothing": lambda: (drop(Event.objects.earliest("pk")), EventTally.objects.update(received=2, stored=2)),
    "unlogged": lambda: Delivery.objects.filter(pk=Delivery.objects.earliest("pk").pk).update(attempt_count=1),
    "stateless": lambda: Delivery.objects.filter(pk=Delivery.objects.earliest("pk").pk).update(state=7),
}


@pytest.fixture
def endpoint(db: None) -> Endpoint:
    """With three events stored and owed to it."""
    source, endpoint = make_source(), make_endpoint()
    make_subscription(endpoint=endpoint, source=source, collections=["*"])
    assert Outbox(source).publish([make_incoming() for _ in range(3)]).stored == 3
    return endpoint


def test_it_accounts_for_what_is_there(endpoint: Endpoint) -> None:
    assert take() == CLEAN
    first = Delivery.objects.earliest("pk")
    Attempt.objects.create(delivery=first, number=1, started_at=timezone.now())
    assert take() == CLEAN._replace(unlogged=-1)
    Delivery.objects.filter(pk=first.pk).update(attempt_count=1, state=Delivery.State.DELIVERED)
    assert take() == CLEAN


@pytest.mark.parametrize("kind", SABOTAGE)
def test_it_notices_what_is_not(kind: str, endpoint: Endpoint) -> None:
    SABOTAGE[kind]()
    found = take()
    assert found.unaccounted == 1
    assert abs(getattr(found, kind)) == 1


def test_it_takes_no_account_of_what_may_be_pruned(endpoint: Endpoint) -> None:
    drop(Event.objects.earliest("pk"))
    later = timezone.now() + timedelta(minutes=8)
    assert account.take(one, later, 600, engine().key, connection.ops.adapt_datetimefield_value) == CLEAN


@pytest.mark.parametrize(("lines", "lost", "duplicates"), [(["a", "b", "c"], 0, 0), (["a", "c", "a"], 1, 1), ([], 3, 0)])
def test_it_compares_what_was_stored_with_what_arrived(lines: list[str], lost: int, duplicates: int, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("".join(f"evt_{line}\n" for line in lines))
    assert compare(journal, 3, len(lines), patience_s=0.5) == (lost, duplicates)


def sample(at_s: float, worker: float, claim_ms: float = 1.0, unaccounted: int = 0, gaps: int = 0) -> Sample:
    size = Table(table=10 * MB, indexes=5 * MB, live=1000, dead=250)
    counts = {"received": int(at_s * 10), "stored": int(at_s * 10), "delivered": int(at_s * 10), "pending": 0, "dead": 0}
    tables = Tables(
        account=CLEAN._replace(not_owed=unaccounted),
        **counts,
        gaps=gaps,
        waited_s=0.1,
        oldest_s=25.0,
        claim_ms=claim_ms,
        claim_blocks=None,
        connections=None,
        backend=None,
        sizes={"file": size},
    )
    processes = {name: Process(2 * int(own * MB), int(own * MB), 9, at_s / 10) for name, own in (("worker", worker), ("sink", at_s + 1), ("beat", 50))}
    return Sample(at_s, processes, tables, 50.0)


TOLD = {"lost": 0, "duplicates": 0, "metrics_differ": 0, "pages_failed": 0}


def test_it_finds_the_process_that_grew_most() -> None:
    # It grows until the warm-up is over, which is not held against it; after that by a quarter.
    found = trend([sample(at, 80 if at < 20 else 100 if at < 50 else 125) for at in range(0, 110, 10)], SPAN, 10, TOLD)
    assert (found["ratio"], found["worst_process"], found["memory_growth_percent"]) == (1.25, "worker", 25.0)
    assert found["verdict"] == "worker grew by 25.0 %"
    assert (found["processes"]["worker"]["first_mb"], found["processes"]["worker"]["cpu_percent"]) == (100.0, 10.0)
    assert "sink" not in found["processes"]
    assert found["tables"]["file"]["dead_first_percent"] == 20.0


def test_it_holds_when_nothing_grows() -> None:
    # The claim took its time before there was anything to prune.
    found = trend([sample(at, 100, claim_ms=9 if at < 40 else 1 if at < 80 else 2) for at in range(0, 110, 10)], SPAN, 10, TOLD)
    assert (found["ratio"], found["verdict"]) == (1.0, "holds")
    assert (found["claim_first_ms"], found["claim_last_ms"]) == (1, 2)
    assert (found["stored_events_per_s"], found["stored_lag_max_s"]) == (10, 0.0)
    assert found["prune_lag_last_s"] == 5.0


def test_it_names_everything_that_does_not_hold() -> None:
    samples = [sample(at, 100, unaccounted=at == 50, gaps=2 * (at == 60)) for at in range(0, 110, 10)]
    found = trend(samples, SPAN, 10, TOLD | {"lost": 3})
    assert found["verdict"] == "unaccounted: 1; lost: 3; gaps: 2"
