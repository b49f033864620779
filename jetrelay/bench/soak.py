"""Soak: the whole product at a steady rate for a quarter of an hour: does anything grow, slow down or go missing?

A stream at a fixed rate -> listener -> worker -> sink, with beat and the site, all of them the product's own processes. What is over is
pruned after `--keep` seconds (see `soak_settings.py`), so the tables reach a size at which they should stay. `ratio` is the memory of
the process that grew most: the median of the last minute divided by that of the first after the warm-up.
"""

import contextlib
import json
import os
from array import array
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

from django.core.management.base import CommandError

from delivery.outbox import MAX_REMEMBERED
from delivery.sources.jetstream import demo_events
from jetrelay.bench import pipeline, proc
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, WORKER, delivering, python, running
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from jetrelay.bench.spread import percentiles_ms
from jetrelay.bench.tables import Watch, watch
from jetrelay.bench.trend import Sample, Span, trend
from jetrelay.bench.visitor import Visitor
from jetrelay.bench.web import serving
from subscriptions.ids import first_id

# Played again and again, as fresh copies.
STREAM_EVENTS = 50_000
# To measure the pipeline by, where no rate is given.
PIPELINE_EVENTS = 100_000
PATIENCE_S = 60
WINDOW_S = 60.0


def measure(
    say: Say,
    *,
    minutes: Annotated[float, "how long it lasts"] = 15.0,
    rate: Annotated[float, "events per second; 0: half of what the pipeline does, which is measured first"] = 0.0,
    warm_up: Annotated[float, "seconds until memory is first measured"] = 60.0,
    keep: Annotated[float, "seconds until what is over is pruned"] = 180.0,
    every: Annotated[float, "seconds between two samples"] = 10.0,
    workers: Annotated[int, "worker processes"] = 1,
    events: Annotated[int, "events to measure the pipeline by"] = PIPELINE_EVENTS,
    samples: Annotated[str, "a file to add every sample to, one JSON document a line"] = "",
) -> Figures:
    if not proc.available():
        raise CommandError("bench soak reads memory from /proc: it needs Linux.")
    span = Span(minutes * 60, warm_up, keep, min(WINDOW_S, (minutes * 60 - warm_up - keep) / 2))
    if span.window_s < every:
        raise CommandError("The time is too short: it takes --warm-up and --keep, and two windows of at least --every seconds. Give more --minutes.")
    rate = rate or _half_of_pipeline(say, events)
    if rate * warm_up < MAX_REMEMBERED:
        say(f"the listener's memory fills with keys until {MAX_REMEMBERED / rate:.0f} s: it grows until then by design, which --warm-up should cover")
    with scratch() as (folder, env), sink(folder, folder / "journal") as (url, sink_name):
        env |= pipeline.prepare(env, url) | {"DJANGO_SETTINGS_MODULE": "jetrelay.bench.soak_settings", "SOAK_KEEP_S": str(keep)}
        say(f"{rate:,.0f} events/s for {minutes:g} minutes on {env['DATABASE_URL'].split(':')[0]}")
        soak = _Soak(say, folder, env, samples)
        soak.run(rate, span, every, workers)
        found = soak.samples
        lost, duplicates = compare(folder / "journal", found[-1].tables.stored, soak.attempts())
    pruned = found[-1].tables.stored - soak.kept
    told = {
        "lost": lost,
        "duplicates": duplicates,
        "metrics_differ": soak.differing,
        "pruned": pruned,
        "pages_failed": soak.visits.failed,
        "page_slowest_ms": round(soak.visits.slowest_ms, 1),
    }
    return trend(found, span, rate, told) | {
        **percentiles_ms("delivered", soak.last_ms),
        "workers": workers,
        "sink": sink_name,
        "database": env["DATABASE_URL"].split(":")[0],
    }


def _half_of_pipeline(say: Say, events: int) -> float:
    with scratch() as (folder, env), sink(folder) as (url, _):
        stream = folder / "stream.ndjson"
        demo_events.write(stream, events)
        say(f"pipeline: {events:,} events, to take half of that rate")
        ledger = pipeline.deliver(folder, env | pipeline.prepare(env, url), stream, events)
        return ledger.delivered / ledger.seconds / 2


def compare(journal: Path, stored: int, attempts: int, patience_s: float = PATIENCE_S) -> tuple[int, int]:
    """Of the stored events, how many never came to the sink; and how many requests came there again."""
    ids, deadline = array("q"), monotonic() + patience_s
    with journal.open("rb") as lines:
        # The sink writes a second late.
        while len(ids) < attempts and monotonic() < deadline:
            ids.extend(hash(line) for line in lines)
            sleep(0.2)
    ordered = sorted(ids)
    different = sum(one != other for one, other in pairwise(ordered)) + bool(ordered)
    return stored - different, len(ordered) - different


class _Soak:
    """The processes, and what is seen of them."""

    def __init__(self, say: Say, folder: Path, env: Mapping[str, str], kept: str) -> None:
        self.say, self.folder, self.env, self.file = say, folder, env, kept
        self.log, self.samples = folder / "processes.log", list[Sample]()
        self.last_ms: list[float] = []
        self.started, self.kept, self.differing = 0.0, 0, 0

    def run(self, rate: float, span: Span, every: float, workers: int) -> None:
        """Take all samples; the last one when the stream has ended and nothing is owed any more."""
        stream = self.folder / "stream.ndjson"
        demo_events.write(stream, STREAM_EVENTS)
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(serving(self.env, self.log))
            stack.enter_context(delivering(self.env, self.log))
            for number in range(2, workers + 1):
                stack.enter_context(running(python(*WORKER, "-n", f"worker-{number}@%h"), self.env, self.log))
            player = stack.enter_context(contextlib.ExitStack())
            host = player.enter_context(pipeline.playing(stream, self.env, self.log, "--rate", f"{rate:g}", "--loop"))
            stack.enter_context(running(python(MANAGE, "run_jetstream"), dict(self.env) | {"JETSTREAM_HOSTS": host}, self.log))
            self.visits = Visitor(self.env, target)
            eyes = stack.enter_context(contextlib.closing(watch(self.env["DATABASE_URL"], span.keep_s)))
            self._watch(eyes, span.total_s, every)
            player.close()
            self._finish(eyes, span)

    def attempts(self) -> int:
        return int(Ledger(self.env["DATABASE_URL"]).one("SELECT COALESCE(SUM(attempts), 0) FROM delivery_attempttally")[0])

    def _watch(self, eyes: Watch, total_s: float, every: float) -> None:
        self.started, crew = monotonic(), proc.cast(os.getpid())
        while (at_s := monotonic() - self.started) < total_s:
            self._keep(self._look(eyes))
            if gone := crew.keys() - self.samples[-1].processes.keys():
                raise CommandError(f"{', '.join(sorted(gone))} ended:\n{self.log.read_text(errors='replace')[-3000:]}")
            self.visits.visit()
            self.say(self.samples[-1].line())
            sleep(max(0.0, min(at_s + every, total_s) - (monotonic() - self.started)))

    def _look(self, eyes: Watch) -> Sample:
        began = monotonic()
        seen = {name: found for name, pid in proc.cast(os.getpid()).items() if (found := proc.look(pid))}
        tables = eyes.look(datetime.now(UTC))
        return Sample(began - self.started, seen, tables, (monotonic() - began) * 1000)

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        if self.file:
            # At once: a soak that fails is the one whose samples are wanted.
            with open(self.file, "a") as file:
                file.write(f"{json.dumps(sample.plain())}\n")

    def _finish(self, eyes: Watch, span: Span) -> None:
        """Wait until nothing is owed, and nothing more comes."""
        deadline, before = monotonic() + PATIENCE_S, -1
        while (last := self._look(eyes)).tables.pending or last.tables.received != before:
            if monotonic() > deadline:
                raise CommandError(f"{last.tables.pending} deliveries are left, and it gets no further:\n{self.log.read_text(errors='replace')[-3000:]}")
            before = last.tables.received
            sleep(0.5)
        self._keep(last)
        tables = {"received": last.tables.received, "stored": last.tables.stored, "delivered": last.tables.delivered, "unaccounted": 0}
        shown = self.visits.counts()
        self.differing = sum(shown.get(name) != count for name, count in tables.items())
        (self.kept,) = eyes.one("SELECT COUNT(*) FROM delivery_event")
        since = eyes.key(first_id(datetime.now(UTC) - timedelta(seconds=span.window_s)))
        self.last_ms = Ledger(self.env["DATABASE_URL"]).stay_since(since).ms
