"""One run: a stream flows, faults come and go, all settles, and the books are closed."""

import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time

from tests.crash import stream
from tests.crash.books import IDENTITY, Books, Happening, Tables, audit, unbalanced
from tests.crash.faults import Fault
from tests.crash.house import House, house

# The stream flows for so long before the first fault, and after the last one. In s.
BEFORE_S, AFTER_S = 4.0, 5.0
# Between the starts of two faults of the random part, on average.
RANDOM_EVERY_S = 4.0
# From writing the stream to its first event.
_START_S = 6.0
# Breakers cool for 30 s, doubling: without any news for longer than this, nothing more is to come; and the most in all.
NO_NEWS_S, LONGEST_WAIT_S = 150.0, 420.0


@dataclass(frozen=True)
class Plan:
    """`faults` come one after the other, with a rest after each; then `overlapping` come at moments that the seed chooses."""

    seed: int
    faults: Sequence[Fault]
    overlapping: Sequence[Fault] = ()
    rate: float = 100.0
    rest_s: float = 4.0
    wire: str = "v1"

    @property
    def lasts_s(self) -> float:
        one_by_one = sum(fault.lasts_s + self.rest_s for fault in self.faults)
        return BEFORE_S + one_by_one + len(self.overlapping) * RANDOM_EVERY_S + AFTER_S


def choose(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """So many faults in an order of the seed's; none comes again before all others have."""
    chance, chosen = random.Random(f"which {seed}"), list[Fault]()
    while len(chosen) < count:
        chosen += chance.sample(faults, min(len(faults), count - len(chosen)))
    return chosen


@contextmanager
def folder_of_a_run(keep: bool) -> Iterator[Path]:
    """A temporary folder that other users may pass through, as PostgreSQL's does."""
    folder = Path(tempfile.mkdtemp(prefix="jetrelay-crash-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Books:
    """Raises Unavailable when this machine lacks the servers."""
    with house(folder, plan.seed) as built:
        file, start_us = folder / "stream.ndjson", int((time() + _START_S) * 1_000_000)
        lines = stream.write(file, int(plan.lasts_s * plan.rate), plan.rate, plan.seed, start_us, numbered=plan.wire == "v2")
        with built.running(file, plan.rate, plan.wire) as running:
            running.wait_for_events()
            say(f"{len(lines)} events on the {plan.wire} wire, {plan.rate:g} a second, for {plan.lasts_s:.0f} s")
            course = _Course(running, plan, say)
            course.go()
            course.settle(lines)
        with built.postgres.connect() as server:
            tables = Tables.read(server)
        course.happenings.sort(key=lambda happening: happening.began_at)
        books = audit(lines, course.happenings, tables, {name: list(each.arrivals) for name, each in built.receivers.items()})
        books.notes += [f"{slot.name}, {count} times: {line}" for slot in built.slots for line, count in slot.tracebacks.most_common(3)]
        books.wrong += course.wrong + [words for slot in built.slots for words in slot.ended_by_itself]
        return books


class _Course:
    def __init__(self, house: House, plan: Plan, say: Callable[[str], None]) -> None:
        self.happenings: list[Happening] = []
        self.wrong: list[str] = []
        self._house, self._plan, self._say = house, plan, say
        self._started = monotonic()
        self._lock = threading.Lock()

    def go(self) -> None:
        """All faults, the stream flowing meanwhile."""
        sleep(BEFORE_S)
        for number, fault in enumerate(self._plan.faults):
            self._happen(fault, f"{self._plan.seed} {number}")
            sleep(self._plan.rest_s)
            self._check_identity()
        self._overlap()

    def _overlap(self) -> None:
        faults, chance = self._plan.overlapping, random.Random(f"when {self._plan.seed}")
        moments = sorted(chance.uniform(0, len(faults) * RANDOM_EVERY_S) for _ in faults)
        began, coming = monotonic(), list[Future[None]]()
        with ThreadPoolExecutor(max_workers=len(faults) or 1) as pool:
            for number, (moment, fault) in enumerate(zip(moments, faults, strict=True)):
                sleep(max(began + moment - monotonic(), 0.0))
                coming.append(pool.submit(self._happen, fault, f"{self._plan.seed} overlapping {number}"))

    def _happen(self, fault: Fault, seed: str) -> None:
        self._say(f"{monotonic() - self._started:6.1f} s  {fault.name}")
        happening = Happening(fault, time(), time())
        with self._lock:
            self.happenings.append(happening)
        try:
            fault.does(self._house, random.Random(seed), happening.begin)
        except Exception as error:  # noqa: BLE001 - the others go on, and the books say so
            self.wrong.append(f"{fault.name}: {error!r}")
        happening.ended_at = time()

    def _check_identity(self) -> None:
        identity = self._house.ask(IDENTITY)
        if identity is not None:
            self.wrong += [f"in the middle of it: {words}" for words in unbalanced(identity)]

    def settle(self, lines: Sequence[stream.Line]) -> None:
        """Until the stream has ended and nothing is pending, or nothing moves any more."""
        wanted = sum(bool(line.owed) for line in lines)
        began = moved_at = monotonic()
        last: tuple[int, ...] | None = None
        while monotonic() - moved_at < NO_NEWS_S and monotonic() - began < self._plan.lasts_s + LONGEST_WAIT_S:
            now = self._house.ask("SELECT (SELECT count(*) FROM delivery_event), count(*) FILTER (WHERE state = 0) FROM delivery_delivery")
            if now is not None and now != last:
                self._say(f"{monotonic() - self._started:6.1f} s  {now[0]} of {wanted} events stored, {now[1]} deliveries pending")
                last, moved_at = now, monotonic()
            if now == (wanted, 0):
                # What is still in flight, if anything, is a repeat that must not be missed.
                sleep(2)
                return
            sleep(1)
        self.wrong.append(f"it did not settle: {last} of {wanted} events stored and deliveries pending")
