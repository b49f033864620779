"""Intake: a stream at full speed -> stored, and owed to one paused endpoint, so that nothing is sent meanwhile.

Beside it stands the rate of reading and decoding the same frames, from the same player, with no database behind it.
"""

import contextlib
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Annotated, Literal

from django.core.management.base import CommandError

from delivery.sources.jetstream import demo_events
from delivery.sources.jetstream.connection import Connection
from delivery.sources.jetstream.wires import Asked, wire_of
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import MANAGE, django, free_port, python, run, running, wait_for_port
from jetrelay.bench.scratch import scratch
from subscriptions.matching import Wanted
from subscriptions.validation import V1_PATH, V2_PATH

# A run that makes no progress for this long has failed.
PATIENCE_S = 60
_PAUSE = "from subscriptions.models import Endpoint; Endpoint.objects.all().set_state(Endpoint.State.PAUSED, 'for the benchmark')"


def measure(
    say: Say,
    *,
    events: Annotated[int, "events in the stream"] = 200_000,
    wire: Annotated[Literal["v1", "v2"], "the wire that is read"] = "v1",
) -> Figures:
    with scratch() as (folder, env):
        stream, log, port = folder / "stream.ndjson", folder / "processes.log", free_port()
        demo_events.write(stream, events)
        url = f"ws://127.0.0.1:{port}{V1_PATH if wire == 'v1' else V2_PATH}"
        env |= {"WEBHOOK_URL": "http://127.0.0.1:9/", "JETSTREAM_COLLECTIONS": "*", "JETSTREAM_KINDS": "commit,identity,account", "JETSTREAM_HOSTS": url}
        run(python(MANAGE, "migrate", "-v0"), env)
        run(python(MANAGE, "bootstrap"), env)
        run(django(_PAUSE), env)
        with running(python(MANAGE, "play_jetstream", str(stream), "--port", str(port)), env, log) as player:
            wait_for_port(port, player, log)
            say(f"reading and decoding {events:,} events on the {wire} wire, with no database")
            before = _decode(url, events)
            database = env["DATABASE_URL"].split(":")[0]
            say(f"intake: the same events into {database}")
            ledger, half_rss, peak_rss = _store(env, log, events)
            say("reading and decoding, again: the machine may have changed meanwhile")
            after = _decode(url, events)
        ledger.read()
        decode_per_s = (before + after) / 2
        per_s = events / ledger.stored_seconds
        return {
            "name": "intake",
            "ratio": round(per_s / decode_per_s, 3),
            "stored_events_per_s": round(per_s),
            "decoded_events_per_s": round(decode_per_s),
            "decoded_before_events_per_s": round(before),
            "decoded_after_events_per_s": round(after),
            "events": events,
            "owed": ledger.owed,
            "seconds_s": round(ledger.stored_seconds, 3),
            "rss_at_half_bytes": half_rss,
            "peak_rss_bytes": peak_rss,
            "wire": wire,
            "database": database,
        }


def _decode(url: str, events: int) -> float:
    """Events per second, from the first frame to the last."""
    wire = wire_of(url)
    with contextlib.closing(Connection(wire, Asked(Wanted()), "Jetrelay bench")) as connection:
        connection.open()
        started, seen = perf_counter(), 0
        while seen < events:
            frame = connection.receive()
            if frame is not None:
                wire.parse(frame)
                seen += 1
        return events / (perf_counter() - started)


def _store(env: dict[str, str], log: Path, events: int) -> tuple[Ledger, int, int]:
    """The ledger, and what the listener held in memory when half was stored, and at most, in bytes."""
    ledger, half_rss, last, since = Ledger(env["DATABASE_URL"]), 0, -1, monotonic()
    with running(python(MANAGE, "run_jetstream"), env, log) as listener:
        while True:
            stored = ledger.count_stored()
            if not half_rss and stored >= events / 2:
                half_rss = _peak_rss(listener.pid)
            ledger.read()
            # The listener writes down once a second since when it is connected: a short run may be over before.
            if stored >= events and ledger.stored_seconds:
                return ledger, half_rss, _peak_rss(listener.pid)
            if stored != last:
                last, since = stored, monotonic()
            if monotonic() - since > PATIENCE_S:
                raise CommandError(f"{stored} of {events} stored, and no more:\n{log.read_text(errors='replace')[-3000:]}")
            sleep(0.2)


def _peak_rss(pid: int) -> int:
    """The highest resident size of a process so far, in bytes (Linux; 0 elsewhere)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
