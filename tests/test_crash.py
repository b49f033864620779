"""The crash ledger in its short form: the whole system on servers of its own, and one fault after the other. See `tests/crash`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import report
from tests.crash.books import Happening, Row, Tables, audit, unbalanced
from tests.crash.faults import FAULTS, SHORT
from tests.crash.receivers import Arrival
from tests.crash.run import Plan, choose, folder_of_a_run, run
from tests.crash.servers import Unavailable
from tests.crash.stream import Line, digest, write

SEED = 20


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_of_a_run(keep=False) as made:
        yield made


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_it_accounts_for_every_event_through_one_fault_after_the_other(folder: Path) -> None:
    if not (os.environ.get("TEST_DATABASE_URL", "").startswith("postgres") and os.environ.get("TEST_REDIS_URL")):
        pytest.skip("wants PostgreSQL and Redis: set TEST_DATABASE_URL and TEST_REDIS_URL; it starts its own beside them")
    try:
        books = run(Plan(SEED, [FAULTS[name] for name in SHORT]), folder, print)
    except Unavailable as missing:
        pytest.skip(f"wants {missing}")
    assert not books.wrong, report.text(books)
    assert books.totals["totals"]["served"] > 1000
    assert all(row.delivered for row in books.rows), report.text(books)


# --- The books find what is wrong -------------------------------------------------------------------------------------

BODIES = [b"one", b"two", b"three"]
LINES = [Line(digest(body), number + 1.0, ("here",)) for number, body in enumerate(BODIES)]
IDS = {digest(body): f"{number:032x}" for number, body in enumerate(BODIES)}
BEGAN_AT = 1_000_000.0


def make_tables(**over: object) -> Tables:
    """Three events, stored and delivered to one endpoint."""
    fields: dict = {
        "events": [line.digest for line in LINES],
        "event_ids": IDS,
        "deliveries": {("here", line.digest): 1 for line in LINES},
        "began_at": BEGAN_AT + 1,
        "identity": (3, 3, 3, 3, 3, 3),
        "tallies": {"received": 3, "stored": 3, "duplicate": 0, "unmatched": 0, "invalid": 0},
        "gaps": 0,
        "delivery_attempts": 3,
    }
    return Tables(**fields | over)


def arrival(number: int, *, after_s: float = 0.1, status: int = 200) -> Arrival:
    line = LINES[number]
    return Arrival(f"evt_{IDS[line.digest]}", line.digest, BEGAN_AT + line.at_s + after_s, status)


ALL = [arrival(0), arrival(1), arrival(2)]


def test_it_finds_nothing_wrong_where_nothing_is() -> None:
    books = audit(LINES, [], make_tables(), {"here": [arrival(0, status=500), *ALL]})
    assert books.wrong == []
    assert "All is accounted for." in report.text(books)
    (row,) = books.rows
    assert (row.served, row.stored, row.owed, row.delivered, row.lost, row.refused) == (3, 3, 3, 3, 0, 1)


def test_it_finds_a_delivery_that_was_lost() -> None:
    books = audit(LINES, [], make_tables(), {"here": ALL[:2]})
    assert books.rows[0].lost == 1
    assert "1 deliveries were lost" in books.wrong
    assert "1 deliveries are settled and never came; 0 came and are not settled" in books.wrong


def test_it_finds_an_event_that_was_never_stored() -> None:
    tables = make_tables(events=[LINES[0].digest, LINES[2].digest], deliveries={("here", LINES[0].digest): 1, ("here", LINES[2].digest): 1})
    books = audit(LINES, [], tables, {"here": [ALL[0], ALL[2]]})
    assert books.rows[0].stored == 2
    assert "the tables owe 0 deliveries that nobody wanted, and miss 1" in books.wrong


def test_it_finds_events_that_were_stored_in_another_order() -> None:
    books = audit(LINES, [], make_tables(events=[LINES[1].digest, LINES[0].digest, LINES[2].digest]), {"here": ALL})
    assert [words[:20] for words in books.wrong] == ["the events in the ta"]


@pytest.mark.parametrize(("state", "name"), [(0, "pending"), (2, "dead"), (3, "cancelled")])
def test_it_finds_a_delivery_that_did_not_end_well(state: int, name: str) -> None:
    books = audit(LINES, [], make_tables(deliveries={("here", line.digest): 1 for line in LINES} | {("here", LINES[1].digest): state}), {"here": ALL})
    assert f"1 deliveries are {name}" in books.wrong


def test_it_finds_a_body_under_another_webhook_id() -> None:
    wrong = Arrival(ALL[0].webhook_id, LINES[1].digest, ALL[1].at, 200)
    assert audit(LINES, [], make_tables(), {"here": [ALL[0], wrong, ALL[2]]}).wrong == ["1 requests had a body that is not that of their webhook-id"]


def test_it_finds_a_repeat_that_no_fault_explains() -> None:
    happening = Happening(FAULTS["redis-flushed"], BEGAN_AT + 1, BEGAN_AT + 2)
    books = audit(LINES, [happening], make_tables(), {"here": [*ALL, arrival(0, after_s=1)]})
    assert [words.partition(" came")[0] for words in books.wrong] == [ALL[0].webhook_id]


def test_it_lays_a_repeat_at_the_door_of_the_fault_it_was_in_flight_at() -> None:
    happening = Happening(FAULTS["worker-killed"], BEGAN_AT + 1.5, BEGAN_AT + 2.5)
    books = audit(LINES, [happening], make_tables(), {"here": [*ALL, arrival(0, after_s=9)]})
    assert books.wrong == []
    assert [(row.fault, row.served, row.repeated) for row in books.rows] == [("(before)", 1, 0), ("worker-killed", 2, 1)]


def test_it_finds_what_a_stalled_worker_sends_although_its_lanes_are_another_ones() -> None:
    happening = Happening(FAULTS["worker-stalled"], BEGAN_AT - 10, BEGAN_AT + 3)
    assert len(audit(LINES, [happening], make_tables(), {"here": [*ALL, arrival(0, after_s=3)]}).wrong) == 1


def test_it_finds_a_repeat_of_what_had_long_been_settled() -> None:
    happening = Happening(FAULTS["worker-killed"], BEGAN_AT + 60, BEGAN_AT + 61)
    assert len(audit(LINES, [happening], make_tables(), {"here": [*ALL, arrival(0, after_s=70)]}).wrong) == 1


@pytest.mark.parametrize("place", range(6))
def test_it_finds_what_does_not_add_up(place: int) -> None:
    identity = [7, 7, 5, 5, 9, 9]
    assert unbalanced(identity) == []
    identity[place] += 1
    assert len(unbalanced(identity)) == 1


def test_it_shows_every_fault_with_its_figures() -> None:
    shown = report.table(audit(LINES, [Happening(FAULTS["worker-killed"], BEGAN_AT + 1.5, BEGAN_AT + 2.5)], make_tables(), {"here": ALL}))
    head, _, *rows = shown.splitlines()
    assert head.split()[:3] == ["fault", "at", "s"]
    assert [row.split("  ")[0] for row in rows] == ["(before)", "worker-killed", "(all)"]
    assert {len(row) for row in rows} == {len(head)}


def test_it_writes_the_same_stream_for_the_same_seed(tmp_path: Path) -> None:
    one, two = tmp_path / "one.ndjson", tmp_path / "two.ndjson"
    assert write(one, 50, 10, 1, 1_780_000_000_000_000, numbered=True) == write(two, 50, 10, 1, 1_780_000_000_000_000, numbered=True)
    assert one.read_bytes() == two.read_bytes()
    assert [line.count(b'"cursor":') for line in one.read_bytes().splitlines()] == [1] * 50


def test_it_has_a_column_for_every_figure() -> None:
    assert set(report.COLUMNS.values()) | {"fault"} == set(Row.__dataclass_fields__)


def test_it_chooses_every_fault_before_one_comes_again() -> None:
    faults = list(FAULTS.values())
    chosen = choose(faults, len(faults) * 2 + 3, SEED)
    assert len(chosen) == len(faults) * 2 + 3
    assert set(chosen[: len(faults)]) == set(chosen[len(faults) : len(faults) * 2]) == set(faults)
    assert chosen == choose(faults, len(faults) * 2 + 3, SEED)
