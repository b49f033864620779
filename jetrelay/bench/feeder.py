"""Events through the outbox at the pace of a clock. Runs in a process of its own: `processes.django(…)`.

It stores what has fallen due every 50 ms, in one batch, as the listener does with a stream.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from time import monotonic, sleep, time

from delivery.outbox import MAX_BATCH, MAX_WAIT_S, Outbox
from delivery.sources.incoming import Incoming, dedup_key
from jetrelay.bench.stage import collection
from subscriptions.models import Source

# Marks events that are not measured.
UNMEASURED = "unmeasured"
_TEXT = "The kettle is singing again, and the rain on the tin roof has not stopped since four. " * 4


@dataclass(frozen=True)
class Feed:
    """Events for each endpoint of a group. Those to be measured have an origin to tell them by."""

    group: str
    endpoints: int
    per_s: float
    origin: str = UNMEASURED


class _Writer:
    """Makes events of about 520 bytes, the mean of the stream."""

    def __init__(self) -> None:
        self._run, self._numbers = secrets.token_hex(6), count()
        self.outbox = Outbox(Source.objects.get(kind=Source.Kind.JETSTREAM))

    def write(self, group: str, endpoint: int, origin: str) -> Incoming:
        number, type, time_us = next(self._numbers), collection(group, endpoint), int(time() * 1e6)
        did, rkey = f"did:plc:{number % 100_000:024d}", f"{self._run}{number:09d}"
        body = (
            f'{{"did":"{did}","time_us":{time_us},"kind":"commit","commit":{{"rev":"{rkey}","operation":"create",'
            f'"collection":"{type}","rkey":"{rkey}","record":{{"$type":"{type}","text":"{_TEXT}"}}}}}}'
        )
        return Incoming(dedup_key([rkey]), "commit", type, "create", did, time_us, None, body.encode(), origin)


def pour(group: str, endpoints: int, events: int) -> None:
    """Store so many events, in turn for each endpoint of the group, as fast as it goes."""
    writer = _Writer()
    for start in range(0, events, MAX_BATCH):
        writer.outbox.publish([writer.write(group, number % endpoints, UNMEASURED) for number in range(start, min(start + MAX_BATCH, events))])


def feed(feeds: list[Feed], warm_up_s: float, seconds: float) -> None:
    """Store what every feed owes by the clock; what falls due in the first `warm_up_s` is not measured.

    A machine that cannot keep up stores less: it ends in time all the same.
    """
    writer, started = _Writer(), monotonic()
    made = [0] * len(feeds)
    while (passed := monotonic() - started) < warm_up_s + seconds:
        batch = list(_due(writer, feeds, made, passed, measured=passed >= warm_up_s))
        for start in range(0, len(batch), MAX_BATCH):
            writer.outbox.publish(batch[start : start + MAX_BATCH])
        sleep(max(0.0, started + passed + MAX_WAIT_S - monotonic()))


def _due(writer: _Writer, feeds: list[Feed], made: list[int], passed: float, *, measured: bool) -> Iterator[Incoming]:
    for place, each in enumerate(feeds):
        due = int(passed * each.per_s * each.endpoints)
        for number in range(made[place], due):
            yield writer.write(each.group, number % each.endpoints, each.origin if measured else UNMEASURED)
        made[place] = due
