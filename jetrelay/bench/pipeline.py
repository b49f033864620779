"""The pipeline: a stream at full speed -> stored -> delivered to a local sink, with the product's own processes.

The time runs from the listener's connection to the settling of the last delivery, as the tables have it.
"""

from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

from django.core.management.base import CommandError

from delivery.sources.jetstream import demo_events
from jetrelay.bench import limit
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import BEAT, MANAGE, WORKER, free_port, python, run, running, wait_for_line, wait_for_port
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink

# A run that makes no progress for this long has failed.
PATIENCE_S = 60


def measure(say: Say, *, events: Annotated[int, "events in the stream"] = 30_000) -> Figures:
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        stream = folder / "stream.ndjson"
        demo_events.write(stream, events)
        bodies = stream.read_bytes().splitlines()[:5000]
        say(f"limit: posting to {sink_name} with no database")
        before = limit.post(url, bodies, events)
        say(f"pipeline: {events:,} events on {env['DATABASE_URL'].split(':')[0]} and {env['BROKER_URL'].split(':')[0] or 'files'}")
        ledger = _run(folder, env | {"WEBHOOK_URL": url, "JETSTREAM_COLLECTIONS": "*", "JETSTREAM_KINDS": "commit,identity,account"}, stream, events)
        say("limit, again: the machine may have changed meanwhile")
        after = limit.post(url, bodies, events)
        limit_per_s = (before.per_s + after.per_s) / 2
        per_s = ledger.delivered / ledger.seconds
        return {
            "name": "pipeline",
            "ratio": round(per_s / limit_per_s, 3),
            "pipeline_events_per_s": round(per_s),
            "limit_requests_per_s": round(limit_per_s),
            "limit_before_requests_per_s": round(before.per_s),
            "limit_after_requests_per_s": round(after.per_s),
            "events": events,
            "delivered": ledger.delivered,
            "attempts": ledger.attempts,
            "seconds_s": round(ledger.seconds, 3),
            "stored_seconds_s": round(ledger.stored_seconds, 3),
            "mean_body_bytes": round(sum(map(len, bodies)) / len(bodies)),
            "sink": sink_name,
            "database": env["DATABASE_URL"].split(":")[0],
        }


def _run(folder: Path, env: dict[str, str], stream: Path, events: int) -> Ledger:
    port, log = free_port(), folder / "processes.log"
    env = env | {"JETSTREAM_HOSTS": f"ws://127.0.0.1:{port}/subscribe"}
    run(python(MANAGE, "migrate", "-v0"), env)
    run(python(MANAGE, "bootstrap"), env)
    ledger = Ledger(env["DATABASE_URL"])
    with (
        running(python(MANAGE, "play_jetstream", str(stream), "--port", str(port)), env, log) as player,
        running(python(*WORKER), env, log) as worker,
        running(python(*BEAT), env, log),
    ):
        wait_for_port(port, player, log)
        wait_for_line(" ready.", worker, log)
        with running(python(MANAGE, "run_jetstream"), env, log):
            _wait(ledger, events, log)
    return ledger


def _wait(ledger: Ledger, events: int, log: Path) -> None:
    last, since = -1, monotonic()
    while True:
        ledger.read()
        # The listener writes down once a second since when it is connected: a short run may be over before.
        if ledger.delivered >= events and ledger.seconds:
            return
        if ledger.delivered != last:
            last, since = ledger.delivered, monotonic()
        if monotonic() - since > PATIENCE_S:
            raise CommandError(f"{ledger.delivered} of {events} delivered, and no more:\n{log.read_text(errors='replace')[-3000:]}")
        sleep(0.2)
