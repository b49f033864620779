"""The books: what became of every event, from three sides that know nothing of each other.

The stream's file says what was served, the tables what was stored, owed and settled, the receivers what arrived.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from time import time
from typing import Any

import psycopg

from tests.crash.faults import Fault, Repeats
from tests.crash.receivers import Arrival
from tests.crash.stream import Line, digest

# A request may have been answered so long before a fault without being settled; and a fault is not over the moment it is undone. In s.
BEFORE_S, AFTER_S = 3.0, 2.0

# At any moment, in one look.
IDENTITY = (
    "SELECT (SELECT coalesce(sum(received), 0) FROM delivery_eventtally), (SELECT coalesce(sum(stored + duplicate + unmatched + invalid), 0)"
    " FROM delivery_eventtally), (SELECT coalesce(sum(stored), 0) FROM delivery_eventtally), (SELECT count(*) FROM delivery_event),"
    " (SELECT coalesce(sum(attempts), 0) FROM delivery_attempttally), (SELECT count(*) FROM delivery_attempt)"
)
STATES = ("pending", "delivered", "dead", "cancelled")


@dataclass
class Happening:
    """A fault and when it was, in Unix time."""

    fault: Fault | None
    began_at: float
    ended_at: float

    def begin(self) -> None:
        self.began_at = time()

    @property
    def name(self) -> str:
        return self.fault.name if self.fault else "(before)"


@dataclass
class Row:
    """What became of the events that were served from this fault on until the next one; repeats stand with the fault that explains them."""

    fault: str
    at_s: float
    lasted_s: float
    served: int = 0
    wanted: int = 0
    stored: int = 0
    owed: int = 0
    delivered: int = 0
    lost: int = 0
    refused: int = 0
    dead: int = 0
    repeated: int = 0
    # From the event's time in the stream to its acceptance, at most.
    slowest_s: float = 0.0


@dataclass
class Tables:
    """What the database holds at the end."""

    events: list[bytes]
    event_ids: dict[bytes, str]
    # (endpoint, digest of the body) -> state
    deliveries: dict[tuple[str, bytes], int]
    began_at: float
    identity: tuple[int, ...]
    tallies: dict[str, int]
    gaps: int
    delivery_attempts: int

    @classmethod
    def read(cls, server: psycopg.Connection[Any]) -> "Tables":
        events = server.execute("SELECT id, body, received_at FROM delivery_event ORDER BY id").fetchall()
        digests = {id: digest(bytes(body)) for id, body, _ in events}
        deliveries = server.execute(
            "SELECT endpoint.name, owed.event_id, owed.state FROM delivery_delivery owed JOIN subscriptions_endpoint endpoint ON endpoint.id = owed.endpoint_id"
        )
        columns = ("received", "stored", "duplicate", "unmatched", "invalid")
        tallies = server.execute(f"SELECT {', '.join(f'coalesce(sum({each}), 0)' for each in columns)} FROM delivery_eventtally").fetchone()
        return cls(
            [digests[id] for id, _, _ in events],
            {digests[id]: id.hex for id, _, _ in events},
            {(name, digests[event]): state for name, event, state in deliveries},
            min((received.timestamp() for _, _, received in events), default=0.0),
            tuple(int(value) for value in _one(server, IDENTITY)),
            dict(zip(columns, (int(value) for value in tallies or ()), strict=True)),
            int(_one(server, "SELECT count(*) FROM delivery_streamgap")[0]),
            int(_one(server, "SELECT coalesce(sum(attempt_count), 0) FROM delivery_delivery")[0]),
        )


def _one(server: psycopg.Connection[Any], sql: str) -> tuple[Any, ...]:
    row = server.execute(sql).fetchone()
    assert row is not None
    return tuple(row)


@dataclass
class Books:
    """The account of a run. It is in order when `wrong` is empty."""

    rows: list[Row]
    totals: dict[str, Any]
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self.rows], **self.totals, "wrong": self.wrong, "notes": self.notes}


def audit(lines: Sequence[Line], happenings: Sequence[Happening], tables: Tables, arrivals: Mapping[str, Sequence[Arrival]]) -> Books:
    """`happenings` in the order of their beginnings."""
    first = next((line for line in lines if line.owed), None)
    began_at = tables.began_at - (first.at_s if first else 0.0)
    all_that_happened = [Happening(None, began_at, began_at), *happenings]
    rows = [Row(each.name, round(each.began_at - began_at, 1), round(each.ended_at - each.began_at, 1)) for each in all_that_happened]
    books = Books(rows, {})
    accepted = {name: _accepted(each) for name, each in arrivals.items()}
    refused = Counter(arrival.digest for each in arrivals.values() for arrival in each if not arrival.accepted)
    place = 0
    stored = set(tables.events)
    for line in lines:
        while place + 1 < len(rows) and began_at + line.at_s >= all_that_happened[place + 1].began_at:
            place += 1
        _enter(rows[place], line, began_at, stored, tables.deliveries, accepted, refused)
    _repeats(books, all_that_happened, accepted)
    _totals(books, tables, arrivals)
    _judge(books, lines, tables, arrivals, accepted)
    return books


def _accepted(arrivals: Sequence[Arrival]) -> dict[bytes, list[Arrival]]:
    found: dict[bytes, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.accepted:
            found[arrival.digest].append(arrival)
    return found


def _enter(
    row: Row,
    line: Line,
    began_at: float,
    stored: set[bytes],
    deliveries: Mapping[tuple[str, bytes], int],
    accepted: Mapping[str, Mapping[bytes, Sequence[Arrival]]],
    refused: Mapping[bytes, int],
) -> None:
    row.served += 1
    row.wanted += bool(line.owed)
    row.stored += line.digest in stored
    row.refused += refused[line.digest]
    for name in line.owed:
        came = accepted[name].get(line.digest)
        row.owed += 1
        row.delivered += bool(came)
        row.lost += not came
        row.dead += deliveries.get((name, line.digest)) == STATES.index("dead")
        if came:
            row.slowest_s = max(row.slowest_s, round(came[0].at - began_at - line.at_s, 1))


def _repeats(books: Books, happenings: Sequence[Happening], accepted: Mapping[str, Mapping[bytes, Sequence[Arrival]]]) -> None:
    """Whatever came twice was in flight when somebody was killed or stalled: its first time lies within such a fault."""
    for name, each in accepted.items():
        for came in each.values():
            for earlier, later in pairwise(came):
                place = next((number for number in reversed(range(len(happenings))) if _explains(happenings[number], earlier, later)), None)
                if place is None:
                    at_s = earlier.at - happenings[0].began_at
                    books.wrong.append(
                        f"{earlier.webhook_id} came to {name} at {at_s:.2f} s and again {later.at - earlier.at:.2f} s later, and no fault explains it"
                    )
                else:
                    books.rows[place].repeated += 1


def _explains(happening: Happening, earlier: Arrival, later: Arrival) -> bool:
    repeats = happening.fault.repeats if happening.fault else Repeats.NOTHING
    if repeats is Repeats.NOTHING:
        return False
    until = happening.began_at if repeats is Repeats.AT_THE_START else happening.ended_at
    return happening.began_at - BEFORE_S <= earlier.at <= until + AFTER_S and later.at >= happening.began_at


def _totals(books: Books, tables: Tables, arrivals: Mapping[str, Sequence[Arrival]]) -> None:
    fields = ("served", "wanted", "stored", "owed", "delivered", "lost", "refused", "dead", "repeated")
    states = Counter(tables.deliveries.values())
    books.totals = {
        "totals": {name: sum(getattr(row, name) for row in books.rows) for name in fields},
        "tallies": tables.tallies,
        "deliveries": {"all": len(tables.deliveries)} | {name: states[number] for number, name in enumerate(STATES)},
        "receivers": {
            name: {
                "requests": len(each),
                "webhook_ids": len({arrival.webhook_id for arrival in each if arrival.accepted}),
                "accepted": sum(arrival.accepted for arrival in each),
            }
            for name, each in arrivals.items()
        },
    }


def _judge(
    books: Books,
    lines: Sequence[Line],
    tables: Tables,
    arrivals: Mapping[str, Sequence[Arrival]],
    accepted: Mapping[str, Mapping[bytes, Sequence[Arrival]]],
) -> None:
    wrong, totals = books.wrong, books.totals["totals"]
    if totals["lost"]:
        wrong.append(f"{totals['lost']} deliveries were lost")
    for state in ("pending", "dead", "cancelled"):
        if count := books.totals["deliveries"][state]:
            wrong.append(f"{count} deliveries are {state}")
    wrong += unbalanced(tables.identity)
    owed = {(name, line.digest) for line in lines for name in line.owed}
    if owed != tables.deliveries.keys():
        wrong.append(f"the tables owe {len(tables.deliveries.keys() - owed)} deliveries that nobody wanted, and miss {len(owed - tables.deliveries.keys())}")
    came = {(name, digest) for name, each in accepted.items() for digest in each}
    settled = {key for key, state in tables.deliveries.items() if state == STATES.index("delivered")}
    if came != settled:
        wrong.append(f"{len(settled - came)} deliveries are settled and never came; {len(came - settled)} came and are not settled")
    if tables.events != [line.digest for line in lines if line.owed]:
        wrong.append("the events in the table, in the order of their ids, are not those of the stream, byte for byte and in its order")
    strange = sum(arrival.webhook_id != f"evt_{tables.event_ids.get(arrival.digest)}" for each in arrivals.values() for arrival in each)
    if strange:
        wrong.append(f"{strange} requests had a body that is not that of their webhook-id")
    if tables.gaps:
        wrong.append(f"{tables.gaps} gaps were recorded, and there was none")
    if tables.delivery_attempts != tables.identity[5]:
        books.notes.append(f"deliveries count {tables.delivery_attempts} attempts, and there are {tables.identity[5]}")


def unbalanced(identity: Sequence[int]) -> list[str]:
    """What does not add up in one look at the tables."""
    received, accounted, tallied, events, attempts_tallied, attempts = identity
    wrong = []
    if received != accounted:
        wrong.append(f"received {received} is not stored + duplicate + unmatched + invalid = {accounted}")
    if tallied != events:
        wrong.append(f"the tallies say {tallied} events were stored, and there are {events}")
    if attempts_tallied != attempts:
        wrong.append(f"the tallies say {attempts_tallied} attempts were made, and there are {attempts}")
    return wrong
